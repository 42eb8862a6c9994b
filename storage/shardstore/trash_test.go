package shardstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/shardstore"
	"gotong/storage/storagetest"
)

func deleteSegments(t *testing.T, s *shardstore.Store, number uint64, segments ...storagetest.Segment) {
	t.Helper()
	var ids []storage.SegmentID
	for _, segment := range segments {
		ids = append(ids, segment.Header.ID)
	}
	if err := s.PutDeletions(t.Context(), storagetest.RawDeletions(device.Deletion(t, vault, number, ids...))); err != nil {
		t.Fatal(err)
	}
}

func putShard(t *testing.T, s *shardstore.Store, segment storagetest.Segment, index int) {
	t.Helper()
	if err := storagetest.Put(t.Context(), s, segment, index, nil); err != nil {
		t.Fatal(err)
	}
}

// stateOf returns what the store says of shard 0 of a segment, or of all of it.
func stateOf(t *testing.T, s *shardstore.Store, segment storagetest.Segment) storage.ShardState {
	t.Helper()
	answers, err := s.Have(t.Context(), []storage.SegmentID{segment.Header.ID})
	if err != nil {
		t.Fatal(err)
	}
	if len(answers[0].Shards) == 0 {
		return storage.ShardNone
	}
	return answers[0].Shards[0].State
}

func emptyTrash(t *testing.T, s *shardstore.Store, all bool) int64 {
	t.Helper()
	freed, err := s.EmptyTrash(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	return freed
}

// TestFloorCountsRunningTime: the trash keeps a shard for the floor in its
// header, counted only while the store is open, restarts included, and whatever
// time the owner's deletion names.
func TestFloorCountsRunningTime(t *testing.T) {
	segment, other := segmentOf(t, device, "a"), segmentOf(t, device, "b")
	synctest.Test(t, func(t *testing.T) {
		files := newCrashFS()
		cfg := shardstore.Config{FS: files}
		s := open(t, "", cfg)
		putShard(t, s, segment, 0)
		putShard(t, s, other, 0)
		deleteSegments(t, s, 1, segment)
		time.Sleep(4 * 24 * time.Hour)
		_ = s.Close()
		time.Sleep(30 * 24 * time.Hour) // does not count
		s = open(t, "", cfg)
		deleteSegments(t, s, 1, segment) // does not begin anew
		time.Sleep(3*24*time.Hour - time.Minute)
		if freed := emptyTrash(t, s, false); freed != 0 || stateOf(t, s, segment) != storage.ShardTrash {
			t.Fatalf("%d bytes freed within the floor", freed)
		}
		if got, err := storagetest.Get(t.Context(), s, segment.ID(0), 0, -1); err != nil || !bytes.Equal(got, segment.Shards[0]) {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if freed := emptyTrash(t, s, false); freed != onDisk || stateOf(t, s, segment) != storage.ShardDeleted {
			t.Fatalf("%d bytes freed after the floor, %s", freed, stateOf(t, s, segment))
		}
		if err := storagetest.Put(t.Context(), s, segment, 0, nil); !errors.Is(err, storage.ErrDeleted) {
			t.Errorf("freed shard comes back: %v", err)
		}
		if stateOf(t, s, other) != storage.ShardStored {
			t.Error("another segment is gone")
		}
		_ = s.Close()
		if stateOf(t, open(t, "", cfg), segment) != storage.ShardDeleted {
			t.Error("deletion forgotten after a restart")
		}
	})
}

// TestDamagedClockShortensNoFloor, and makes none endless.
func TestDamagedClockShortensNoFloor(t *testing.T) {
	segment := segmentOf(t, device, "a")
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir, shardstore.Config{})
		putShard(t, s, segment, 0)
		time.Sleep(100 * 24 * time.Hour)
		deleteSegments(t, s, 1, segment)
		_ = s.Close()
		rewrite(t, filepath.Join(dir, "clock"), func(b []byte) { b[3] ^= 1 })
		s = open(t, dir, shardstore.Config{})
		time.Sleep(7*24*time.Hour - time.Minute)
		if freed := emptyTrash(t, s, false); freed != 0 {
			t.Fatal("freed within the floor")
		}
		time.Sleep(2 * time.Minute)
		if freed := emptyTrash(t, s, false); freed != onDisk {
			t.Fatal("not freed after the floor")
		}
	})
}

