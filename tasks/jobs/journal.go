package jobs

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"gotong/tasks"
)

// A journal is the file in which the records of a job are kept: a header with a
// magic line and the job's id, then entries, each one record.
//
//	header  magic (16 bytes) ‖ job 32 ‖ CRC-32C of both, 4
//	entry   mark 4 ‖ payload length 4 ‖ CRC-32C of the payload 4 ‖ CRC-32C of the 12 bytes before, 4 ‖ record
//
// Integers are big-endian. The entries are hints to nobody: what is damaged is
// cut off, and the work of which it told is done again.
const (
	journalMagic  = "gotong job jnl 1"
	journalHeader = len(journalMagic) + 32 + 4
	entryHeader   = 16
	// MaxJournalBytes bounds a journal; a job that needs more fails.
	MaxJournalBytes = 64 << 30
	readBuffer      = 1 << 20
)

var (
	entryMark  = [4]byte{'r', 'e', 'c', 0x1e}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Errors of journals. Test with errors.Is.
var (
	// ErrBroken: the journal is in an unknown state since an earlier failure.
	ErrBroken = errors.New("an earlier write failed; restart to read back what is on the disk")
	// ErrJournalFull: the journal has reached MaxJournalBytes.
	ErrJournalFull = errors.New("the job's journal is full")
	// ErrDamaged: a file of a job is not what was written.
	ErrDamaged = errors.New("file of a job damaged")
)

// file is what a journal needs of an *os.File; tests let it fail.
type file interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

func journalHead(job tasks.JobID) []byte {
	head := append(make([]byte, 0, journalHeader), journalMagic...)
	head = append(head, job[:]...)
	return binary.BigEndian.AppendUint32(head, crc32.Checksum(head, castagnoli))
}

// journal is an open journal. It is not safe for concurrent use, but for at.
type journal struct {
	file   file
	size   int64
	broken error // set for good after a write that may be half done
}

// openJournal reads a journal from its beginning and calls each with every
// record and where it is. What cannot be read is cut off; cut says what was
// lost, in bytes. keep, if not nil, is given what is cut off before it is.
func openJournal(f file, job tasks.JobID, length int64, keep func(io.Reader) error, each func(*Record, int64) error) (j *journal, cut int64, err error) {
	head := make([]byte, journalHeader)
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	if !bytes.Equal(head, journalHead(job)) {
		return nil, 0, fmt.Errorf("%w: not the journal of this job, or of another version", ErrDamaged)
	}
	j = &journal{file: f, size: int64(journalHeader)}
	r := bufio.NewReaderSize(io.NewSectionReader(f, j.size, length-j.size), readBuffer)
	for {
		raw, err := readEntry(r)
		if err != nil && !errors.Is(err, errEntry) {
			return nil, 0, err
		}
		if err != nil || raw == nil {
			break
		}
		record, err := ParseRecord(raw)
		if err != nil {
			break
		}
		if err := each(record, j.size); err != nil {
			return nil, 0, err
		}
		j.size += int64(entryHeader + len(raw))
	}
	if cut = length - j.size; cut == 0 {
		// A process that was killed may have written what it did not sync; from
		// here on it counts.
		return j, 0, j.file.Sync()
	}
	if keep != nil {
		if err := keep(io.NewSectionReader(f, j.size, cut)); err != nil {
			return nil, 0, err
		}
	}
	return j, cut, j.cutBack()
}

// errEntry: the bytes are no whole entry.
var errEntry = errors.New("bad entry")

// readEntry returns the next payload, nil at the end.
func readEntry(r io.Reader) ([]byte, error) {
	var head [entryHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, entryError(err)
	}
	n, err := entryLength(head)
	if err != nil {
		return nil, err
	}
	raw := make([]byte, n)
	if _, err := io.ReadFull(r, raw); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, entryError(err)
	}
	if crc32.Checksum(raw, castagnoli) != binary.BigEndian.Uint32(head[8:]) {
		return nil, errEntry
	}
	return raw, nil
}

func entryError(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errEntry
	}
	return err
}

func entryLength(head [entryHeader]byte) (int, error) {
	n := binary.BigEndian.Uint32(head[4:])
	if [4]byte(head[:]) != entryMark || n == 0 || n > MaxRecordBytes ||
		crc32.Checksum(head[:12], castagnoli) != binary.BigEndian.Uint32(head[12:]) {
		return 0, errEntry
	}
	return int(n), nil
}

func appendEntry(to, raw []byte) []byte {
	at := len(to)
	to = append(to, entryMark[:]...)
	to = binary.BigEndian.AppendUint32(to, uint32(len(raw)))
	to = binary.BigEndian.AppendUint32(to, crc32.Checksum(raw, castagnoli))
	to = binary.BigEndian.AppendUint32(to, crc32.Checksum(to[at:], castagnoli))
	return append(to, raw...)
}

// at reads the entry at a place that openJournal or append told.
func (j *journal) at(place int64) (*Record, error) {
	raw, err := readEntry(io.NewSectionReader(j.file, place, entryHeader+MaxRecordBytes))
	if err != nil || raw == nil {
		return nil, fmt.Errorf("%w: record at byte %d of the journal: %w", ErrDamaged, place, errors.Join(err, io.ErrUnexpectedEOF))
	}
	return ParseRecord(raw)
}

// read calls f with each payload from a place on up to end.
func (j *journal) read(from, end int64, f func(raw []byte, next int64) error) error {
	from = max(from, int64(journalHeader))
	r := bufio.NewReaderSize(io.NewSectionReader(j.file, from, end-from), readBuffer)
	for from < end {
		raw, err := readEntry(r)
		if err != nil || raw == nil {
			return fmt.Errorf("%w: record at byte %d of the journal: %w", ErrDamaged, from, errors.Join(err, io.ErrUnexpectedEOF))
		}
		from += int64(entryHeader + len(raw))
		if err := f(raw, from); err != nil {
			return err
		}
	}
	return nil
}

// append makes records durable and returns where each is. After an error none
// of them counts: either the file was brought back to what it was, or every
// later append fails too.
func (j *journal) append(raws [][]byte) ([]int64, error) {
	if j.broken != nil {
		return nil, fmt.Errorf("%w (%w)", ErrBroken, j.broken)
	}
	var data []byte
	places := make([]int64, len(raws))
	for i, raw := range raws {
		places[i] = j.size + int64(len(data))
		data = appendEntry(data, raw)
	}
	if j.size+int64(len(data)) > MaxJournalBytes {
		return nil, ErrJournalFull
	}
	if _, err := j.file.WriteAt(data, j.size); err != nil {
		if cutErr := j.cutBack(); cutErr != nil {
			j.broken = cutErr
		}
		return nil, err
	}
	if err := j.file.Sync(); err != nil {
		j.broken = err // what is on the disk is unknown; syncing again would lie
		return nil, err
	}
	j.size += int64(len(data))
	return places, nil
}

// cutBack removes everything after the entries that count.
func (j *journal) cutBack() error {
	if err := j.file.Truncate(j.size); err != nil {
		return err
	}
	return j.file.Sync()
}

var _ file = (*os.File)(nil)
