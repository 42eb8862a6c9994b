package shardstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"gotong/grid"
	"gotong/grid/disk"
	"gotong/storage"
	"gotong/storage/shardstore"
	"gotong/storage/storagetest"
)

const onDisk = 8192 + 1000 // bytes of a shard of 1000 bytes

func segmentOf(t *testing.T, d storagetest.Device, seed string) storagetest.Segment {
	t.Helper()
	return d.Segment(t, vault, twoOf3, 1000, seed)
}

// TestRoom: pledge, disk and quota each refuse with their own word, count what
// is being written, and get back what was not.
func TestRoom(t *testing.T) {
	files := newCrashFS()
	files.free = 10_000 + 2*onDisk
	for name, c := range map[string]struct {
		cfg  shardstore.Config
		want error
	}{
		"pledge":     {shardstore.Config{CapacityBytes: 2*onDisk + 10, KeepFreeBytes: -1}, storage.ErrFull},
		"free disk":  {shardstore.Config{FS: files, KeepFreeBytes: 10_000}, storage.ErrFull},
		"own quota":  {shardstore.Config{OwnerLimit: func(grid.OwnerID) int64 { return 2 * onDisk }}, storage.ErrQuota},
		"no members": {shardstore.Config{OwnerLimit: func(grid.OwnerID) int64 { return -5 }}, storage.ErrQuota},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir(), c.cfg)
			segment := segmentOf(t, device, "a")
			put := func(index int) error { return storagetest.Put(t.Context(), s, segment, index, nil) }
			if name == "no members" {
				if err := put(0); !errors.Is(err, c.want) {
					t.Fatalf("%v, want %v", err, c.want)
				}
				return
			}
			if err := put(0); err != nil {
				t.Fatal(err)
			}
			files.free = 10_000 + onDisk // what an ordinary file system would say now
			writing, err := s.CreateShard(t.Context(), segment.Header, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := put(2); !errors.Is(err, c.want) {
				t.Fatalf("beside one that is being written: %v, want %v", err, c.want)
			}
			writing.Abort()
			if err := put(2); err != nil {
				t.Fatalf("after that one was aborted: %v", err)
			}
			files.free = 10_000
			if err := put(1); !errors.Is(err, c.want) {
				t.Fatalf("third one: %v, want %v", err, c.want)
			}
			if err := s.DeleteShard(t.Context(), segment.ID(0)); err != nil {
				t.Fatal(err)
			}
			files.free = 10_000 + onDisk
			if err := put(1); err != nil {
				t.Fatalf("after one was deleted: %v", err)
			}
			files.free = 10_000 + 2*onDisk
		})
	}
}

func TestFree(t *testing.T) {
	s := open(t, t.TempDir(), shardstore.Config{CapacityBytes: 100_000})
	if got := s.Free(); got != 100_000 {
		t.Fatalf("%d bytes free, pledge is 100000", got)
	}
	if err := storagetest.Put(t.Context(), s, segmentOf(t, device, "a"), 0, nil); err != nil {
		t.Fatal(err)
	}
	if got := s.Free(); got != 100_000-onDisk {
		t.Fatalf("%d bytes free after one shard", got)
	}
	full := open(t, t.TempDir(), shardstore.Config{KeepFreeBytes: 1 << 60})
	if got := full.Free(); got != 0 {
		t.Fatalf("%d bytes free on a disk that is to stay empty", got)
	}
}