// TestTrashCounts in quota, pledge and accounts, until the donor empties it.
func TestTrashCounts(t *testing.T) {
	dir := t.TempDir()
	a, b, c := segmentOf(t, device, "a"), segmentOf(t, device, "b"), segmentOf(t, device, "c")
	limit := int64(2 * onDisk)
	cfg := shardstore.Config{OwnerLimit: func(grid.OwnerID) int64 { return limit }}
	s := open(t, dir, cfg)
	putShard(t, s, a, 0)
	putShard(t, s, b, 0)
	deleteSegments(t, s, 1, a)
	if err := storagetest.Put(t.Context(), s, c, 0, nil); !errors.Is(err, storage.ErrQuota) {
		t.Errorf("trash does not count in the quota: %v", err)
	}
	limit = 1 << 40
	s.SetCapacity(2*onDisk + 1000)
	if err := storagetest.Put(t.Context(), s, c, 0, nil); !errors.Is(err, storage.ErrFull) || s.Free() != 0 && s.Free() > onDisk {
		t.Errorf("trash does not count in the pledge: %v, %d free", err, s.Free())
	}
	s.SetCapacity(0)
	before := s.Stats()
	own := before.Owners[device.Owner]
	if before.Shards != 1 || before.TrashShards != 1 || before.TrashBytes != onDisk || own.TrashBytes != onDisk ||
		own.Bytes != onDisk || own.DeletionBytes == 0 || before.Bytes != own.Total() {
		t.Errorf("%+v", before)
	}
	_ = s.Close()
	s = open(t, dir, cfg)
	if after := s.Stats(); after.Bytes != before.Bytes || after.Owners[device.Owner] != own || after.TrashShards != 1 {
		t.Errorf("accounts change from %+v to %+v", before, after)
	}
	if freed := emptyTrash(t, s, true); freed != onDisk || s.Stats().TrashBytes != 0 {
		t.Errorf("donor frees %d bytes", freed)
	}
	putShard(t, s, c, 0)
}

// TestTrashedShardThatIsBad is set aside like a stored one.
func TestTrashedShardThatIsBad(t *testing.T) {
	dir := t.TempDir()
	segment := segmentOf(t, device, "a")
	for _, closed := range []bool{false, true} {
		s := open(t, filepath.Join(dir, fmt.Sprint(closed)), shardstore.Config{})
		putShard(t, s, segment, 0)
		deleteSegments(t, s, 1, segment)
		names, err := filepath.Glob(filepath.Join(dir, fmt.Sprint(closed), "trash", "*", "*"))
		if err != nil || len(names) != 1 {
			t.Fatal(names, err)
		}
		if closed {
			_ = s.Close()
		}
		rewrite(t, names[0], func(b []byte) { b[40] ^= 1 })
		if closed {
			s = open(t, filepath.Join(dir, fmt.Sprint(closed)), shardstore.Config{})
		}
		if err := s.Verify(t.Context(), segment.ID(0)); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("closed %t: %v", closed, err)
		}
		if stateOf(t, s, segment) != storage.ShardBad || s.Stats().TrashShards != 0 || len(s.Problems()) != 1 {
			t.Errorf("closed %t: %s, %+v", closed, stateOf(t, s, segment), s.Stats())
		}
	}
}

// TestForeignTrash: what is no shard in the trash is left alone.
func TestForeignTrash(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, shardstore.Config{})
	segment := segmentOf(t, device, "a")
	putShard(t, s, segment, 0)
	deleteSegments(t, s, 1, segment)
	_ = s.Close()
	sub := filepath.Join(dir, "trash", segment.Header.ID.String()[:2])
	foreign := []string{filepath.Join(sub, "notes"), filepath.Join(sub, segment.ID(1).String()), filepath.Join(sub, segment.ID(1).String()+".0"),
		filepath.Join(sub, segment.ID(1).String()+".007"), filepath.Join(sub, segment.ID(1).String()+".99999999999"), filepath.Join(dir, "trash", "stray")}
	for _, name := range foreign {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir, shardstore.Config{})
	emptyTrash(t, s, true)
	for _, name := range foreign {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	if s.Stats().TrashShards != 0 {
		t.Errorf("%+v", s.Stats())
	}
}

// TestHomeOfBefore: a store that was made before there was a trash opens.
func TestHomeOfBefore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, shardstore.Config{})
	segment := segmentOf(t, device, "a")
	putShard(t, s, segment, 0)
	_ = s.Close()
	for _, name := range []string{"trash", "deleted"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir, shardstore.Config{})
	deleteSegments(t, s, 1, segment)
	if stateOf(t, s, segment) != storage.ShardTrash {
		t.Error(stateOf(t, s, segment))
	}
}

