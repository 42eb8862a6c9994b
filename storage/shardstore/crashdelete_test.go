package shardstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/storagetest"
)

// deleting is a workload of everything that takes shards away, and what was
// tried and acknowledged of it.
type deleting struct {
	t             *testing.T
	a, b, c, late storagetest.Segment
	other         storagetest.Segment // of another owner
	first, second storage.SignedDeletion

	say func(event string) // of what happens; note, or another process calls it

	firstAcked, secondAcked, emptied, dropped bool
}

func newDeleting(t *testing.T) *deleting {
	w := &deleting{t: t, other: storagetest.NewDevice("other").Segment(t, vault, twoOf3, 700, "o")}
	for seed, segment := range map[string]*storagetest.Segment{"a": &w.a, "b": &w.b, "c": &w.c, "late": &w.late} {
		*segment = device.Segment(t, vault, twoOf3, 1500, seed)
	}
	w.first = device.Deletion(t, vault, 1, w.a.Header.ID, w.late.Header.ID)
	w.second = device.Deletion(t, vault, 2, w.b.Header.ID)
	w.say = w.note
	return w
}

// note takes in one thing that happened.
func (w *deleting) note(event string) {
	switch event {
	case "first":
		w.firstAcked = true
	case "second":
		w.secondAcked = true
	case "emptying":
		w.emptied = true
	case "dropping":
		w.dropped = true
	default:
		w.t.Fatalf("event %q", event)
	}
}

// prepare stores what is to be deleted, before anything fails.
func (w *deleting) prepare(place storePlace) {
	s, err := place.open()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, shard := range []struct {
		segment storagetest.Segment
		index   int
	}{{w.a, 0}, {w.a, 1}, {w.b, 0}, {w.c, 0}, {w.other, 0}} {
		if err := storagetest.Put(w.t.Context(), s, shard.segment, shard.index, nil); err != nil {
			w.t.Fatal(err)
		}
	}
	_ = s.Close()
	w.firstAcked, w.secondAcked, w.emptied, w.dropped = false, false, false, false
}

// run does everything, or, when it is done again, only deletes. It ends early
// when all is gone.
func (w *deleting) run(place storePlace, again bool, gone func() bool) {
	s, err := place.open()
	if err != nil {
		return
	}
	defer s.Close()
	ctx := w.t.Context()
	known := func(err error) bool {
		if err != nil && !errors.Is(err, storage.ErrDisk) && !errors.Is(err, storage.ErrFull) {
			w.t.Errorf("error of no known kind: %v", err)
		}
		return err == nil
	}
	if known(s.PutDeletions(ctx, storagetest.RawDeletions(w.first))) {
		w.say("first")
	}
	_, err = s.EmptyTrash(ctx, false)
	known(err)
	if gone() {
		return
	}
	if known(s.PutDeletions(ctx, storagetest.RawDeletions(w.second))) {
		w.say("second")
	}
	_, err = s.NoteRemoved([]grid.OwnerID{device.Owner})
	known(err)
	if again || gone() {
		return
	}
	w.say("emptying")
	_, err = s.EmptyTrash(ctx, true)
	known(err)
	if gone() {
		return
	}
	w.say("dropping")
	_, err = s.DropOwner(ctx, device.Owner)
	known(err)
}

