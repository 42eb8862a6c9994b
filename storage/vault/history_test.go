package vault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func (f *fixture) history() map[SnapshotID]HistoricSnapshot {
	f.t.Helper()
	list, err := f.v.AllSnapshots(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	if !slices.IsSortedFunc(list, func(a, b HistoricSnapshot) int { return a.Created.Compare(b.Created) }) {
		f.t.Error("not in order")
	}
	all := map[SnapshotID]HistoricSnapshot{}
	for _, s := range list {
		all[s.ID] = s
	}
	return all
}

// TestForgottenSnapshotsComeBack as long as holders keep what was deleted, also
// with nothing but the heads.
func TestForgottenSnapshotsComeBack(t *testing.T) {
	f := newFixture(t)
	first := f.tree(someFiles(1, 2, 3)).Snapshot.ID
	second := f.tree(someFiles(3, 4)).Snapshot.ID
	f.forget(first)
	if all := f.history(); len(all) != 2 || !all[first].Forgotten || all[first].Head != 2 || all[second].Forgotten || all[second].Head != 3 {
		t.Errorf("forgotten: %+v", all)
	}
	f.checkTree(first, someFiles(1, 2, 3))
	f.prune(PruneOptions{})
	f.tree(someFiles(5))
	for _, lost := range []string{"nothing", indexName, headsName} {
		f.lose(func() error {
			if lost == "nothing" {
				return nil
			}
			return os.RemoveAll(filepath.Join(f.dir, lost))
		})
		if all := f.history(); len(all) != 3 || !all[first].Forgotten || all[first].Head != 2 {
			t.Errorf("%s lost: %+v", lost, all)
		}
		f.checkTree(first, someFiles(1, 2, 3))
		f.checkTree(second, someFiles(3, 4))
		if _, err := f.v.Find(t.Context(), first.String()[:12]); err != nil {
			t.Error(err)
		}
		if _, err := f.v.Find(t.Context(), first.String()[:4]); !errors.Is(err, ErrNoSnapshot) {
			t.Errorf("a forgotten one by four digits: %v", err)
		}
	}
	f.segments.emptyTrash()
	if all := f.history(); len(all) != 2 {
		t.Errorf("after the floor: %+v", all)
	}
	if _, err := f.v.Find(t.Context(), first.String()); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("after the floor: %v", err)
	}
}

// TestNothingIsLostWithinTheFloor: whoever has the device and all its keys
// forgets and prunes everything and buries that under many heads.
func TestNothingIsLostWithinTheFloor(t *testing.T) {
	f := newFixture(t)
	trees := map[SnapshotID]map[string][]byte{}
	var ids []SnapshotID
	for i := range byte(3) {
		files := someFiles(i, i+1, i+2)
		id := f.tree(files).Snapshot.ID
		trees[id] = files
		ids = append(ids, id)
	}
	f.forget(ids...)
	f.prune(PruneOptions{})
	for i := range keptHeads/2 + 5 {
		id := f.tree(map[string][]byte{"junk": []byte(fmt.Sprint(i))}).Snapshot.ID
		f.forget(id)
	}
	f.close()
	fresh := t.TempDir()
	if err := Mirror(fresh, testSecrets(t), f.segments.heads); err != nil {
		t.Fatal(err)
	}
	f.dir = fresh
	f.open()
	all := f.history()
	for id, files := range trees {
		if !all[id].Forgotten {
			t.Errorf("snapshot %s is not shown", id.Short())
		}
		f.checkTree(id, files)
	}
}

// TestRollbackIsRefused: a disk that lost its heads does not believe peers that
// know less than it told them.
func TestRollbackIsRefused(t *testing.T) {
	f := newFixture(t)
	f.backup([]byte("one"))
	f.backup([]byte("two"))
	f.backup([]byte("three"))
	heads := f.segments.heads
	f.segments.heads = heads[:1]
	f.lose(func() error { return os.RemoveAll(filepath.Join(f.dir, headsName)) })
	if _, err := f.v.Snapshots(t.Context()); !errors.Is(err, ErrRollback) {
		t.Errorf("read: %v", err)
	}
	if _, _, err := f.tryBackup([]byte("four")); !errors.Is(err, ErrRollback) {
		t.Errorf("backup: %v", err)
	}
	f.segments.heads = heads
	f.snapshots(3)
	f.backup([]byte("four"))
}

// TestTwoVaultsOfOneOwner on the same friends: neither takes anything of the
// other's for its own.
func TestTwoVaultsOfOneOwner(t *testing.T) {
	a := newFixture(t)
	b := newFixtureOf(t, 8, a.segments)
	ofA, ofB := a.tree(someFiles(1, 2)).Snapshot.ID, b.tree(someFiles(2, 3)).Snapshot.ID
	forgotten := b.tree(someFiles(2, 9)).Snapshot.ID
	b.forget(forgotten)
	for range 3 {
		a.prune(PruneOptions{safeAge: 1})
		b.prune(PruneOptions{safeAge: 1})
	}
	a.segments.emptyTrash()
	a.checkIndexAnew(map[SnapshotID]map[string][]byte{ofA: someFiles(1, 2)})
	b.checkIndexAnew(map[SnapshotID]map[string][]byte{ofB: someFiles(2, 3)})
	if _, ok := a.history()[ofB]; ok {
		t.Error("one vault shows the snapshots of the other")
	}
}