// TestDeletionsAreForgotten after 400 days of running time, not before; the
// number up to which they are known stays.
func TestDeletionsAreForgotten(t *testing.T) {
	old, young := segmentOf(t, device, "a"), segmentOf(t, device, "b")
	synctest.Test(t, func(t *testing.T) {
		files := newCrashFS()
		cfg := shardstore.Config{FS: files}
		s := open(t, "", cfg)
		deleteSegments(t, s, 1, old)
		time.Sleep(399 * 24 * time.Hour)
		emptyTrash(t, s, false)
		deleteSegments(t, s, 2, young)
		if !s.Deleted(device.Owner, vault, old.Header.ID) {
			t.Fatal("forgotten too early")
		}
		time.Sleep(2 * 24 * time.Hour)
		before := s.Stats().Bytes
		emptyTrash(t, s, false)
		check := func(when string) {
			t.Helper()
			raw, err := s.Deletions(t.Context(), device.Owner, vault, 0)
			if err != nil || len(raw) != 1 || s.Deleted(device.Owner, vault, old.Header.ID) || !s.Deleted(device.Owner, vault, young.Header.ID) {
				t.Fatalf("%s: %d deletions, %v", when, len(raw), err)
			}
			if vaults := s.Vaults(); len(vaults) != 1 || vaults[0].Deletions != 2 {
				t.Fatalf("%s: %+v", when, vaults)
			}
		}
		check("after 401 days")
		if after := s.Stats().Bytes; after >= before {
			t.Errorf("file grew from %d to %d bytes", before, after)
		}
		putShard(t, s, old, 0)
		_ = s.Close()
		s = open(t, "", shardstore.Config{FS: files.crash(nil)})
		check("opened again")
	})
}

// TestDamagedDeletions: one damaged record does not take the others with it, and
// what was lost is asked for again.
func TestDamagedDeletions(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, shardstore.Config{})
	var all [][]byte
	segments := []storagetest.Segment{segmentOf(t, device, "a"), segmentOf(t, device, "b"), segmentOf(t, device, "c")}
	for i, segment := range segments {
		deleteSegments(t, s, uint64(i+1), segment)
		all = append(all, device.Deletion(t, vault, uint64(i+1), segment.Header.ID).Raw)
	}
	_ = s.Close()
	rewrite(t, filepath.Join(dir, "deleted", device.Owner.String(), vault.String()), func(b []byte) { b[len(b)/2] ^= 1 })
	s = open(t, dir, shardstore.Config{})
	raw, err := s.Deletions(t.Context(), device.Owner, vault, 0)
	if err != nil || len(raw) != 2 || s.Vaults()[0].Deletions != 1 || len(s.Problems()) != 1 {
		t.Fatalf("%d left, known up to %d, %v", len(raw), s.Vaults()[0].Deletions, err)
	}
	if err := s.PutDeletions(t.Context(), all); err != nil || s.Vaults()[0].Deletions != 3 {
		t.Fatal(err, s.Vaults())
	}
	_ = s.Close()
	if s = open(t, dir, shardstore.Config{}); s.Vaults()[0].Deletions != 3 {
		t.Errorf("known up to %d", s.Vaults()[0].Deletions)
	}
}

// TestDeletionsAreBounded: an owner who signs many fills its own room only.
func TestDeletionsAreBounded(t *testing.T) {
	s := open(t, "", shardstore.Config{FS: newCrashFS(), OwnerLimit: func(grid.OwnerID) int64 { return 0 }})
	ids := make([]storage.SegmentID, storage.MaxDeletionSegments)
	for i := range ids {
		ids[i] = storage.SegmentID{byte(i >> 8), byte(i)}
	}
	var err error
	for number := uint64(1); number < 1000 && err == nil; number++ {
		err = s.PutDeletions(t.Context(), storagetest.RawDeletions(device.Deletion(t, vault, number, ids...)))
	}
	if !errors.Is(err, storage.ErrQuota) || s.Stats().Owners[device.Owner].DeletionBytes > 4<<20 {
		t.Fatalf("%v, %+v", err, s.Stats().Owners[device.Owner])
	}
	other := storagetest.NewDevice("other")
	for i := range storage.MaxOwnerVaults + 1 {
		err = s.PutDeletions(t.Context(), storagetest.RawDeletions(other.Deletion(t, storagetest.Vault(fmt.Sprint(i)), 1, ids[0])))
		if (err != nil) != (i == storage.MaxOwnerVaults) {
			t.Fatalf("vault %d: %v", i, err)
		}
	}
	if !errors.Is(err, storage.ErrQuota) {
		t.Error(err)
	}
}

