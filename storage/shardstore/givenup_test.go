package shardstore_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gotong/storage"
	"gotong/storage/shardstore"
	"gotong/storage/storagetest"
)

// TestGiveUp: the shards of one owner go and do not come back, heads and deletions
// stay, and the donor may change their mind.
func TestGiveUp(t *testing.T) {
	dir, other := t.TempDir(), storagetest.NewDevice("other")
	s := open(t, dir, shardstore.Config{})
	mine, trashed, theirs := segmentOf(t, device, "a"), segmentOf(t, device, "b"), segmentOf(t, other, "c")
	for _, segment := range []storagetest.Segment{mine, trashed, theirs} {
		putShard(t, s, segment, 0)
	}
	deleteSegments(t, s, 1, trashed)
	putHeads(t, s, device.Heads(t, vault, 2)...)
	gone, err := s.GiveUp(t.Context(), device.Owner)
	if err != nil || gone.Shards != 1 || gone.TrashShards != 1 || gone.Bytes != onDisk || gone.TrashBytes != onDisk || gone.HeadBytes+gone.DeletionBytes != 0 {
		t.Fatalf("%+v, %v", gone, err)
	}
	for range 2 {
		held := s.Stats().Owners[device.Owner]
		if held.Shards != 0 || held.TrashShards != 0 || held.HeadBytes == 0 || held.DeletionBytes == 0 {
			t.Errorf("left are %+v", held)
		}
		if err := storagetest.Put(t.Context(), s, mine, 0, nil); !errors.Is(err, storage.ErrDenied) {
			t.Errorf("put of one who was given up: %v", err)
		}
		if _, known := s.GivenUp()[device.Owner]; !known || s.Takes(device.Owner) || !s.Takes(other.Owner) {
			t.Errorf("given up are %v", s.GivenUp())
		}
		_ = s.Close()
		s = open(t, dir, shardstore.Config{})
	}
	putHeads(t, s, device.Heads(t, vault, 3)...)
	if again, err := s.GiveUp(t.Context(), device.Owner); err != nil || again != (shardstore.Holding{}) {
		t.Errorf("given up twice: %+v, %v", again, err)
	}
	if was, err := s.TakeAgain(device.Owner); !was || err != nil {
		t.Errorf("taken again: %t, %v", was, err)
	}
	if was, err := s.TakeAgain(device.Owner); was || err != nil {
		t.Errorf("taken again twice: %t, %v", was, err)
	}
	putShard(t, s, mine, 0)
	if err := storagetest.Put(t.Context(), s, trashed, 0, nil); !errors.Is(err, storage.ErrDeleted) {
		t.Errorf("put of a deleted one: %v", err)
	}
}

// TestGiveUpInterrupted: what a kill left is removed later.
func TestGiveUpInterrupted(t *testing.T) {
	files := newCrashFS()
	s := open(t, "", shardstore.Config{FS: files})
	segments := []storagetest.Segment{segmentOf(t, device, "a"), segmentOf(t, device, "b")}
	for _, segment := range segments {
		putShard(t, s, segment, 0)
	}
	w, err := s.CreateShard(t.Context(), segments[0].Header, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.GiveUp(t.Context(), device.Owner); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(segments[0].Shards[1]); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	freed, err := s.FreeGivenUp(t.Context())
	if err != nil || freed != onDisk || s.Stats().Shards != 0 {
		t.Errorf("freed %d, %v, left %d", freed, err, s.Stats().Shards)
	}
}

// TestTrashByOwner: the trash tells how long it keeps what, and one owner's may be
// emptied alone.
func TestTrashByOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := storagetest.NewDevice("other")
		s := open(t, "", shardstore.Config{FS: newCrashFS()})
		a, b, c := segmentOf(t, device, "a"), segmentOf(t, device, "b"), segmentOf(t, other, "c")
		for _, segment := range []storagetest.Segment{a, b, c} {
			putShard(t, s, segment, 0)
		}
		floor := a.Header.Floor
		deleteSegments(t, s, 1, a)
		time.Sleep(floor / 2)
		deleteSegments(t, s, 2, b)
		err := s.PutDeletions(t.Context(), storagetest.RawDeletions(other.Deletion(t, vault, 1, c.Header.ID)))
		if err != nil {
			t.Fatal(err)
		}
		near := func(d, want time.Duration) bool { return d > want-2*time.Second && d < want+2*time.Second }
		trash := s.Trash()
		if mine := trash[device.Owner]; len(trash) != 2 || mine.Shards != 2 || mine.Bytes != 2*onDisk || !near(mine.First, floor/2) || !near(mine.Last, floor) {
			t.Errorf("%+v", trash)
		}
		if freed, err := s.EmptyTrashOf(t.Context(), device.Owner); err != nil || freed != 2*onDisk {
			t.Errorf("freed %d, %v", freed, err)
		}
		if trash := s.Trash(); len(trash) != 1 || trash[other.Owner].Shards != 1 {
			t.Errorf("left are %+v", trash)
		}
	})
}
