package shardstore

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
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

// FuzzRecordFile: every record that is found lies in the file as this version
// writes it, and no byte is counted twice.
func FuzzRecordFile(f *testing.F) {
	var file []byte
	for _, head := range storagetest.NewDevice("fuzz").Heads(f, storagetest.Vault("fuzz"), 2) {
		file = appendRecord(file, record{kind: recordLink, received: time.Hour, raw: head.Raw})
	}
	f.Add(file)
	deletion := storagetest.NewDevice("fuzz").Deletion(f, storagetest.Vault("fuzz"), 1, storage.SegmentID{1})
	file = appendRecord(file, record{kind: recordDeletion, received: time.Hour, raw: deletion.Raw})
	f.Add(appendRecord(file, record{kind: recordKnown, raw: encodeKnown(7)}))
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

// FuzzTrashName: what is read as a name in the trash is the only spelling of it.
func FuzzTrashName(f *testing.F) {
	id := storage.ShardID{Segment: storage.SegmentID{1}, Index: 2}
	f.Add(trashPath(id, time.Hour)[len(trashDirOf(id.Segment))+1:])
	f.Fuzz(func(t *testing.T, name string) {
		id, since, err := parseTrashName(name)
		if err == nil && (since <= 0 || trashPath(id, since) != trashDirOf(id.Segment)+"/"+name) {
			t.Fatalf("%q is a second name of %s", name, trashPath(id, since))
		}
	})
}

func FuzzRemoved(f *testing.F) {
	f.Add(encodeOwnerTimes(map[grid.OwnerID]time.Duration{{1}: time.Hour})[:ownerTime])
	f.Fuzz(func(t *testing.T, b []byte) {
		sum := blake3.Sum256(b)
		owners, err := parseOwnerTimes(append(b, sum[:]...))
		if err == nil && len(owners) > len(b)/ownerTime {
			t.Fatalf("%d owners in %d bytes", len(owners), len(b))
		}
	})
}

// FuzzNamed: the list has what was merged into it, in order, once.
func FuzzNamed(f *testing.F) {
	f.Add([]byte{1, 2, 3}, []byte{2, 9})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var list namedList
		for vault, b := range [][]byte{first, second, first} {
			slices.Sort(b)
			var ids []storage.SegmentID
			for _, c := range slices.Compact(slices.Clone(b)) {
				ids = append(ids, storage.SegmentID{c})
			}
			list = list.merge(ids, uint32(vault%2))
			for _, id := range ids {
				if !list.has(id, uint32(vault%2)) || !list.hasAny(id) {
					t.Fatalf("%v is not there", id)
				}
			}
		}
		if !slices.IsSortedFunc(list, named.compare) || len(slices.Compact(slices.Clone(list))) != len(list) {
			t.Fatal("out of order, or twice")
		}
		if list.hasAny(storage.SegmentID{1, 1}) || list.has(storage.SegmentID{1}, 2) {
			t.Fatal("has what nobody named")
		}
	})
}