func TestAuthorizeDeletion(t *testing.T) {
	refused := errors.New("not a member")
	s := open(t, t.TempDir(), shardstore.Config{AuthorizeDeletion: func(storage.SignedDeletion) error { return refused }})
	segment := segmentOf(t, device, "a")
	putShard(t, s, segment, 0)
	err := s.PutDeletions(t.Context(), storagetest.RawDeletions(device.Deletion(t, vault, 1, segment.Header.ID)))
	if !errors.Is(err, refused) || stateOf(t, s, segment) != storage.ShardStored {
		t.Errorf("%v, %s", err, stateOf(t, s, segment))
	}
}

// TestDropOwner: everything of one owner goes, nothing of another.
func TestDropOwner(t *testing.T) {
	dir, other := t.TempDir(), storagetest.NewDevice("other")
	s := open(t, dir, shardstore.Config{})
	mine, trashed, theirs := segmentOf(t, device, "a"), segmentOf(t, device, "b"), segmentOf(t, other, "c")
	for _, segment := range []storagetest.Segment{mine, trashed, theirs} {
		putShard(t, s, segment, 0)
	}
	deleteSegments(t, s, 1, trashed)
	putHeads(t, s, device.Heads(t, vault, 2)...)
	before := s.Stats().Owners[device.Owner]
	dropped, err := s.DropOwner(t.Context(), device.Owner)
	if err != nil || dropped != before || dropped.Shards != 1 || dropped.TrashShards != 1 || dropped.HeadBytes == 0 {
		t.Fatalf("%+v, %v; had %+v", dropped, err, before)
	}
	_ = s.Close()
	s = open(t, dir, shardstore.Config{})
	if stats := s.Stats(); len(stats.Owners) != 1 || stats.Owners[other.Owner].Shards != 1 || stats.Bytes != onDisk {
		t.Errorf("%+v", stats)
	}
	if heads, err := s.Heads(t.Context(), device.Owner); err != nil || len(heads) != 0 {
		t.Errorf("%d heads, %v", len(heads), err)
	}
}

func TestNoteRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := newCrashFS()
		cfg := shardstore.Config{FS: files}
		s := open(t, "", cfg)
		a, b := grid.OwnerID{1}, grid.OwnerID{2}
		note := func(want map[grid.OwnerID]time.Duration, owners ...grid.OwnerID) {
			t.Helper()
			got, err := s.NoteRemoved(owners)
			if err != nil || len(got) != len(want) {
				t.Fatalf("%v, %v; want %v", got, err, want)
			}
			for owner, since := range want {
				if d := got[owner] - since; d < -time.Second || d > time.Second {
					t.Errorf("owner %s since %s, want %s", owner.Short(), got[owner], since)
				}
			}
		}
		note(map[grid.OwnerID]time.Duration{a: 0}, a)
		time.Sleep(time.Hour)
		_ = s.Close()
		time.Sleep(24 * time.Hour)
		s = open(t, "", cfg)
		note(map[grid.OwnerID]time.Duration{a: time.Hour, b: 0}, a, b)
		time.Sleep(time.Hour)
		note(map[grid.OwnerID]time.Duration{b: time.Hour}, b)
		note(map[grid.OwnerID]time.Duration{a: 0, b: time.Hour}, a, b)
		_ = s.Close()
		s = open(t, "", shardstore.Config{FS: files.crash(nil)})
		note(map[grid.OwnerID]time.Duration{a: 0, b: time.Hour}, a, b)
	})
}