// check opens the files: what was acknowledged holds, and nothing else is gone.
func (w *deleting) check(place storePlace, when string) {
	t := w.t
	s, err := place.open()
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	defer s.Close()
	readable := func(what string, id storage.ShardID, want []byte) {
		if got, err := storagetest.Get(t.Context(), s, id, 0, -1); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: %s cannot be read: %v", when, what, err)
		}
	}
	readable("shard of another owner", w.other.ID(0), w.other.Shards[0])
	if !w.dropped {
		readable("shard that nobody deleted", w.c.ID(0), w.c.Shards[0])
	}
	if !w.emptied {
		for index := range 2 {
			readable("shard within its floor", w.a.ID(index), w.a.Shards[index])
		}
		readable("shard within its floor", w.b.ID(0), w.b.Shards[0])
	}
	state := func(id storage.SegmentID) storage.ShardState {
		answers, err := s.Have(t.Context(), []storage.SegmentID{id})
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if len(answers[0].Shards) == 0 {
			return storage.ShardNone
		}
		return answers[0].Shards[0].State
	}
	if w.firstAcked && !w.dropped {
		for _, segment := range []storagetest.Segment{w.a, w.late} {
			if err := storagetest.Put(t.Context(), s, segment, 2, nil); !errors.Is(err, storage.ErrDeleted) {
				t.Fatalf("%s: shard of a deleted segment: %v", when, err)
			}
		}
		if got := state(w.a.Header.ID); got != storage.ShardTrash && got != storage.ShardDeleted {
			t.Fatalf("%s: deleted segment is %s", when, got)
		}
	}
	if w.secondAcked && !w.dropped && state(w.b.Header.ID) == storage.ShardStored {
		t.Fatalf("%s: deleted segment is stored", when)
	}
	kept, err := s.Deletions(t.Context(), device.Owner, vault, 0)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	has := func(d storage.SignedDeletion) bool {
		return slices.ContainsFunc(kept, func(raw []byte) bool { return bytes.Equal(raw, d.Raw) })
	}
	if !w.emptied && (!has(w.second) && state(w.b.Header.ID) != storage.ShardStored || !has(w.first) && state(w.a.Header.ID) != storage.ShardStored) {
		t.Fatalf("%s: deleted without a deletion", when)
	}
	if got, want := s.Stats().Bytes, place.sizes(); got != want {
		t.Fatalf("%s: accounts have %d bytes, files %d", when, got, want)
	}
	for _, problem := range s.Problems() {
		if problem.What != "file of deletions is damaged" { // a torn tail
			t.Fatalf("%s: %+v", when, problem)
		}
	}
	if err := storagetest.Put(t.Context(), s, w.other, 1, nil); err != nil && !errors.Is(err, storage.ErrExists) {
		t.Fatalf("%s: store takes nothing any more: %v", when, err)
	}
}

// sizes returns the bytes of all files that count.
func (c *crashFS) sizes() (size int64) {
	c.root.walk(false, "", func(name string, n *inode) {
		if !n.dir && strings.Contains(name, "/") {
			size += int64(len(n.data))
		}
	})
	return size
}

// TestEveryOperationOfDeletingFails fails each operation in turn, once or from
// then on, and kills or cuts the power in different ways afterwards; then all is
// done again on what is left.
func TestEveryOperationOfDeletingFails(t *testing.T) {
	w := newDeleting(t)
	for _, mode := range []struct {
		name string
		err  error
		all  bool
	}{{"EIO", syscall.EIO, false}, {"ENOSPC", syscall.ENOSPC, false}, {"power cut", syscall.EIO, true}} {
		seen := 0
		for n := 1; ; n++ {
			files := newCrashFS()
			w.prepare(files)
			files.failAt, files.failErr, files.failAll = files.ops+n, mode.err, mode.all
			w.run(files, false, func() bool { return files.failAll && files.failed != "" })
			failed := files.failed
			files.failAt, files.failAll, files.locked = 0, false, false
			when := fmt.Sprintf("%s at operation %d (%s)", mode.name, n, failed)
			for seed := range uint64(4) {
				w.check(files.crash(rand.New(rand.NewPCG(seed, uint64(n)))), when+fmt.Sprint(" seed ", seed))
			}
			w.check(files.crash(nil), when)
			w.check(files, when+", killed")
			w.firstAcked, w.secondAcked = false, false
			w.run(files, true, func() bool { return false })
			if !w.firstAcked || !w.secondAcked {
				t.Fatalf("%s: not acknowledged when done again", when)
			}
			files.locked = false
			w.check(files.crash(nil), when+", done again")
			if failed == "" {
				break
			}
			seen++
		}
		if seen < 20 {
			t.Errorf("%s: only %d operations were made to fail", mode.name, seen)
		}
	}
}
