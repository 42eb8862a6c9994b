package snapshot

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"gotong/grid/blake3"
	"gotong/storage/vault"
)

// A state file remembers, for one backed up path, each regular file as it was
// and what became of it, in the order of the walk, so that it is read along
// with the next walk and never as a whole. It is a cache: each record carries a
// checksum, a torn end is ignored, and every blob is looked up before it is
// believed. Files that are gone are not carried over.
//
// A backup writes a new file beside the old one. When it is cut short, the next
// one reads what is there first and the old file from there on.
const (
	stateMagic      = "gtstate1"
	stateNew        = ".new"
	statePart       = ".part"
	maxRecordBytes  = 20 << 20 // a node and vault.Object.Blobs
	recordHeadBytes = 8        // length and checksum
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// stateRecord is one file as it was.
type stateRecord struct {
	key   []byte // path below the backed up one, elements ended by NUL
	meta  fileState
	node  []byte // encoded, with its length
	blobs []vault.BlobID
}

// fileState is what tells that a file did not change.
type fileState struct {
	size, mtime, ctime int64 // times in nanoseconds since 1970
	inode              uint64
	mode               uint32
}

func stateOf(m meta) fileState {
	return fileState{m.size, m.mtime*1e9 + m.mtimeNanos, m.ctime, m.inode, m.mode}
}

func appendRecord(b []byte, r *stateRecord) []byte {
	start := len(b)
	b = append(b, make([]byte, recordHeadBytes)...)
	b = binary.AppendUvarint(b, uint64(len(r.key)))
	b = append(b, r.key...)
	for _, n := range []uint64{uint64(r.meta.size), uint64(r.meta.mtime), uint64(r.meta.ctime), r.meta.inode, uint64(r.meta.mode)} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	b = binary.AppendUvarint(b, uint64(len(r.node)))
	b = append(b, r.node...)
	for i := range r.blobs {
		b = append(b, r.blobs[i][:]...)
	}
	body := b[start+recordHeadBytes:]
	binary.LittleEndian.PutUint32(b[start:], uint32(len(body)))
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(body, crcTable))
	return b
}

var errRecord = errors.New("damaged state record")

// parseRecord reads the body of a record; the result refers to it.
func parseRecord(body []byte) (r stateRecord, err error) {
	var ok bool
	if r.key, body, ok = cutCounted(body); !ok || len(body) < 5*8 {
		return stateRecord{}, errRecord
	}
	field := func() uint64 {
		n := binary.LittleEndian.Uint64(body)
		body = body[8:]
		return n
	}
	r.meta = fileState{int64(field()), int64(field()), int64(field()), field(), uint32(field())}
	if r.node, body, ok = cutCounted(body); !ok || len(body)%32 != 0 {
		return stateRecord{}, errRecord
	}
	r.blobs = make([]vault.BlobID, len(body)/32)
	for i := range r.blobs {
		r.blobs[i] = vault.BlobID(body[32*i:])
	}
	return r, nil
}

func cutCounted(b []byte) (part, rest []byte, ok bool) {
	length, n := binary.Uvarint(b)
	if n <= 0 || length > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(length)], b[n+int(length):], true
}

// stateFile reads the records of one file in order.
type stateFile struct {
	f    *os.File
	r    *bufio.Reader
	body []byte
}

// openState opens a state file; one that is not there or is none has no records.
func openState(path string) *stateFile {
	f, err := os.Open(path)
	if err != nil {
		return &stateFile{}
	}
	s := &stateFile{f: f, r: bufio.NewReaderSize(f, 64<<10)}
	magic := make([]byte, len(stateMagic))
	if _, err := io.ReadFull(s.r, magic); err != nil || string(magic) != stateMagic {
		s.close()
	}
	return s
}

