package vault

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// world is a vault with what it ought to hold.
type world struct {
	*fixture
	rnd     *rand.Rand
	clock   time.Time
	want    map[SnapshotID]map[string][]byte
	session *Session // that runs meanwhile; nil: none
	root    Ref
	files   map[string][]byte
	log     []string
}

func (w *world) note(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

// some returns a few of a small pool of files, so that snapshots share much.
func (w *world) some() map[string][]byte {
	files := map[string][]byte{}
	for range 1 + w.rnd.IntN(6) {
		i := byte(w.rnd.IntN(14))
		files[fmt.Sprint("f", i)] = randomBytes(i, 2000+100*int(i))
	}
	return files
}

func (w *world) step() {
	defer func() { w.clock = w.clock.Add(time.Duration(w.rnd.IntN(20)) * time.Hour) }()
	switch w.rnd.IntN(9) {
	case 0, 1:
		if w.session != nil {
			w.commit()
			return
		}
		files := w.some()
		result, err := w.tryTree(files)
		if err != nil {
			w.t.Fatalf("backup: %v", err)
		}
		w.note("backup %s of %v", result.Snapshot.ID.Short(), slices.Sorted(maps.Keys(files)))
		w.want[result.Snapshot.ID] = files
	case 2:
		if w.session == nil {
			w.begin()
		}
	case 3:
		if w.session != nil {
			w.note("abort")
			w.session.Abort()
			w.session = nil
		}
	case 4:
		w.forgetSome()
	case 5, 6:
		w.note("prune")
		if _, err := w.v.Prune(w.t.Context(), w.options()); err != nil {
			w.t.Fatalf("prune: %v", err)
		}
	case 7:
		w.kill()
	case 8:
		w.loseIndex()
	}
	w.segments.emptyTrash()
	w.checkAll()
}

func (w *world) options() PruneOptions {
	return PruneOptions{MaxWaste: []float64{0, 0.1, 0.5, 1}[w.rnd.IntN(4)]}
}

// begin starts a session and stores files in it, so that it counts on what is
// there, and on what it stored.
func (w *world) begin() {
	s, err := w.v.Begin(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.files = w.some()
	if w.root, err = storeTree(s, w.files); err != nil {
		w.t.Fatal(err)
	}
	s.asking.Wait() // kill changes what answers
	w.session = s
	w.note("begin with %v", slices.Sorted(maps.Keys(w.files)))
}

func (w *world) commit() {
	s := w.session
	w.session = nil
	result, err := s.Commit(Snapshot{Created: w.clock, Root: w.root})
	if err != nil {
		w.t.Fatalf("commit: %v", err)
	}
	w.note("commit %s", result.Snapshot.ID.Short())
	w.want[result.Snapshot.ID] = w.files
}

func (w *world) forgetSome() {
	var ids []SnapshotID
	for id := range w.want {
		if w.rnd.IntN(3) == 0 {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		w.note("forget %s", id.Short())
		delete(w.want, id)
	}
	w.forget(ids...)
}

// kill stops the process somewhere inside an operation: disk and holders are as
// they were at that moment.
func (w *world) kill() {
	var frozen *fakeSegments
	dir := w.t.TempDir()
	left := w.rnd.IntN(12)
	var mu sync.Mutex
	freeze := func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		if left--; left == -1 {
			w.note("killed at %s", op)
			frozen = w.segments.clone()
			if err := os.CopyFS(dir, os.DirFS(w.dir)); err != nil {
				w.t.Error(err)
			}
		}
		return nil
	}
	want := maps.Clone(w.want)
	w.segments.fault = freeze
	w.v.files = faultyFiles{fault: func(op string) error {
		w.segments.mu.Lock()
		defer w.segments.mu.Unlock()
		return freeze(op)
	}}
	w.v.heads.files, w.v.deletions.files = w.v.files, w.v.files
	var perhaps SnapshotID
	switch w.rnd.IntN(3) {
	case 0:
		if w.session != nil {
			w.commit()
		} else if result, err := w.tryTree(w.some()); err == nil {
			perhaps = result.Snapshot.ID
		}
	case 1:
		w.note("prune, to be killed")
		if _, err := w.v.Prune(w.t.Context(), w.options()); err != nil {
			w.t.Fatalf("prune: %v", err)
		}
	case 2:
		w.forgetSome()
	}
	w.segments.fault = nil
	if w.session != nil {
		w.session.Abort()
		w.session = nil
	}
	w.close()
	if frozen != nil {
		w.segments.restore(frozen)
		w.dir = dir
	}
	w.open()
	w.v.now = func() time.Time { return w.clock }
	// What was being made or forgotten at that moment may be there or not.
	all, err := w.v.Snapshots(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	there := map[SnapshotID]bool{}
	for _, s := range all {
		there[s.ID] = true
	}
	for id, files := range want {
		if _, still := w.want[id]; still && !there[id] {
			w.t.Errorf("snapshot %s is gone after a kill", id.Short())
		}
		if there[id] {
			w.want[id] = files
		}
	}
	for id := range w.want {
		if _, before := want[id]; !before && !there[id] {
			delete(w.want, id) // that commit was killed
		}
	}
	if there[perhaps] {
		files, err := w.readTree(perhaps.String())
		if err != nil {
			w.t.Errorf("snapshot of the killed backup: %v", err)
		}
		w.want[perhaps] = files
	}
}

func (w *world) loseIndex() {
	if w.session != nil {
		w.session.Abort()
		w.session = nil
	}
	w.note("index lost")
	w.close()
	if err := os.Remove(filepath.Join(w.dir, indexName)); err != nil {
		w.t.Fatal(err)
	}
	w.open()
	w.v.now = func() time.Time { return w.clock }
}

func (w *world) checkAll() {
	w.t.Helper()
	w.checkTrees(w.want)
	if w.t.Failed() {
		w.t.Fatalf("after %q", w.log)
	}
}

func (f *fakeSegments) clone() *fakeSegments {
	return &fakeSegments{segments: maps.Clone(f.segments), trash: maps.Clone(f.trash), created: maps.Clone(f.created),
		heads: slices.Clone(f.heads), batches: maps.Clone(f.batches)}
}

func (f *fakeSegments) restore(g *fakeSegments) {
	f.segments, f.trash, f.created, f.heads, f.batches = g.segments, g.trash, g.created, g.heads, g.batches
}

// TestNothingNeededIsEverPruned interleaves backups, forget, prune, kills and
// lost indexes at random, with holders that empty their trash at once. In the
// end nothing is left that nobody needs.
func TestNothingNeededIsEverPruned(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			f := newFixture(t)
			w := &world{fixture: f, rnd: rand.New(rand.NewPCG(seed, 1)), clock: time.Now(), want: map[SnapshotID]map[string][]byte{}}
			f.segments.now = func() time.Time { return w.clock }
			f.v.now = func() time.Time { return w.clock }
			for range 25 {
				w.step()
			}
			if w.session != nil {
				w.commit()
			}
			for range 4 {
				w.clock = w.clock.Add(2 * safeAge)
				if _, err := w.v.Prune(t.Context(), PruneOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			w.segments.emptyTrash()
			w.checkAll()
			if needed := len(w.segmentInfos()); needed != len(w.segments.segments) {
				t.Errorf("%d segments are needed, %d stored, after %q", needed, len(w.segments.segments), w.log)
			}
			if report := w.check(CheckOptions{ReadData: 1}); !report.OK() {
				t.Errorf("%+v after %q", report, w.log)
			}
		})
	}
}

// TestPruneBesideBackups runs both at once, over and over.
func TestPruneBesideBackups(t *testing.T) {
	f := newFixture(t)
	var mu sync.Mutex
	want := map[SnapshotID]map[string][]byte{}
	var group sync.WaitGroup
	group.Go(func() {
		rnd := rand.New(rand.NewPCG(1, 2))
		for range 25 {
			files := map[string][]byte{}
			for range 5 {
				i := byte(rnd.IntN(20))
				files[fmt.Sprint("f", i)] = randomBytes(i, 3000)
			}
			result, err := f.tryTree(files)
			if err != nil {
				t.Errorf("backup: %v", err)
				return
			}
			mu.Lock()
			want[result.Snapshot.ID] = files
			mu.Unlock()
		}
	})
	group.Go(func() {
		rnd := rand.New(rand.NewPCG(3, 4))
		for range 25 {
			mu.Lock()
			var ids []SnapshotID
			for id := range want {
				if rnd.IntN(3) == 0 {
					ids = append(ids, id)
					delete(want, id)
				}
			}
			mu.Unlock()
			if err := f.v.Forget(t.Context(), ids); err != nil {
				t.Errorf("forget: %v", err)
			}
			if _, err := f.v.Prune(t.Context(), PruneOptions{}); err != nil && !errors.Is(err, errNotCondemned) {
				t.Errorf("prune: %v", err)
			}
			f.segments.emptyTrash()
		}
	})
	group.Wait()
	f.segments.emptyTrash()
	f.checkTrees(want)
	f.checkIndexAnew(want)
}
