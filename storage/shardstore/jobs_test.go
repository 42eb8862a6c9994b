package shardstore_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/shardstore"
	"gotong/storage/storagetest"
)

var (
	someJob = [32]byte(storagetest.Vault("job"))
	member  = storagetest.NewDevice("member")
)

// TestJobQuota: a job stores here what its grant allows and no more, whoever
// signs, however it is asked.
func TestJobQuota(t *testing.T) {
	s := open(t, t.TempDir(), shardstore.Config{})
	grant := device.JobGrant(t, someJob, 4000) // two segments of two times 1000
	first, second := member.JobSegment(t, grant, twoOf3, 1000, "a"), device.JobSegment(t, grant, twoOf3, 1000, "b")
	third := member.JobSegment(t, grant, twoOf3, 1000, "third")
	putShard(t, s, first, 0)
	putShard(t, s, first, 1)
	writing, err := s.CreateShard(t.Context(), second.Header, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := storagetest.Put(t.Context(), s, third, 1, nil); !errors.Is(err, storage.ErrQuota) {
		t.Fatalf("beyond the grant: %v", err)
	}
	if err := storagetest.Put(t.Context(), s, first, 0, nil); !errors.Is(err, storage.ErrExists) {
		t.Fatalf("once more: %v", err)
	}
	writing.Abort()
	putShard(t, s, third, 1)
	if err := storagetest.Put(t.Context(), s, second, 1, nil); !errors.Is(err, storage.ErrQuota) {
		t.Fatalf("beyond the grant: %v", err)
	}
	if err := s.DeleteShard(t.Context(), third.ID(1)); err != nil {
		t.Fatal(err)
	}
	putShard(t, s, second, 1)
	putShard(t, s, second, 2)
	putShard(t, s, segmentOf(t, device, "no job"), 0)
	other := device.JobGrant(t, [32]byte{7}, 2000)
	putShard(t, s, member.JobSegment(t, other, twoOf3, 1000, "c"), 0)
	held := s.Stats().Owners[device.Owner]
	if held.JobBytes != 5*onDisk || held.Bytes != 6*onDisk || s.Stats().Owners[member.Owner] != (shardstore.Holding{}) {
		t.Errorf("%+v", s.Stats().Owners)
	}
	if err := s.DeleteShard(t.Context(), first.ID(0)); err != nil {
		t.Fatal(err)
	}
	putShard(t, s, first, 2)
	if _, err := s.DropOwner(t.Context(), device.Owner); err != nil {
		t.Fatal(err)
	}
	if held := s.Stats().Owners[device.Owner]; held != (shardstore.Holding{}) {
		t.Errorf("%+v left", held)
	}
	putShard(t, s, first, 0)
}

// TestJobsLeaveRoomForBackups: jobs may use half of what their owner may have.
func TestJobsLeaveRoomForBackups(t *testing.T) {
	dir, cfg := t.TempDir(), shardstore.Config{OwnerLimit: func(grid.OwnerID) int64 { return 4 * onDisk }}
	s := open(t, dir, cfg)
	grant := device.JobGrant(t, someJob, 1<<20)
	put := func(seed string) error {
		return storagetest.Put(t.Context(), s, device.JobSegment(t, grant, twoOf3, 1000, seed), 0, nil)
	}
	if err := errors.Join(put("a"), put("b")); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	s = open(t, dir, cfg) // it knows from the files
	if err := put("c"); !errors.Is(err, storage.ErrQuota) {
		t.Fatalf("third shard of jobs: %v", err)
	}
	putShard(t, s, segmentOf(t, device, "x"), 0)
	putShard(t, s, segmentOf(t, device, "y"), 0)
}

// TestExpiry: what has expired is nobody's concern at once, and gone when the
// clock has said so for a while.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := newCrashFS()
		cfg := shardstore.Config{FS: files, Authorize: func(h storage.SignedHeader) error { return h.Allows(device.Grid, time.Now()) }}
		s := open(t, "", cfg)
		grant := device.JobGrant(t, someJob, 1<<20)
		ofJob, backup := member.JobSegment(t, grant, twoOf3, 1000, "a"), segmentOf(t, device, "b")
		putShard(t, s, ofJob, 0)
		putShard(t, s, backup, 0)
		listed := func() (n int) {
			for range s.Segments(t.Context()) {
				n++
			}
			return n
		}
		time.Sleep(30*24*time.Hour - time.Minute)
		if freed := emptyTrash(t, s, false); freed != 0 || listed() != 2 {
			t.Fatalf("%d bytes freed before it expired, %d segments", freed, listed())
		}
		time.Sleep(2 * time.Minute)
		if freed := emptyTrash(t, s, false); freed != 0 || listed() != 1 || stateOf(t, s, ofJob) != storage.ShardStored {
			t.Fatalf("%d bytes freed at once, %d segments", freed, listed())
		}
		if err := storagetest.Put(t.Context(), s, ofJob, 1, nil); !errors.Is(err, storage.ErrDenied) {
			t.Errorf("put after it expired: %v", err)
		}
		_ = s.Close()
		s = open(t, "", cfg)
		for range 3 {
			time.Sleep(time.Hour)
			emptyTrash(t, s, false)
		}
		if stateOf(t, s, ofJob) != storage.ShardNone || stateOf(t, s, backup) != storage.ShardStored {
			t.Errorf("job %s, backup %s", stateOf(t, s, ofJob), stateOf(t, s, backup))
		}
		if held := s.Stats().Owners[device.Owner]; held.JobBytes != 0 || held.Shards != 1 {
			t.Errorf("%+v", held)
		}
	})
}

// TestDeletedJobSegmentsGoAtOnce: they have no floor.
func TestDeletedJobSegmentsGoAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, "", shardstore.Config{FS: newCrashFS()})
		segment := member.JobSegment(t, device.JobGrant(t, someJob, 1<<20), twoOf3, 1000, "a")
		putShard(t, s, segment, 0)
		deletion := device.Deletion(t, someJob, 1, segment.Header.ID)
		if err := s.PutDeletions(t.Context(), storagetest.RawDeletions(deletion)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if freed := emptyTrash(t, s, false); freed != onDisk {
			t.Errorf("%d bytes freed", freed)
		}
	})
}
