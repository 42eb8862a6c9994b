package shardstore

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/zeebo/blake3"

	"gotong/storage"
)

// Layout of a head file: records one after another, each with its own magic
// and hash so that one damaged record does not take the others with it.
// docs/format.md is the description.
const (
	recordFixed = 17 // bytes of a record before the head
	recordSum   = 16 // bytes of its hash
	recordLink  = 1  // kinds
	recordFork  = 2

	offRecordKind     = 4
	offRecordReceived = 5
	offRecordLength   = 13
)

var recordMagic = []byte("gthr")

// headRecord is one head in a head file.
type headRecord struct {
	kind     byte
	received time.Duration // by the running clock
	raw      []byte
}

func appendRecord(b []byte, r headRecord) []byte {
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
func parseRecord(b []byte) (r headRecord, size int, ok bool) {
	if len(b) < recordFixed+recordSum || !bytes.HasPrefix(b, recordMagic) {
		return headRecord{}, 0, false
	}
	length := binary.BigEndian.Uint32(b[offRecordLength:])
	kind := b[offRecordKind]
	received := binary.BigEndian.Uint64(b[offRecordReceived:])
	if length > storage.MaxHeadBytes || received > maxSeconds || (kind != recordLink && kind != recordFork) {
		return headRecord{}, 0, false
	}
	end := recordFixed + int(length)
	if len(b) < end+recordSum {
		return headRecord{}, 0, false
	}
	sum := blake3.Sum256(b[:end])
	if !bytes.Equal(sum[:recordSum], b[end:end+recordSum]) {
		return headRecord{}, 0, false
	}
	return headRecord{kind: kind, received: time.Duration(received) * time.Second, raw: b[recordFixed:end:end]}, end + recordSum, true
}

// maxSeconds, 272 years, keeps a count of seconds inside a time.Duration.
const maxSeconds = 1<<33 - 1

// parseRecords calls each for every intact record with its offset, and returns
// how many bytes belong to none: those of a torn tail, or of damaged records.
func parseRecords(b []byte, each func(r headRecord, offset int64)) (damaged int) {
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
