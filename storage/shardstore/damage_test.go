package shardstore_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"gotong/storage"
	"gotong/storage/shardstore"
	"gotong/storage/storagetest"
)

func shardFile(dir string, id storage.ShardID) string {
	return filepath.Join(dir, "shards", id.Segment.String()[:2], id.String())
}

// damages are what can happen to the file of shard 0 of segment a.
var damages = map[string]func(t *testing.T, dir string, a, b storagetest.Segment){
	"bit in magic":   flipAt(0),
	"bit in version": flipAt(9),
	"bit in index":   flipAt(10),
	"bit in header":  flipAt(200),
	"bit in padding": flipAt(4000),
	"bit in hash":    flipAt(4090),
	"first bit":      flipAt(8192),
	"last bit":       flipAt(8192 + damagedSize - 1),
	"truncated": func(t *testing.T, dir string, a, _ storagetest.Segment) {
		truncate(t, shardFile(dir, a.ID(0)), 8192+10)
	},
	"cut in header": func(t *testing.T, dir string, a, _ storagetest.Segment) { truncate(t, shardFile(dir, a.ID(0)), 100) },
	"empty":         func(t *testing.T, dir string, a, _ storagetest.Segment) { truncate(t, shardFile(dir, a.ID(0)), 0) },
	"longer": func(t *testing.T, dir string, a, _ storagetest.Segment) {
		truncate(t, shardFile(dir, a.ID(0)), 8192+damagedSize+1)
	},
	"other segment in its place": func(t *testing.T, dir string, a, b storagetest.Segment) {
		copyFile(t, shardFile(dir, b.ID(0)), shardFile(dir, a.ID(0)))
	},
	"other index in its place": func(t *testing.T, dir string, a, _ storagetest.Segment) {
		copyFile(t, shardFile(dir, a.ID(1)), shardFile(dir, a.ID(0)))
	},
	"zeros": func(t *testing.T, dir string, a, _ storagetest.Segment) {
		rewrite(t, shardFile(dir, a.ID(0)), func(b []byte) { clear(b) })
	},
}

const damagedSize = 5000

func flipAt(at int) func(*testing.T, string, storagetest.Segment, storagetest.Segment) {
	return func(t *testing.T, dir string, a, _ storagetest.Segment) {
		rewrite(t, shardFile(dir, a.ID(0)), func(b []byte) { b[at] ^= 4 })
	}
}

func rewrite(t *testing.T, name string, change func([]byte)) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	change(b)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, name string, size int64) {
	t.Helper()
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, to, func([]byte) {})
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamageIsNoticed: whatever happens to a file, its bytes are never served
// as the shard; it is set aside, named, remembered, and can be replaced. It
// happens while the store is open, or before it is opened.
func TestDamageIsNoticed(t *testing.T) {
	a := device.Segment(t, vault, twoOf3, damagedSize, "a")
	b := device.Segment(t, vault, twoOf3, damagedSize, "b")
	for name, damage := range damages {
		for _, closed := range []bool{false, true} {
			t.Run(map[bool]string{false: "open/", true: "closed/"}[closed]+name, func(t *testing.T) {
				dir := t.TempDir()
				s := open(t, dir, shardstore.Config{})
				for index := range 2 {
					for _, segment := range []storagetest.Segment{a, b} {
						if err := storagetest.Put(t.Context(), s, segment, index, nil); err != nil {
							t.Fatal(err)
						}
					}
				}
				if closed {
					_ = s.Close()
				}
				damage(t, dir, a, b)
				if closed {
					s = open(t, dir, shardstore.Config{})
				}
				wantDamageNoticed(t, s, a, b)
				_ = s.Close()
				wantDamageRemembered(t, open(t, dir, shardstore.Config{}), a)
			})
		}
	}
}

func wantDamageNoticed(t *testing.T, s *shardstore.Store, a, b storagetest.Segment) {
	t.Helper()
	r, err := s.OpenShard(t.Context(), a.ID(0), 0, -1)
	if err == nil {
		var got []byte
		if got, err = io.ReadAll(r); len(got) == damagedSize {
			t.Error("all bytes of a bad shard were given")
		}
		_ = r.Close()
	}
	if !errors.Is(err, storage.ErrCorrupt) {
		t.Fatalf("read: %v, want ErrCorrupt", err)
	}
	for what, err := range map[string]error{
		"verify": s.Verify(t.Context(), a.ID(0)),
		"range":  func() error { _, err := storagetest.Get(t.Context(), s, a.ID(0), 5, 1); return err }(),
	} {
		if !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%s of a bad shard: %v", what, err)
		}
	}
	wantState(t, s, a, storage.ShardBad)
	if problems := s.Problems(); len(problems) != 1 || problems[0].Shard != a.ID(0) {
		t.Errorf("problems: %+v", problems)
	}
	if stats := s.Stats(); stats.Shards != 3 || stats.Bad != 1 {
		t.Errorf("stats: %+v", stats)
	}
	for _, id := range []storage.ShardID{a.ID(1), b.ID(0), b.ID(1)} {
		if err := s.Verify(t.Context(), id); err != nil {
			t.Errorf("another shard suffers: %v", err)
		}
	}
}

