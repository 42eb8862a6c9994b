package shardstore

import (
	"bytes"
	"testing"
	"time"

	"gotong/storage"
	"gotong/storage/storagetest"
)

// FuzzHeaderPage: what is accepted as the first page of a file is the page that
// this version writes for that header.
func FuzzHeaderPage(f *testing.F) {
	segment := storagetest.NewDevice("fuzz").Segment(f, storagetest.Vault("fuzz"), storage.Redundancy{K: 2, N: 3}, 10, "a")
	page := make([]byte, pageBytes)
	putHeaderPage(page, segment.Header, 1)
	f.Add(bytes.Clone(page))
	f.Add(page[:100])
	page[pageSum] ^= 1
	f.Add(page)
	f.Fuzz(func(t *testing.T, b []byte) {
		header, err := parseHeaderPage(b, segment.ID(1))
		if err != nil {
			return
		}
		again := make([]byte, pageBytes)
		putHeaderPage(again, header, 1)
		if !bytes.Equal(b, again) {
			t.Fatal("another page of the same shard is accepted")
		}
	})
}

// FuzzHeaderPageSealed gets past the hash of the page to what is behind it.
func FuzzHeaderPageSealed(f *testing.F) {
	segment := storagetest.NewDevice("fuzz").Segment(f, storagetest.Vault("fuzz"), storage.Redundancy{K: 2, N: 3}, 10, "a")
	page := make([]byte, pageBytes)
	putHeaderPage(page, segment.Header, 1)
	f.Add(page[:pageSum])
	f.Fuzz(func(t *testing.T, b []byte) {
		page := make([]byte, pageBytes)
		copy(page, b)
		sealPage(page)
		if header, err := parseHeaderPage(page, segment.ID(1)); err == nil && header.ID != segment.Header.ID {
			t.Fatal("header of another segment is accepted")
		}
	})
}

func FuzzHolderPage(f *testing.F) {
	page := make([]byte, pageBytes)
	putHolderPage(page, []storage.Holder{{Shard: 3, Peer: storagetest.Peer("a"), Epoch: 9}})
	f.Add(page[:pageSum])
	f.Fuzz(func(t *testing.T, b []byte) {
		page := make([]byte, pageBytes)
		copy(page, b)
		sealPage(page)
		if holders := parseHolderPage(page); len(holders) > storage.MaxHolders {
			t.Fatalf("%d holders", len(holders))
		}
	})
}

// FuzzHeadFile: every record that is found lies in the file as this version
// writes it, and no byte is counted twice.
func FuzzHeadFile(f *testing.F) {
	var file []byte
	for _, head := range storagetest.NewDevice("fuzz").Heads(f, storagetest.Vault("fuzz"), 2) {
		file = appendRecord(file, record{kind: recordLink, received: time.Hour, raw: head.Raw})
	}
	f.Add(file)
	f.Add(append([]byte("gthr"), file...))
	f.Add(file[:len(file)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		intact := 0
		damaged := parseRecords(b, func(r record, offset int64) {
			again := appendRecord(nil, r)
			if !bytes.HasPrefix(b[offset:], again) {
				t.Fatal("record does not lie where it was found")
			}
			intact += len(again)
		})
		if intact+damaged != len(b) {
			t.Fatalf("%d intact and %d damaged of %d bytes", intact, damaged, len(b))
		}
	})
}