// TestQuotaIsPerOwner and survives a restart.
func TestQuotaIsPerOwner(t *testing.T) {
	dir, other := t.TempDir(), storagetest.NewDevice("other")
	cfg := shardstore.Config{OwnerLimit: func(o grid.OwnerID) int64 {
		return map[grid.OwnerID]int64{device.Owner: onDisk, other.Owner: 2 * onDisk}[o]
	}}
	s := open(t, dir, cfg)
	mine, theirs := segmentOf(t, device, "a"), segmentOf(t, other, "b")
	for _, segment := range []storagetest.Segment{mine, theirs} {
		if err := storagetest.Put(t.Context(), s, segment, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.Close()
	s = open(t, dir, cfg)
	if err := storagetest.Put(t.Context(), s, mine, 1, nil); !errors.Is(err, storage.ErrQuota) {
		t.Fatalf("%v, want ErrQuota", err)
	}
	if err := storagetest.Put(t.Context(), s, theirs, 1, nil); err != nil {
		t.Fatal(err)
	}
	want := shardstore.Holding{Shards: 2, Bytes: 2 * onDisk}
	if got := s.Stats().Owners[other.Owner]; got != want {
		t.Fatalf("%+v, want %+v", got, want)
	}
}

func TestAuthorize(t *testing.T) {
	refused := errors.New("not a member")
	s := open(t, t.TempDir(), shardstore.Config{
		Authorize:     func(h storage.SignedHeader) error { return refused },
		AuthorizeHead: func(h storage.SignedHead) error { return refused },
	})
	if err := storagetest.Put(t.Context(), s, segmentOf(t, device, "a"), 0, nil); !errors.Is(err, refused) {
		t.Errorf("shard: %v", err)
	}
	if err := s.PutHeads(t.Context(), storagetest.Raw(device.Heads(t, vault, 1)...)); !errors.Is(err, refused) {
		t.Errorf("head: %v", err)
	}
	if stats := s.Stats(); stats.Shards != 0 || stats.Bytes != 0 || stats.ReservedBytes != 0 {
		t.Errorf("%+v", stats)
	}
}

// TestNewestHeadVouches for those before it, whose signers may be gone.
func TestNewestHeadVouches(t *testing.T) {
	refused := errors.New("not a member")
	s := open(t, t.TempDir(), shardstore.Config{AuthorizeHead: func(h storage.SignedHead) error {
		if h.Seq < 3 {
			return refused
		}
		return nil
	}})
	chain := device.Heads(t, vault, 3)
	if err := s.PutHeads(t.Context(), storagetest.Raw(chain[:2]...)); !errors.Is(err, refused) {
		t.Errorf("newest is refused: %v", err)
	}
	if err := s.PutHeads(t.Context(), storagetest.Raw(chain...)); err != nil {
		t.Errorf("newest is taken: %v", err)
	}
	wantLinks(t, s, 0, chain...)
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, shardstore.Config{})
	if _, err := shardstore.Open(dir, shardstore.Config{}); !errors.Is(err, disk.ErrLocked) {
		t.Fatalf("%v, want ErrLocked", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir, shardstore.Config{})
}

func TestClosedStore(t *testing.T) {
	s := open(t, t.TempDir(), shardstore.Config{})
	segment := segmentOf(t, device, "a")
	if err := storagetest.Put(t.Context(), s, segment, 0, nil); err != nil {
		t.Fatal(err)
	}
	w, err := s.CreateShard(t.Context(), segment.Header, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	_, writeErr := w.Write(segment.Shards[1])
	_, haveErr := s.Have(t.Context(), []storage.SegmentID{segment.Header.ID})
	_, headsErr := s.Heads(t.Context(), device.Owner)
	for what, err := range map[string]error{
		"put": storagetest.Put(t.Context(), s, segment, 2, nil), "write": writeErr, "commit": w.Commit(),
		"verify": s.Verify(t.Context(), segment.ID(0)), "have": haveErr, "heads": headsErr,
		"put heads":     s.PutHeads(t.Context(), storagetest.Raw(device.Heads(t, vault, 1)...)),
		"delete":        s.DeleteShard(t.Context(), segment.ID(0)),
		"put deletions": s.PutDeletions(t.Context(), storagetest.RawDeletions(device.Deletion(t, vault, 1, segment.Header.ID))),
		"deletions":     second(s.Deletions(t.Context(), device.Owner, vault, 0)),
		"history":       second(s.HeadHistory(t.Context(), device.Owner, vault, storage.HeadCursor{})),
		"prove":         second(s.Prove(t.Context(), segment.ID(0), []int{0})),
		"empty trash":   second(s.EmptyTrash(t.Context(), true)),
		"drop owner":    second(s.DropOwner(t.Context(), device.Owner)),
		"note removed":  second(s.NoteRemoved(nil)),
	} {
		if !errors.Is(err, shardstore.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestOpenRefusesNewerFormat(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "format"), []byte("gotong shard store 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := shardstore.Open(dir, shardstore.Config{}); !errors.Is(err, storage.ErrCorrupt) {
		t.Fatalf("%v", err)
	}
}

func TestOpenRefusesBadConfig(t *testing.T) {
	if _, err := shardstore.Open(t.TempDir(), shardstore.Config{CapacityBytes: -1, KeepFreeBytes: -2}); err == nil {
		t.Fatal("accepted")
	}
}

// TestForeignFiles: what is not a shard is neither served nor removed, and a
// link does not lead out of the store.
func TestForeignFiles(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	s := open(t, dir, shardstore.Config{})
	segment := segmentOf(t, device, "a")
	if err := storagetest.Put(t.Context(), s, segment, 0, nil); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	sub := filepath.Dir(shardFile(dir, segment.ID(0)))
	names := []string{filepath.Join(sub, "notes.txt"), filepath.Join(dir, "shards", "stray"), filepath.Join(sub, segment.Header.ID.String()+".99")}
	for _, name := range names {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	unfinished := shardFile(dir, segment.ID(1)) + ".1.tmp"
	if err := os.WriteFile(unfinished, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A shard moved out of the store, with a link in its place.
	moved := filepath.Join(outside, "shard")
	if err := os.Rename(shardFile(dir, segment.ID(0)), moved); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(moved, shardFile(dir, segment.ID(0))); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, shardstore.Config{})
	if stats := s.Stats(); stats.Shards != 0 {
		t.Errorf("%+v", stats)
	}
	if err := s.Verify(t.Context(), segment.ID(0)); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("link followed: %v", err)
	}
	for _, name := range names {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("foreign file is gone: %v", err)
		}
	}
	if _, err := os.Stat(unfinished); !os.IsNotExist(err) {
		t.Errorf("unfinished file stays: %v", err)
	}
	if err := storagetest.Put(t.Context(), s, segment, 0, nil); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(moved); err != nil || info.Size() != onDisk {
		t.Errorf("file outside was touched: %v", err)
	}
}
