package shardstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/storage"
)

// Layout of a file of heads or of deletions: records one after another, each
// with its own magic and hash so that one damaged record does not take the
// others with it. docs/format.md is the description.
const (
	recordFixed    = 17 // bytes of a record before its content
	recordSum      = 16 // bytes of its hash
	recordLink     = 1  // kinds: a head of the chain
	recordFork     = 2  // a head off the chain
	recordDeletion = 3
	recordKnown    = 4 // 8 bytes: the number up to which all deletions were here

	offRecordKind     = 4
	offRecordReceived = 5
	offRecordLength   = 13
)

var recordMagic = []byte("gthr")

// record is one entry of such a file.
type record struct {
	kind     byte
	received time.Duration // by the running clock
	raw      []byte
}

func appendRecord(b []byte, r record) []byte {
	start := len(b)
	b = append(b, recordMagic...)
	b = append(b, r.kind)
	b = binary.BigEndian.AppendUint64(b, uint64(r.received/time.Second))
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.raw)))
	b = append(b, r.raw...)
	sum := blake3.Sum256(b[start:])
	return append(b, sum[:recordSum]...)
}

func recordSize(raw int) int64 { return int64(recordFixed + raw + recordSum) }

// parseRecord reads the record at the start of b.
func parseRecord(b []byte) (r record, size int, ok bool) {
	if len(b) < recordFixed+recordSum || !bytes.HasPrefix(b, recordMagic) {
		return record{}, 0, false
	}
	length := binary.BigEndian.Uint32(b[offRecordLength:])
	kind := b[offRecordKind]
	received := binary.BigEndian.Uint64(b[offRecordReceived:])
	if length > maxRecordBytes || received > maxSeconds || kind < recordLink || kind > recordKnown {
		return record{}, 0, false
	}
	end := recordFixed + int(length)
	if len(b) < end+recordSum {
		return record{}, 0, false
	}
	sum := blake3.Sum256(b[:end])
	if !bytes.Equal(sum[:recordSum], b[end:end+recordSum]) {
		return record{}, 0, false
	}
	return record{kind: kind, received: time.Duration(received) * time.Second, raw: b[recordFixed:end:end]}, end + recordSum, true
}

// maxRecordBytes bounds the content of a record.
const maxRecordBytes = max(storage.MaxHeadBytes, storage.MaxDeletionBytes)

// maxSeconds, 272 years, keeps a count of seconds inside a time.Duration.
const maxSeconds = 1<<33 - 1

// parseRecords calls each for every intact record with its offset, and returns
// how many bytes belong to none: those of a torn tail, or of damaged records.
func parseRecords(b []byte, each func(r record, offset int64)) (damaged int) {
	for at := 0; at < len(b); {
		if r, size, ok := parseRecord(b[at:]); ok {
			each(r, int64(at))
			at += size
			continue
		}
		next := bytes.Index(b[at+1:], recordMagic)
		if next < 0 {
			return damaged + len(b) - at
		}
		damaged += next + 1
		at += next + 1
	}
	return damaged
}

func encodeKnown(number uint64) []byte { return binary.BigEndian.AppendUint64(nil, number) }

func parseKnown(raw []byte) uint64 {
	if len(raw) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(raw)
}

// readRecord reads the content of the record at offset, of that length.
func readRecord(f File, offset int64, length int) ([]byte, bool) {
	b := make([]byte, recordSize(length))
	if n, _ := f.ReadAt(b, offset); n < len(b) {
		return nil, false
	}
	r, _, ok := parseRecord(b)
	return r.raw, ok
}

// appendRecords writes records at offset, which is the end of the file of an
// owner under dir, and makes the file durable; and its name with unsettled,
// which says that the file is new or that nobody knows whether its name is.
func (s *Store) appendRecords(dir string, owner grid.OwnerID, path string, offset int64, records []byte, unsettled bool) error {
	if err := s.makeDir(dir, owner.String()); err != nil {
		return err
	}
	f, err := s.fs.OpenRW(path)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = s.fs.Create(path)
	}
	if err != nil {
		return ioFailed(err)
	}
	if _, err := f.WriteAt(records, offset); err != nil {
		return errors.Join(ioFailed(err), f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return s.syncFailed(err)
	}
	if !unsettled {
		return nil
	}
	if err := s.fs.SyncDir(dir + "/" + owner.String()); err != nil {
		return s.syncFailed(err)
	}
	return nil
}

// replaceRecords puts a new file in the place of the one at path, which is in
// dir, durably.
func (s *Store) replaceRecords(dir, path string, data []byte) error {
	temp := path + tempSuffix
	if err := s.fs.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ioFailed(err)
	}
	f, err := s.fs.Create(temp)
	if err != nil {
		return ioFailed(err)
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(ioFailed(err), f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return s.syncFailed(err)
	}
	if err := s.fs.Rename(temp, path); err != nil {
		return ioFailed(err)
	}
	if err := s.fs.SyncDir(dir); err != nil {
		return s.syncFailed(err)
	}
	return nil
}
