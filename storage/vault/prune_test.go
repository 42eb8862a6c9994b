package vault

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"encoding/binary"

	"gotong/grid"
	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/seal"
)

// tree stores files as one directory and makes a snapshot of them.
func (f *fixture) tree(files map[string][]byte) Result {
	f.t.Helper()
	result, err := f.tryTree(files)
	if err != nil {
		f.t.Fatal(err)
	}
	return result
}

func (f *fixture) tryTree(files map[string][]byte) (Result, error) {
	s, err := f.v.Begin(context.Background())
	if err != nil {
		return Result{}, err
	}
	defer s.Abort()
	return commitTree(s, files)
}

func commitTree(s *Session, files map[string][]byte) (Result, error) {
	root, err := storeTree(s, files)
	if err != nil {
		return Result{}, err
	}
	return s.Commit(Snapshot{Created: time.Now(), Root: root})
}

func storeTree(s *Session, files map[string][]byte) (Ref, error) {
	w, err := s.NewWriter()
	if err != nil {
		return Ref{}, err
	}
	var dir Listing
	for _, name := range slices.Sorted(maps.Keys(files)) {
		object, err := w.Put(bytes.NewReader(files[name]), int64(len(files[name])))
		if err != nil {
			return Ref{}, err
		}
		if err := appendNode(w, &dir, &vaultv1.Node{Name: []byte(name), Type: vaultv1.Node_FILE, Size: object.Ref.Size, Content: object.Ref.Proto()}); err != nil {
			return Ref{}, err
		}
	}
	below, err := w.Finish(&dir)
	if err != nil {
		return Ref{}, err
	}
	var root Listing
	if err := appendNode(w, &root, &vaultv1.Node{Name: []byte("dir"), Type: vaultv1.Node_DIRECTORY, Content: below.Proto()}); err != nil {
		return Ref{}, err
	}
	return w.Finish(&root)
}

func appendNode(w *Writer, l *Listing, n *vaultv1.Node) error {
	b, err := proto.Marshal(n)
	if err != nil {
		return err
	}
	return w.Append(l, append(binary.AppendUvarint(nil, uint64(len(b))), b...))
}

