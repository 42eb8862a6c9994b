package shardstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"gotong/storage"
	"gotong/storage/shardstore"
	"gotong/storage/storagetest"
)

// wantShardState compares what a store says of a shard.
func wantShardState(t *testing.T, s *shardstore.Store, id storage.ShardID, want storage.ShardState) {
	t.Helper()
	answers, err := s.Have(t.Context(), []storage.SegmentID{id.Segment})
	if err != nil {
		t.Fatal(err)
	}
	state := storage.ShardNone
	for _, a := range answers[0].Shards {
		if a.Index == id.Index {
			state = a.State
		}
	}
	if state != want {
		t.Errorf("shard %d is %q, want %q", id.Index, state, want)
	}
}

// TestSetAside: a shard that is set aside is not served and counts like the trash,
// over restarts too, until it is taken back, put again, or deleted.
func TestSetAside(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, shardstore.Config{})
	segment := segmentOf(t, device, "a")
	id := segment.ID(0)
	putShard(t, s, segment, 0)
	reopen := func() {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, shardstore.Config{})
	}
	aside := func() {
		t.Helper()
		if err := s.SetAside(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	aside()
	for range 2 {
		wantShardState(t, s, id, storage.ShardNone)
		if _, err := s.OpenShard(t.Context(), id, 0, -1); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("served: %v", err)
		}
		if _, err := s.Prove(t.Context(), id, []int{0}); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("proved: %v", err)
		}
		if h := s.Stats().Owners[device.Owner]; h.Shards != 0 || h.TrashShards != 1 || h.TrashBytes != onDisk {
			t.Errorf("counted as %+v", h)
		}
		if _, err := s.Discard(t.Context(), id); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("freed within its floor: %v", err)
		}
		if freed, err := s.EmptyTrash(t.Context(), false); freed != 0 || err != nil {
			t.Errorf("%d bytes freed, %v", freed, err)
		}
		reopen()
	}
	if err := s.TakeBack(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	wantShardState(t, s, id, storage.ShardStored)
	if err := s.Verify(t.Context(), id); err != nil {
		t.Error(err)
	}
	if err := s.TakeBack(t.Context(), id); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("taken back twice: %v", err)
	}

	aside() // a put takes it back without a transfer
	if err := storagetest.Put(t.Context(), s, segment, 0, nil); !errors.Is(err, storage.ErrExists) {
		t.Errorf("put of one that is set aside: %v", err)
	}
	wantShardState(t, s, id, storage.ShardStored)

	aside() // after a power cut it may be in both places
	names, err := filepath.Glob(filepath.Join(dir, "surplus", "*", "*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%v, %v", names, err)
	}
	if err := os.Link(names[0], filepath.Join(dir, "shards", id.Segment.String()[:2], id.String())); err != nil {
		t.Fatal(err)
	}
	reopen()
	wantShardState(t, s, id, storage.ShardStored)
	if h := s.Stats().Owners[device.Owner]; h.Shards != 1 || h.TrashShards != 0 {
		t.Errorf("counted as %+v", h)
	}

	aside() // a deletion moves it to the trash
	deleteSegments(t, s, 1, segment)
	wantShardState(t, s, id, storage.ShardTrash)
	reopen()
	wantShardState(t, s, id, storage.ShardTrash)
	if err := s.TakeBack(t.Context(), id); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a deleted one was taken back: %v", err)
	}
}

// TestDiscardAfterFloor: what was set aside is freed when its floor has passed, and
// only when asked for.
func TestDiscardAfterFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir(), shardstore.Config{})
		segment := segmentOf(t, device, "a")
		id := segment.ID(0)
		putShard(t, s, segment, 0)
		if err := s.SetAside(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		time.Sleep(segment.Header.Floor + time.Second)
		if freed, err := s.EmptyTrash(t.Context(), false); freed != 0 || err != nil {
			t.Errorf("%d bytes freed, %v", freed, err)
		}
		for held, err := range s.Segments(t.Context()) {
			if err != nil || len(held.Shards) != 0 || len(held.Surplus) != 1 || held.Surplus[0] != (shardstore.Surplus{Index: 0}) {
				t.Errorf("%+v, %v", held, err)
			}
		}
		if freed, err := s.Discard(t.Context(), id); freed != onDisk || err != nil {
			t.Errorf("%d bytes freed, %v", freed, err)
		}
		if s.Stats().Bytes != 0 {
			t.Errorf("left is %+v", s.Stats())
		}
	})
}
