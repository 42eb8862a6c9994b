package shardstore_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/shardstore"
	"gotong/storage/storagetest"
)

var update = flag.Bool("update", false, "rewrite golden files")

var (
	device = storagetest.NewDevice("disk")
	vault  = storagetest.Vault("disk")
	twoOf3 = storage.Redundancy{K: 2, N: 3}
)

// TestOrderOfOperations pins the durable order: content, name, directory, and
// nothing acknowledged before.
func TestOrderOfOperations(t *testing.T) {
	files := newCrashFS()
	s := open(t, "", shardstore.Config{FS: files})
	segment := device.Segment(t, vault, twoOf3, 100, "a")
	var out strings.Builder
	section := func(title string, run func() error) {
		files.log = nil
		if err := run(); err != nil {
			t.Fatalf("%s: %v", title, err)
		}
		short := strings.NewReplacer(segment.Header.ID.String(), "SEGMENT", "shards/"+segment.Header.ID.String()[:2], "shards/XX",
			"trash/"+segment.Header.ID.String()[:2], "trash/XX",
			device.Owner.String(), "OWNER", vault.String(), "VAULT")
		fmt.Fprintf(&out, "%s:\n\t%s\n", title, short.Replace(strings.Join(files.log, "\n\t")))
	}
	out.WriteString("first open:\n\t" + strings.Join(files.log, "\n\t") + "\n")
	ctx, chain := t.Context(), device.Heads(t, vault, 2)
	section("first shard of a directory", func() error { return storagetest.Put(ctx, s, segment, 0, nil) })
	section("next shard", func() error { return storagetest.Put(ctx, s, segment, 1, nil) })
	section("shard with wrong bytes", func() error {
		wrong := segment
		wrong.Shards = [][]byte{nil, nil, make([]byte, 100)}
		if err := storagetest.Put(ctx, s, wrong, 2, nil); !errors.Is(err, storage.ErrCorrupt) {
			return fmt.Errorf("committed: %w", err)
		}
		return nil
	})
	section("new holders", func() error {
		return putHolders(ctx, s, segment, 0)
	})
	section("deleted shard", func() error { return s.DeleteShard(ctx, segment.ID(1)) })
	section("first head of an owner", func() error { return s.PutHeads(ctx, storagetest.Raw(chain[0])) })
	section("next head", func() error { return s.PutHeads(ctx, storagetest.Raw(chain[1])) })
	section("deletion", func() error {
		return s.PutDeletions(ctx, storagetest.RawDeletions(device.Deletion(t, vault, 1, segment.Header.ID)))
	})
	section("next deletion, of nothing that is here", func() error {
		return s.PutDeletions(ctx, storagetest.RawDeletions(device.Deletion(t, vault, 2, storage.SegmentID{1})))
	})
	section("read from the trash", func() error { return s.Verify(ctx, segment.ID(0)) })
	section("empty trash", func() error {
		_, err := s.EmptyTrash(ctx, true)
		return err
	})
	section("drop owner", func() error {
		_, err := s.DropOwner(ctx, device.Owner)
		return err
	})
	section("owner is removed", func() error {
		_, err := s.NoteRemoved([]grid.OwnerID{device.Owner})
		return err
	})
	section("close", s.Close)

	const golden = "testdata/order.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || out.String() != string(want) {
		t.Errorf("order of operations changed (%v), now:\n%s", err, out.String())
	}
}

// putHolders gives a stored shard another holder list.
func putHolders(ctx context.Context, s *shardstore.Store, segment storagetest.Segment, index int) error {
	err := storagetest.Put(ctx, s, segment, index, []storage.Holder{{Shard: 0, Peer: device.Peer}})
	if errors.Is(err, storage.ErrExists) {
		return nil
	}
	return fmt.Errorf("stored again: %w", err)
}

// storePlace is where a store lies.
type storePlace interface {
	open() (*shardstore.Store, error)
	sizes() int64 // of all files that count
}

// workload does a bit of everything and remembers what was acknowledged.
type workload struct {
	t        *testing.T
	say      func(event string) // of what happens; note, or another process calls it
	segments []storagetest.Segment
	later    storagetest.Segment // put to see that the store still takes one
	chain    []storage.SignedHead
	acked    map[storage.ShardID][]byte
	maybe    map[storage.ShardID][]byte // tried, or deleted without an answer
	heads    int
}

func newWorkload(t *testing.T) *workload {
	w := &workload{t: t, chain: device.Heads(t, vault, 3), later: device.Segment(t, vault, twoOf3, 10, "later")}
	for _, seed := range []string{"a", "b"} {
		w.segments = append(w.segments, device.Segment(t, vault, twoOf3, 1500, seed))
	}
	w.say = w.note
	w.forget()
	return w
}

// forget begins anew: nothing was tried.
func (w *workload) forget() {
	w.acked, w.maybe, w.heads = map[storage.ShardID][]byte{}, map[storage.ShardID][]byte{}, 0
}