// readTree reads the files of a snapshot.
func (f *fixture) readTree(name string) (map[string][]byte, error) {
	ctx := context.Background()
	s, err := f.v.Find(ctx, name)
	if err != nil {
		return nil, err
	}
	r, err := f.v.NewReader(ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	files := map[string][]byte{}
	var visit func(ref Ref) error
	visit = func(ref Ref) error {
		var nodes []*vaultv1.Node
		cut := nodeCutter{fn: func(n *vaultv1.Node) error {
			nodes = append(nodes, proto.Clone(n).(*vaultv1.Node))
			return nil
		}}
		if err := r.WriteObject(&cut, ref); err != nil {
			return err
		}
		for _, n := range nodes {
			content, err := RefOf(n.Content)
			if err != nil {
				return err
			}
			if n.Type == vaultv1.Node_DIRECTORY {
				if err := visit(content); err != nil {
					return err
				}
				continue
			}
			var b bytes.Buffer
			if err := r.WriteObject(&b, content); err != nil {
				return err
			}
			files[string(n.Name)] = b.Bytes()
		}
		return nil
	}
	return files, visit(s.Root)
}

func (f *fixture) checkTree(id SnapshotID, want map[string][]byte) {
	f.t.Helper()
	got, err := f.readTree(id.String())
	if err != nil {
		f.t.Errorf("snapshot %s: %v", id.Short(), err)
		return
	}
	if !maps.EqualFunc(got, want, bytes.Equal) {
		f.t.Errorf("snapshot %s came back different: %d of %d files", id.Short(), len(got), len(want))
	}
}

func (f *fixture) forget(ids ...SnapshotID) {
	f.t.Helper()
	if err := f.v.Forget(context.Background(), ids); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) prune(o PruneOptions) PruneResult {
	f.t.Helper()
	result, err := f.v.Prune(context.Background(), o)
	if err != nil {
		f.t.Fatal(err)
	}
	return result
}

// checkIndexAnew makes the index anew and reads all snapshots by it.
func (f *fixture) checkIndexAnew(trees map[SnapshotID]map[string][]byte) {
	f.t.Helper()
	f.close()
	if err := os.Remove(filepath.Join(f.dir, indexName)); err != nil {
		f.t.Fatal(err)
	}
	f.open()
	f.checkTrees(trees)
}

func (f *fixture) checkTrees(trees map[SnapshotID]map[string][]byte) {
	f.t.Helper()
	all, err := f.v.Snapshots(context.Background())
	if err != nil || len(all) != len(trees) {
		f.t.Errorf("%d snapshots, want %d: %v", len(all), len(trees), err)
	}
	for id, want := range trees {
		f.checkTree(id, want)
	}
}

func someFiles(seeds ...byte) map[string][]byte {
	files := map[string][]byte{}
	for _, seed := range seeds {
		files[string('a'+rune(seed))] = randomBytes(seed, 300<<10+int(seed)*1000)
	}
	return files
}

// TestPruneDropsAndCopies: what no snapshot needs goes, what is mostly unused is
// copied, and all that is kept reads as before, by the index and without it.
func TestPruneDropsAndCopies(t *testing.T) {
	f := newFixture(t)
	trees := map[SnapshotID]map[string][]byte{}
	var ids []SnapshotID
	for i := range byte(6) {
		// Each has ten files of its own and one that all later ones keep.
		files := someFiles(200)
		for j := range byte(10) {
			maps.Copy(files, someFiles(10*i+j))
		}
		for j := range i {
			maps.Copy(files, someFiles(10*j))
		}
		id := f.tree(files).Snapshot.ID
		trees[id] = files
		ids = append(ids, id)
	}
	before := f.segments.bytes()
	f.forget(ids[1], ids[2], ids[3])
	for _, id := range ids[1:4] {
		delete(trees, id)
	}
	dry := f.prune(PruneOptions{DryRun: true})
	result := f.prune(PruneOptions{})
	if dry.Repacked != result.Repacked || dry.Dropped != result.Dropped || result.Repacked == 0 || result.Waste == 0 || result.WasteLeft != 0 || result.Freed < 8<<20 || dry.Freed < 8<<20 {
		t.Errorf("dry %+v, then %+v", dry, result)
	}
	if result.Deletions != (Deletions{}) {
		t.Errorf("all members acknowledged, yet %+v", result.Deletions)
	}
	f.segments.emptyTrash()
	if after := f.segments.bytes(); after > before-8<<20 {
		t.Errorf("%d bytes stored after %d", after, before)
	}
	f.checkTrees(trees)
	f.checkIndexAnew(trees)
	if again := f.prune(PruneOptions{}); again.Dropped+again.Repacked != 0 {
		t.Errorf("pruned again: %+v", again)
	}
	seq := f.v.Head().Seq
	if again := f.prune(PruneOptions{}); again.Dropped+again.Repacked != 0 || f.v.Head().Seq != seq {
		t.Errorf("nothing to do, yet %+v and head %d after %d", again, f.v.Head().Seq, seq)
	}
	f.forget(slices.Collect(maps.Keys(trees))...)
	f.prune(PruneOptions{})
	if n := len(f.segments.segments); n != 1 {
		t.Errorf("%d segments of an empty vault", n)
	}
	id := f.tree(someFiles(1)).Snapshot.ID
	f.segments.emptyTrash()
	f.checkTree(id, someFiles(1))
}

// TestPruneToleratesWaste copies only as much as it takes.
func TestPruneToleratesWaste(t *testing.T) {
	f := newFixture(t)
	first := f.tree(someFiles(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)).Snapshot.ID
	second := f.tree(someFiles(2, 3, 4, 5, 6, 7, 8, 9, 10)).Snapshot.ID
	f.forget(first)
	if result := f.prune(PruneOptions{MaxWaste: 0.5}); result.Repacked != 0 || result.WasteLeft == 0 {
		t.Errorf("%+v", result)
	}
	f.forget() // nothing
	f.tree(someFiles(2))
	f.forget(second)
	if result := f.prune(PruneOptions{MaxWaste: 0.5}); result.Repacked == 0 || result.WasteLeft != 0 {
		t.Errorf("%+v", result)
	}
}

// TestManySmallPacksAreJoined: each small backup makes small packs.
func TestManySmallPacksAreJoined(t *testing.T) {
	f := newFixture(t)
	trees := map[SnapshotID]map[string][]byte{}
	for i := range maxSmallPacks + 8 {
		files := map[string][]byte{"x": {byte(i)}}
		trees[f.tree(files).Snapshot.ID] = files
	}
	if result := f.prune(PruneOptions{MaxWaste: DefaultMaxWaste}); result.Repacked < maxSmallPacks {
		t.Errorf("%+v", result)
	}
	f.segments.emptyTrash()
	if n := len(f.segments.segments); n > 4 {
		t.Errorf("%d segments", n)
	}
	f.checkIndexAnew(trees)
}

// TestPruneLeavesWhatAnInterruptedBackupStored for a day, and drops it then.
func TestPruneLeavesWhatAnInterruptedBackupStored(t *testing.T) {
	f := newFixture(t)
	f.tree(someFiles(1))
	now := time.Now()
	f.v.now = func() time.Time { return now }
	s, err := f.v.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Put(bytes.NewReader(randomBytes(99, 20<<20)), 20<<20); err != nil {
		t.Fatal(err)
	}
	if err := s.drain(); err != nil {
		t.Fatal(err)
	}
	s.Abort()
	id := f.tree(someFiles(2)).Snapshot.ID
	f.forget(id)
	f.prune(PruneOptions{})
	if f.segments.bytes() < 20<<20 {
		t.Error("what a backup may go on with is gone")
	}
	now = now.Add(safeAge + 2*time.Hour)
	f.prune(PruneOptions{}) // notes the age of what is there
	now = now.Add(safeAge + 2*time.Hour)
	if result := f.prune(PruneOptions{}); result.Dropped == 0 {
		t.Errorf("%+v", result)
	}
	if n := f.segments.bytes(); n > 4<<20 {
		t.Errorf("%d bytes are left", n)
	}
}

// TestOrphansAreDeleted: segments that holders have and nothing here knows.
func TestOrphansAreDeleted(t *testing.T) {
	f := newFixture(t)
	id := f.tree(someFiles(1)).Snapshot.ID
	for i := range byte(3) {
		if _, err := f.segments.Put(context.Background(), randomBytes(i, 5000)); err != nil {
			t.Fatal(err)
		}
	}
	if result := f.prune(PruneOptions{}); result.Orphans != 0 {
		t.Errorf("young ones were taken: %+v", result)
	}
	f.v.now = func() time.Time { return time.Now().Add(2 * safeAge) }
	if result := f.prune(PruneOptions{}); result.Orphans != 3 {
		t.Errorf("%+v", result)
	}
	if known := len(f.segmentInfos()); len(f.segments.segments) != known {
		t.Errorf("%d segments, %d are needed", len(f.segments.segments), known)
	}
	f.checkTree(id, someFiles(1))
}

// TestDeletionsWaitForTheHead and are sent until all have them.
func TestDeletionsWaitForTheHead(t *testing.T) {
	f := newFixture(t)
	id := f.tree(someFiles(1, 2, 3)).Snapshot.ID
	f.tree(someFiles(4))
	f.forget(id)
	f.segments.fault = func(op string) error {
		if op == "publish" {
			return errFault
		}
		return nil
	}
	result := f.prune(PruneOptions{})
	if result.Deletions.Held == 0 || result.Deletions.Sent != 0 || len(f.segments.batches) != 0 {
		t.Errorf("deleted before the head is out: %+v", result)
	}
	f.segments.fault, f.segments.silent = nil, []grid.PeerID{{9}}
	f.reopen()
	if err := f.v.SendDeletions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := f.v.PendingDeletions(); err != nil || d.Held != 0 || d.Sent == 0 || len(f.segments.batches) != d.Sent {
		t.Errorf("%+v, %v, %d batches", d, err, len(f.segments.batches))
	}
	sent := len(f.segments.batches)
	f.segments.silent = nil
	f.reopen()
	if err := f.v.SendDeletions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := f.v.PendingDeletions(); err != nil || d != (Deletions{}) || len(f.segments.batches) != sent {
		t.Errorf("%+v, %v, %d batches after %d", d, err, len(f.segments.batches), sent)
	}
	numbers := map[uint64]bool{}
	for _, d := range f.segments.batches {
		numbers[d.Number] = true
	}
	if len(numbers) != sent {
		t.Error("two batches of one number")
	}
}

func TestWriteOnlyDeviceDeletesNothing(t *testing.T) {
	f := newFixture(t)
	id := f.tree(someFiles(1)).Snapshot.ID
	f.v.secrets = f.v.secrets.WithoutRead()
	if _, err := f.v.Prune(t.Context(), PruneOptions{}); !errors.Is(err, seal.ErrNoReadKey) {
		t.Errorf("prune without the read key: %v", err)
	}
	f.v.config.Grant = writeOnlyGrant
	if _, err := f.v.Prune(t.Context(), PruneOptions{}); !errors.Is(err, ErrMayNotDelete) {
		t.Errorf("prune: %v", err)
	}
	if err := f.v.Forget(t.Context(), []SnapshotID{id}); !errors.Is(err, ErrMayNotDelete) {
		t.Errorf("forget: %v", err)
	}
	f.tree(someFiles(1))
	if d, err := f.v.PendingDeletions(); err != nil || d != (Deletions{}) || f.v.SendDeletions(t.Context()) != nil {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestForgetNamesWhatIsThere(t *testing.T) {
	f := newFixture(t)
	id := f.tree(someFiles(1)).Snapshot.ID
	seq := f.v.Head().Seq
	if err := f.v.Forget(t.Context(), []SnapshotID{id, {1}}); !errors.Is(err, ErrNoSnapshot) || f.v.Head().Seq != seq {
		t.Errorf("%v", err)
	}
	f.forget(id)
	if info, err := f.v.Info(t.Context()); err != nil || info.Snapshots != 0 || !info.Newest.IsZero() || info.Number != seq+1 {
		t.Errorf("%+v, %v", info, err)
	}
}

// TestABatchIsFoundWhileItIsSigned: it goes from one place to the other while
// somebody looks through both.
func TestABatchIsFoundWhileItIsSigned(t *testing.T) {
	f := newFixture(t)
	sign := func(number uint64) {
		if err := f.v.signBatch(number); err != nil {
			t.Fatal(err)
		}
	}
	for number := uint64(1); number < 40; number++ {
		id := storage.SegmentID{byte(number)}
		if _, err := f.v.deletions.hold(number-1, []storage.SegmentID{id}); err != nil {
			t.Fatal(err)
		}
		found, signed := false, false
		if err := f.v.deletions.each(func(ids []storage.SegmentID) {
			if found = found || slices.Contains(ids, id); !found && !signed {
				sign(number)
				signed = true
			}
		}); err != nil {
			t.Fatal(err)
		}
		if !found {
			t.Errorf("batch %d was missed", number)
		}
		if !signed {
			sign(number)
		}
	}
}

// TestPruneDropsWhatWasLostAndIsStoredAnew: however little it is, and though older
// snapshots name it.
func TestPruneDropsWhatWasLostAndIsStoredAnew(t *testing.T) {
	f := newFixture(t)
	files := map[string][]byte{"big": randomBytes(1, 24<<20), "small": randomBytes(2, 1<<20)}
	first := f.tree(files).Snapshot.ID
	infos := f.segmentInfos()
	var gone storage.SegmentID // the fullest: the listing is in the last one
	for id, info := range infos {
		if info.Bytes > infos[gone].Bytes {
			gone = id
		}
	}
	f.observe(Observation{ID: gone, Lost: true})
	delete(f.segments.segments, gone)
	if r := f.prune(PruneOptions{}); r.Dropped != 0 {
		t.Errorf("%d segments were dropped before anything is stored anew", r.Dropped)
	}
	second := f.tree(files).Snapshot.ID
	if r := f.prune(PruneOptions{}); r.Dropped == 0 {
		t.Errorf("%+v", r)
	}
	if _, there := f.segmentInfos()[gone]; there {
		t.Error("the lost segment is still in the catalogue")
	}
	f.checkTree(first, files)
	f.checkTree(second, files)
}