// TestContents: what others ask of a store.
func TestContents(t *testing.T) {
	s := open(t, t.TempDir(), shardstore.Config{})
	a, b, gone := segmentOf(t, device, "a"), segmentOf(t, device, "b"), segmentOf(t, device, "c")
	for _, segment := range []storagetest.Segment{a, b, gone} {
		putShard(t, s, segment, 2)
		putShard(t, s, segment, 0)
	}
	holders := []storage.Holder{storagetest.Holder("one", 1)}
	if err := storagetest.Put(t.Context(), s, a, 2, holders); !errors.Is(err, storage.ErrExists) {
		t.Fatal(err)
	}
	deleteSegments(t, s, 1, gone)
	var ids []storage.SegmentID
	for held, err := range s.Segments(t.Context()) {
		if err != nil || held.Owner != device.Owner || held.Vault != vault || !slices.Equal(held.Shards, []int{0, 2}) {
			t.Fatalf("%+v, %v", held, err)
		}
		ids = append(ids, held.ID)
	}
	if len(ids) != 2 || !slices.IsSortedFunc(ids, func(a, b storage.SegmentID) int { return bytes.Compare(a[:], b[:]) }) || slices.Contains(ids, gone.Header.ID) {
		t.Errorf("%v", ids)
	}
	header, known, err := s.Header(t.Context(), a.Header.ID)
	if err != nil || !bytes.Equal(header.Raw, a.Header.Raw) || !slices.Equal(known, holders) {
		t.Errorf("%v, %v", known, err)
	}
	if _, _, err := s.Header(t.Context(), gone.Header.ID); err != nil {
		t.Errorf("header of what is in the trash: %v", err)
	}
	if _, _, err := s.Header(t.Context(), storage.SegmentID{1}); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	if vaults := s.Vaults(); len(vaults) != 1 || vaults[0] != (shardstore.HeldVault{Owner: device.Owner, Vault: vault, Segments: 2, Deletions: 1}) {
		t.Errorf("%+v", vaults)
	}
}

// TestProofFindsBadShard: a shard of which a proof was asked and whose bytes are
// wrong is set aside, be its tree known or not.
func TestProofFindsBadShard(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, shardstore.Config{})
	segment := device.Segment(t, vault, storage.Redundancy{K: 2, N: 3}, 4*storage.ProofGroupBytes, "a")
	flip := func(index, group int) {
		rewrite(t, shardFile(dir, segment.ID(index)), func(b []byte) { b[8192+group*storage.ProofGroupBytes+5] ^= 1 })
	}
	for index := range 2 {
		putShard(t, s, segment, index)
	}
	if _, err := s.Prove(t.Context(), segment.ID(1), []int{3}); err != nil {
		t.Fatal(err)
	}
	flip(0, 2)
	flip(1, 2)
	for index, group := range []int{0, 2} { // shard 0 has no tree yet, so any group shows it
		if _, err := s.Prove(t.Context(), segment.ID(index), []int{group}); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("shard %d: %v", index, err)
		}
		if err := s.Verify(t.Context(), segment.ID(index)); !errors.Is(err, storage.ErrCorrupt) || s.Stats().Bad != 1 {
			t.Errorf("shard %d is not set aside: %v", index, err)
		}
		putShard(t, s, segment, index)
		if _, err := s.Prove(t.Context(), segment.ID(index), []int{group}); err != nil {
			t.Errorf("shard %d, stored anew: %v", index, err)
		}
	}
}

// TestReadersMeetTheTrash: whoever reads while a shard is being deleted gets its
// bytes or learns that it is gone, and nothing is called bad.
func TestReadersMeetTheTrash(t *testing.T) {
	s := open(t, t.TempDir(), shardstore.Config{})
	const count = 100
	segments := make([]storagetest.Segment, count)
	for i := range segments {
		segments[i] = segmentOf(t, device, fmt.Sprint(i))
		putShard(t, s, segments[i], 0)
	}
	done := make(chan error)
	for range 4 {
		go func() {
			for range 3 {
				for _, segment := range segments {
					_, err := storagetest.Get(t.Context(), s, segment.ID(0), 0, -1)
					if err != nil && !errors.Is(err, storage.ErrNotFound) {
						done <- err
						return
					}
				}
			}
			done <- nil
		}()
	}
	for i := range segments {
		deleteSegments(t, s, uint64(i+1), segments[i])
		if i%10 == 9 {
			emptyTrash(t, s, true)
		}
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if len(s.Problems()) > 0 || s.Stats().Bad > 0 {
		t.Errorf("%+v", s.Problems())
	}
}

// TestRotInTrash: All lists what is in the trash, and one that went bad there is
// found by reading it and set aside.
func TestRotInTrash(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, shardstore.Config{})
	kept, trashed := segmentOf(t, device, "a"), segmentOf(t, device, "b")
	putShard(t, s, kept, 0)
	putShard(t, s, trashed, 1)
	deleteSegments(t, s, 1, trashed)
	paths, err := filepath.Glob(filepath.Join(dir, "trash", "*", "*"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("%q, %v", paths, err)
	}
	content, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)-1] ^= 1
	if err := os.WriteFile(paths[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
	bad := 0
	for id, err := range s.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if errors.Is(s.Verify(t.Context(), id), storage.ErrCorrupt) {
			bad++
		}
	}
	if stats := s.Stats(); bad != 1 || stats.Bad != 1 || stats.TrashShards != 0 || stats.Shards != 1 {
		t.Errorf("%d bad, %+v", bad, stats)
	}
}