// note takes in one thing that happened: its name, and the numbers of segment
// and shard, or of the head.
func (w *workload) note(event string) {
	var what string
	var i, index int
	if _, err := fmt.Sscan(event, &what, &i, &index); err != nil {
		w.t.Fatalf("event %q: %v", event, err)
	}
	id, bytes := w.segments[i].ID(index), w.segments[i].Shards[index]
	switch what {
	case "putting":
		w.maybe[id] = bytes
	case "put":
		w.acked[id] = bytes
	case "head":
		w.heads = i + 1
	case "deleting":
		delete(w.acked, id)
	case "deleted":
		delete(w.maybe, id)
	}
}

func (w *workload) run(s *shardstore.Store) {
	ctx := w.t.Context()
	say := func(what string, i, index int) { w.say(fmt.Sprint(what, " ", i, " ", index)) }
	for i, segment := range w.segments {
		for index := range 2 {
			say("putting", i, index)
			err := storagetest.Put(ctx, s, segment, index, []storage.Holder{{Shard: 1, Peer: device.Peer}})
			w.wantKnown(err)
			if err == nil || errors.Is(err, storage.ErrExists) {
				say("put", i, index)
			}
		}
		err := s.PutHeads(ctx, storagetest.Raw(w.chain[:i+1]...))
		w.wantKnown(err)
		if err == nil {
			say("head", i, 0)
		}
	}
	_ = putHolders(ctx, s, w.segments[0], 1)
	say("deleting", 0, 0)
	if err := s.DeleteShard(ctx, w.segments[0].ID(0)); err == nil {
		say("deleted", 0, 0)
	}
}

// wantKnown: whatever fails underneath, a caller gets an error that it can act on.
func (w *workload) wantKnown(err error) {
	if err != nil && !errors.Is(err, storage.ErrDisk) && !errors.Is(err, storage.ErrFull) && !errors.Is(err, storage.ErrExists) {
		w.t.Errorf("error of no known kind: %v", err)
	}
}

// check opens the files again: all that was acknowledged is there and right,
// nothing that was never sent is, and the accounts are true.
func (w *workload) check(place storePlace, when string) {
	t := w.t
	s, err := place.open()
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	defer s.Close()
	for id, want := range w.acked {
		if got, err := storagetest.Get(t.Context(), s, id, 0, -1); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: acknowledged shard is gone: %v", when, err)
		}
	}
	size := int64(0)
	for id, err := range s.All(t.Context()) {
		want := w.maybe[id]
		if id == w.later.ID(0) {
			want = w.later.Shards[0]
		}
		got, getErr := storagetest.Get(t.Context(), s, id, 0, -1)
		if err != nil || getErr != nil || want == nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: shard %s is served and should not be: %v", when, id, getErr)
		}
		size += int64(len(got)) + 8192
	}
	vaults, err := s.Heads(t.Context(), device.Owner)
	if err != nil || w.heads > 0 && (len(vaults) != 1 || len(vaults[0].Links) < w.heads) {
		t.Fatalf("%s: %d acknowledged heads, found %v: %v", when, w.heads, vaults, err)
	}
	for _, v := range vaults {
		for i, raw := range v.Links {
			if !bytes.Equal(raw, w.chain[i].Raw) {
				t.Fatalf("%s: head %d is not what was sent", when, i+1)
			}
		}
	}
	if stats := s.Stats(); stats.Owners[device.Owner].Bytes != size || stats.ReservedBytes != 0 {
		t.Fatalf("%s: accounts say %+v, files have %d", when, stats, size)
	}
	if got, want := s.Stats().Bytes, place.sizes(); got != want {
		t.Fatalf("%s: accounts have %d bytes, files %d", when, got, want)
	}
	for _, problem := range s.Problems() {
		if problem.What != "head file is damaged" { // a torn tail
			t.Fatalf("%s: %+v", when, problem)
		}
	}
	if err := storagetest.Put(t.Context(), s, w.later, 0, nil); err != nil && !errors.Is(err, storage.ErrExists) {
		t.Fatalf("%s: store takes nothing any more: %v", when, err)
	}
}

// again opens the files as they are, as after a kill, and does everything once
// more, to the end: what was there counts as acknowledged too.
func (w *workload) again(place storePlace, when string) {
	s, err := place.open()
	if err != nil {
		w.t.Fatalf("%s: %v", when, err)
	}
	w.forget()
	w.run(s)
	if want := 2*len(w.segments) - 1; len(w.acked) != want || w.heads != len(w.segments) {
		w.t.Fatalf("%s: %d shards and %d heads acknowledged", when, len(w.acked), w.heads)
	}
	if err := s.Close(); err != nil {
		w.t.Fatalf("%s: %v", when, err)
	}
}

