package seal

import "encoding/binary"

// jobDomain prefixes the additional data of contents of jobs.
const jobDomain = "gotong job content v1\x00"

// JobContent seals and opens the pieces of one content of a job.
type JobContent struct {
	key  [keyBytes]byte
	data []byte // additional data, up to the number of the piece
}

// NewJobContent returns what seals a content of a job: its id is the hash of the
// bytes, of which there are size. Each content has a key of its own, so that
// random nonces never meet.
func NewJobContent(key, job, content [32]byte, size int64) JobContent {
	b := make([]byte, 0, len(jobDomain)+len(job)+len(content)+8)
	b = append(b, jobDomain...)
	b = append(b, job[:]...)
	b = append(b, content[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(size))
	return JobContent{key: keyed(&key, b), data: b}
}

func (c JobContent) additional(piece int) []byte {
	b := make([]byte, 0, len(c.data)+8)
	return binary.BigEndian.AppendUint64(append(b, c.data...), uint64(piece))
}

// Seal encrypts a piece and appends it to dst; it adds Overhead bytes. plaintext
// and dst must not overlap.
func (c JobContent) Seal(dst []byte, piece int, plaintext []byte) []byte {
	return sealWith(&c.key, dst, plaintext, c.additional(piece))
}

// Open decrypts what Seal made of this piece in place, which overwrites sealed.
// The error is storage.ErrCorrupt.
func (c JobContent) Open(piece int, sealed []byte) ([]byte, error) {
	at := min(nonceBytes, len(sealed))
	return openWith(&c.key, sealed[at:at], sealed, c.additional(piece))
}
