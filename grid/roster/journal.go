package roster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"gotong/grid"
	"gotong/grid/disk"
)

// A journal is the file in which statements, or records, are kept: a header
// with a magic line and the grid's id, then entries. An entry is written with
// one write and one fsync before the next begins, so only the last can be torn
// by a power cut.
//
//	header  magic (16 bytes) ‖ grid 32 ‖ CRC-32C of both, 4
//	entry   mark 4 ‖ payload length 4 ‖ CRC-32C of the payload 4 ‖ CRC-32C of the 12 bytes before, 4 ‖ payload
//	payload items, each: length 4 ‖ bytes
//
// Integers are big-endian.

// ErrCorrupt says that a file is damaged in a way that no interrupted write
// explains. Test with errors.Is.
var ErrCorrupt = errors.New("file damaged")

const (
	journalMagicBytes = 16
	journalHeader     = journalMagicBytes + 32 + 4
	entryHeader       = 16
	maxEntryBytes     = 4 << 20 // payload; larger batches become several entries
	maxJournalBytes   = 2 * MaxRosterBytes
)

var (
	entryMark  = [4]byte{'e', 'n', 't', 0x1e}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// errBroken: the file is in an unknown state since an earlier failure.
var errBroken = errors.New("an earlier write failed; restart to read back what is on the disk")

type journal struct {
	file   *os.File
	size   int64
	broken error // set for good after a write that may be half done
}

func journalHead(magic string, g grid.GridID) []byte {
	head := make([]byte, journalMagicBytes, journalHeader)
	copy(head, magic)
	head = append(head, g[:]...)
	return binary.BigEndian.AppendUint32(head, crc32.Checksum(head, castagnoli))
}

// createJournal writes a new file with its first items; it appears whole or not
// at all and replaces what was there.
func createJournal(path, magic string, g grid.GridID, items [][]byte) error {
	data := journalHead(magic, g)
	for _, entry := range entriesOf(items) {
		data = append(data, entry...)
	}
	return disk.WriteFile(path, data, 0o600)
}

// openJournal reads the file and returns the grid and the items in it. A torn
// last entry is cut off, on disk too.
func openJournal(path, magic string) (*journal, grid.GridID, [][]byte, error) {
	if err := disk.RemoveTemps(path); err != nil {
		return nil, grid.GridID{}, nil, err
	}
	data, err := disk.ReadFile(path, maxJournalBytes)
	if err != nil {
		return nil, grid.GridID{}, nil, err
	}
	g, items, good, err := parseJournal(magic, data)
	if err != nil {
		return nil, grid.GridID{}, nil, fmt.Errorf("%s: %w", path, err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, grid.GridID{}, nil, err
	}
	j := &journal{file: file, size: int64(good)}
	if good < len(data) {
		if err := j.cutBack(); err != nil {
			return nil, grid.GridID{}, nil, errors.Join(fmt.Errorf("%s: cut off a torn write: %w", path, err), file.Close())
		}
	}
	return j, g, items, nil
}

// parseJournal returns the items and the length of the part of data that holds
// whole entries. What follows is a torn last entry, never more.
func parseJournal(magic string, data []byte) (g grid.GridID, items [][]byte, good int, err error) {
	if len(data) < journalHeader {
		return g, nil, 0, fmt.Errorf("%w: %d bytes are less than its header", ErrCorrupt, len(data))
	}
	g = grid.GridID(data[journalMagicBytes:])
	if !bytes.Equal(data[:journalHeader], journalHead(magic, g)) {
		return g, nil, 0, fmt.Errorf("%w: not a %q file, or of another version", ErrCorrupt, magic)
	}
	good = journalHeader
	for good < len(data) {
		payload, ok := nextEntry(data[good:])
		if !ok {
			if at := laterEntry(data, good); at >= 0 {
				return g, nil, 0, fmt.Errorf("%w: bad entry at byte %d with a good one after it at byte %d", ErrCorrupt, good, at)
			}
			return g, items, good, nil
		}
		some, err := splitItems(payload)
		if err != nil {
			return g, nil, 0, fmt.Errorf("%w: entry at byte %d: %w", ErrCorrupt, good, err)
		}
		items = append(items, some...)
		good += entryHeader + len(payload)
	}
	return g, items, good, nil
}

// nextEntry returns the payload of the entry at the beginning of data, if it is
// whole and undamaged.
func nextEntry(data []byte) ([]byte, bool) {
	if len(data) < entryHeader || [4]byte(data) != entryMark ||
		crc32.Checksum(data[:12], castagnoli) != binary.BigEndian.Uint32(data[12:]) {
		return nil, false
	}
	n := binary.BigEndian.Uint32(data[4:])
	if n > maxEntryBytes || uint64(len(data)-entryHeader) < uint64(n) {
		return nil, false
	}
	payload := data[entryHeader : entryHeader+int(n)]
	return payload, crc32.Checksum(payload, castagnoli) == binary.BigEndian.Uint32(data[8:])
}

// laterEntry returns where, after a bad entry, a good one begins, or -1. A torn
// write has nothing after it.
func laterEntry(data []byte, bad int) int {
	for at := bad + 1; ; at++ {
		i := bytes.Index(data[at:], entryMark[:])
		if i < 0 {
			return -1
		}
		at += i
		if _, ok := nextEntry(data[at:]); ok {
			return at
		}
	}
}

func splitItems(payload []byte) (items [][]byte, err error) {
	for len(payload) > 0 {
		if len(payload) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		n := binary.BigEndian.Uint32(payload)
		payload = payload[4:]
		if uint64(n) > uint64(len(payload)) {
			return nil, io.ErrUnexpectedEOF
		}
		items = append(items, payload[:n:n])
		payload = payload[n:]
	}
	return items, nil
}

// entriesOf packs items into entries of bounded size.
func entriesOf(items [][]byte) (entries [][]byte) {
	var payload []byte
	flush := func() {
		if len(payload) > 0 {
			entries = append(entries, entryOf(payload))
			payload = nil
		}
	}
	for _, item := range items {
		if len(payload)+4+len(item) > maxEntryBytes {
			flush()
		}
		payload = binary.BigEndian.AppendUint32(payload, uint32(len(item)))
		payload = append(payload, item...)
	}
	flush()
	return entries
}

func entryOf(payload []byte) []byte {
	entry := append(make([]byte, 0, entryHeader+len(payload)), entryMark[:]...)
	entry = binary.BigEndian.AppendUint32(entry, uint32(len(payload)))
	entry = binary.BigEndian.AppendUint32(entry, crc32.Checksum(payload, castagnoli))
	entry = binary.BigEndian.AppendUint32(entry, crc32.Checksum(entry, castagnoli))
	return append(entry, payload...)
}

// append makes the items durable. After an error none of them counts: either
// the file was brought back to what it was, or every later append fails too.
func (j *journal) append(items [][]byte) error {
	if j.broken != nil {
		return fmt.Errorf("%w (%w)", errBroken, j.broken)
	}
	size := j.size
	for _, entry := range entriesOf(items) {
		if err := j.write(entry, size); err != nil {
			return err
		}
		size += int64(len(entry))
	}
	j.size = size
	return nil
}

func (j *journal) write(entry []byte, at int64) error {
	if _, err := j.file.WriteAt(entry, at); err != nil {
		if cutErr := j.cutBack(); cutErr != nil {
			j.broken = cutErr
		}
		return err
	}
	if err := j.file.Sync(); err != nil {
		j.broken = err // what is on the disk is unknown; syncing again would lie
		return err
	}
	return nil
}

// cutBack removes everything after the entries that count.
func (j *journal) cutBack() error {
	if err := j.file.Truncate(j.size); err != nil {
		return err
	}
	return j.file.Sync()
}

func (j *journal) close() error { return j.file.Close() }