// TestEveryOperationFails fails each operation in turn, once or from then on,
// and cuts the power in different ways afterwards.
func TestEveryOperationFails(t *testing.T) {
	w := newWorkload(t)
	for _, mode := range []struct {
		name string
		err  error
		all  bool
	}{{"EIO", syscall.EIO, false}, {"ENOSPC", syscall.ENOSPC, false}, {"power cut", syscall.EIO, true}} {
		seen := 0
		for n := 1; ; n++ {
			files := newCrashFS()
			files.failAt, files.failErr, files.failAll = n, mode.err, mode.all
			s, err := shardstore.Open("", shardstore.Config{FS: files})
			w.forget()
			if err == nil {
				w.run(s)
				_ = s.Close()
			}
			failed := files.failed
			files.failAt, files.locked = 0, false
			when := fmt.Sprintf("%s at operation %d (%s)", mode.name, n, failed)
			for seed := range uint64(2) {
				w.check(files.crash(rand.New(rand.NewPCG(seed, uint64(n)))), when+fmt.Sprint(" seed ", seed))
			}
			w.check(files.crash(nil), when)
			when += ", opened again"
			w.again(files, when)
			w.check(files.crash(nil), when)
			w.check(files, when)
			if failed == "" {
				break
			}
			seen++
		}
		if seen < 30 {
			t.Errorf("%s: only %d operations were made to fail", mode.name, seen)
		}
	}
}

// TestSyncIsNeverTriedAgain: after a failed sync the kernel may have dropped
// the pages and call the next one a success.
func TestSyncIsNeverTriedAgain(t *testing.T) {
	segment := device.Segment(t, vault, twoOf3, 100, "a")
	for _, what := range []string{"sync shards", "sync dir shards/" + segment.Header.ID.String()[:2]} {
		s, files, err := failSecondPut(t, segment, what)
		if !errors.Is(err, storage.ErrDisk) {
			t.Fatalf("%s: %v, want ErrDisk", what, err)
		}
		if err := storagetest.Put(t.Context(), s, segment, 2, nil); !errors.Is(err, storage.ErrDisk) {
			t.Errorf("%s: suspect disk takes a shard: %v", what, err)
		}
		if err := s.PutHeads(t.Context(), storagetest.Raw(device.Heads(t, vault, 1)...)); !errors.Is(err, storage.ErrDisk) {
			t.Errorf("%s: suspect disk takes a head: %v", what, err)
		}
		if i := slices.IndexFunc(files.log[files.failedAfter:], func(line string) bool { return strings.HasPrefix(line, "sync") }); i >= 0 {
			t.Errorf("%s: synced again: %s", what, files.log[files.failedAfter+i])
		}
		if !s.Stats().Suspect || s.Free() != 0 || len(s.Problems()) != 1 {
			t.Errorf("%s: not reported: %+v %v", what, s.Stats(), s.Problems())
		}
		if err := s.Verify(t.Context(), segment.ID(0)); err != nil {
			t.Errorf("%s: stored shard cannot be read: %v", what, err)
		}
		if err := s.Verify(t.Context(), segment.ID(1)); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("%s: shard that is not durable is there: %v", what, err)
		}
	}
}

// failSecondPut stores shard 0, then shard 1 with that operation failing that
// begins with what.
func failSecondPut(t *testing.T, segment storagetest.Segment, what string) (*shardstore.Store, *crashFS, error) {
	for n := 1; n < 10; n++ {
		files := newCrashFS()
		s := open(t, "", shardstore.Config{FS: files})
		if err := storagetest.Put(t.Context(), s, segment, 0, nil); err != nil {
			t.Fatal(err)
		}
		files.failAt, files.failErr = files.ops+n, syscall.EIO
		err := storagetest.Put(t.Context(), s, segment, 1, nil)
		files.failAt = 0
		if strings.HasPrefix(files.failed, what) {
			return s, files, err
		}
	}
	t.Fatalf("%s was never called", what)
	return nil, nil, nil
}

func TestDiskFullHurtsNothing(t *testing.T) {
	files := newCrashFS()
	s := open(t, "", shardstore.Config{FS: files})
	segment := device.Segment(t, vault, twoOf3, 1000, "a")
	if err := storagetest.Put(t.Context(), s, segment, 0, nil); err != nil {
		t.Fatal(err)
	}
	files.failErr = syscall.ENOSPC
	for n := 1; ; n++ {
		files.failAt, files.failed = files.ops+n, ""
		err := storagetest.Put(t.Context(), s, segment, 1, nil)
		if files.failed == "" {
			break
		}
		if !errors.Is(err, storage.ErrFull) {
			t.Fatalf("%s: %v, want ErrFull", files.failed, err)
		}
		if err := s.Verify(t.Context(), segment.ID(0)); err != nil {
			t.Fatalf("%s: %v", files.failed, err)
		}
	}
	files.failAt = 0
	if err := s.Verify(t.Context(), segment.ID(1)); err != nil || s.Stats().Suspect {
		t.Fatal("not taken after there was room again:", err)
	}
}