// wantDamageRemembered: a restart does not heal a shard, a new copy does.
func wantDamageRemembered(t *testing.T, s *shardstore.Store, a storagetest.Segment) {
	t.Helper()
	wantState(t, s, a, storage.ShardBad)
	if err := storagetest.Put(t.Context(), s, a, 0, nil); err != nil {
		t.Fatal("a bad shard cannot be replaced:", err)
	}
	wantState(t, s, a, storage.ShardStored)
	if got, err := storagetest.Get(t.Context(), s, a.ID(0), 0, -1); err != nil || !bytes.Equal(got, a.Shards[0]) {
		t.Error(err)
	}
	if stats := s.Stats(); stats.Bad != 0 || stats.Shards != 4 || stats.Bytes != 4*(8192+damagedSize) {
		t.Errorf("stats: %+v", stats)
	}
}

func wantState(t *testing.T, s *shardstore.Store, segment storagetest.Segment, want storage.ShardState) {
	t.Helper()
	answers, err := s.Have(t.Context(), []storage.SegmentID{segment.Header.ID})
	if err != nil || len(answers[0].Shards) != 2 || answers[0].Shards[0].State != want || answers[0].Shards[1].State != storage.ShardStored {
		t.Fatalf("%+v, %v; want the first %s", answers, err, want)
	}
}

// TestDamageOfHolders costs the list and nothing else.
func TestDamageOfHolders(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, shardstore.Config{})
	segment := device.Segment(t, vault, twoOf3, 100, "a")
	holders := []storage.Holder{{Shard: 2, Peer: storagetest.Peer("two"), Epoch: 1}}
	if err := storagetest.Put(t.Context(), s, segment, 0, holders); err != nil {
		t.Fatal(err)
	}
	rewrite(t, shardFile(dir, segment.ID(0)), func(b []byte) { b[4096+20] ^= 1 })
	answers, err := s.Have(t.Context(), []storage.SegmentID{segment.Header.ID})
	if err != nil || len(answers[0].Holders) != 0 {
		t.Fatalf("%v, %v", answers, err)
	}
	if err := s.Verify(t.Context(), segment.ID(0)); err != nil {
		t.Fatal(err)
	}
	if err := storagetest.Put(t.Context(), s, segment, 0, holders); !errors.Is(err, storage.ErrExists) {
		t.Fatal(err)
	}
	if answers, err = s.Have(t.Context(), []storage.SegmentID{segment.Header.ID}); err != nil || len(answers[0].Holders) != 1 {
		t.Fatalf("the list cannot be written again: %v, %v", answers, err)
	}
}

// TestFileGone: a file that somebody deleted is a bad shard, not a missing one
// that was never there.
func TestFileGone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, shardstore.Config{})
	segment := device.Segment(t, vault, twoOf3, 100, "a")
	if err := storagetest.Put(t.Context(), s, segment, 0, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(shardFile(dir, segment.ID(0))); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), segment.ID(0)); !errors.Is(err, storage.ErrCorrupt) || len(s.Problems()) != 1 {
		t.Fatalf("%v, %v", err, s.Problems())
	}
	if err := storagetest.Put(t.Context(), s, segment, 0, nil); err != nil {
		t.Fatal(err)
	}
}

// TestManyBadShards: the place where they are set aside does not fill the disk.
func TestManyBadShards(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, shardstore.Config{})
	const shards = 70
	segments := make([]storagetest.Segment, shards)
	for i := range segments {
		segments[i] = device.Segment(t, vault, storage.Redundancy{K: 1, N: 1}, 10, string(rune('a'+i)))
		if err := storagetest.Put(t.Context(), s, segments[i], 0, nil); err != nil {
			t.Fatal(err)
		}
		truncate(t, shardFile(dir, segments[i].ID(0)), 0)
		if err := s.Verify(t.Context(), segments[i].ID(0)); !errors.Is(err, storage.ErrCorrupt) {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadDir(filepath.Join(dir, "bad"))
	if err != nil || len(kept) != 64 || s.Stats().Bad != 64 || len(s.Problems()) != 64 {
		t.Fatalf("%d kept, %+v, %v", len(kept), s.Stats(), err)
	}
}