// next returns the next record, or false at the end and at the first damage.
// The record is valid until the next call.
func (s *stateFile) next() (stateRecord, bool) {
	if s.f == nil {
		return stateRecord{}, false
	}
	var head [recordHeadBytes]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		s.close()
		return stateRecord{}, false
	}
	length := binary.LittleEndian.Uint32(head[:])
	if length > maxRecordBytes {
		s.close()
		return stateRecord{}, false
	}
	if cap(s.body) < int(length) {
		s.body = make([]byte, length)
	}
	s.body = s.body[:length]
	_, err := io.ReadFull(s.r, s.body)
	if err == nil && crc32.Checksum(s.body, crcTable) == binary.LittleEndian.Uint32(head[4:]) {
		if r, err := parseRecord(s.body); err == nil {
			return r, true
		}
	}
	s.close()
	return stateRecord{}, false
}

func (s *stateFile) close() {
	if s.f != nil {
		_ = s.f.Close() // only read
		s.f = nil
	}
}

// state joins the states of earlier backups of one path with the walk, and
// writes the new one.
type state struct {
	path  string
	files []*stateFile // the cut short one first
	now   stateRecord  // the record that comes next in the walk, or later
	have  bool
	last  []byte // key of the newest record taken

	out   *os.File
	w     *bufio.Writer
	space []byte
	err   error // of the first failed write; a cache may fail
	ended bool
}

// statePath names the state file of a backed up path.
func statePath(dir, path string) string {
	sum := blake3.Sum256([]byte(path))
	return filepath.Join(dir, hex.EncodeToString(sum[:16]))
}

// beginState opens what is known of path and starts a new file, unless it is
// only to be read.
func beginState(dir, path string, readOnly bool) *state {
	s := &state{path: statePath(dir, path)}
	if readOnly {
		s.files = []*stateFile{openState(s.path + stateNew), openState(s.path + statePart), openState(s.path)}
		s.advance()
		return s
	}
	if _, err := os.Stat(s.path + stateNew); err == nil {
		s.err = os.Rename(s.path+stateNew, s.path+statePart)
	}
	s.files = []*stateFile{openState(s.path + statePart), openState(s.path)}
	s.advance()
	out, err := os.OpenFile(s.path+stateNew, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		s.err = errors.Join(s.err, err)
		return s
	}
	s.out, s.w = out, bufio.NewWriterSize(out, 64<<10)
	_, err = s.w.WriteString(stateMagic)
	s.err = errors.Join(s.err, err)
	return s
}

// advance moves to the next record after the last one.
func (s *state) advance() {
	for len(s.files) > 0 {
		r, ok := s.files[0].next()
		if !ok {
			s.files = s.files[1:]
			continue
		}
		if s.last == nil || string(r.key) > string(s.last) {
			s.now, s.have = r, true
			s.last = append(s.last[:0], r.key...)
			return
		}
	}
	s.have = false
}

// find returns what is known of a file. Keys are asked for by rising order.
func (s *state) find(key []byte) (stateRecord, bool) {
	for s.have && string(s.now.key) < string(key) {
		s.advance()
	}
	if s.have && string(s.now.key) == string(key) {
		return s.now, true
	}
	return stateRecord{}, false
}

// add writes a record to the new file.
func (s *state) add(r *stateRecord) {
	if s.err != nil || s.w == nil {
		return
	}
	s.space = appendRecord(s.space[:0], r)
	if len(s.space)-recordHeadBytes > maxRecordBytes {
		return
	}
	_, s.err = s.w.Write(s.space)
}

// finish puts the new file in the place of the old one when the walk is done;
// else it leaves it for the next backup.
func (s *state) finish(done bool) error {
	if s.ended {
		return nil
	}
	s.ended = true
	for _, f := range s.files {
		f.close()
	}
	if s.out == nil {
		return s.err
	}
	err := errors.Join(s.err, s.w.Flush(), s.out.Close())
	if err == nil && done {
		err = os.Rename(s.path+stateNew, s.path)
		if rest := os.Remove(s.path + statePart); !errors.Is(rest, os.ErrNotExist) {
			err = errors.Join(err, rest)
		}
	}
	if err != nil {
		return fmt.Errorf("state of earlier backups: %w", err)
	}
	return nil
}
