package vault

import (
	"errors"
	"maps"
	"testing"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// TestRenewDeletions: after a vault was taken over, what the other device deleted is
// deleted once more for holders that missed it, but nothing that the vault needs.
func TestRenewDeletions(t *testing.T) {
	f := newFixture(t)
	gone, kept := f.tree(someFiles(1, 2)).Snapshot.ID, f.tree(someFiles(3, 4)).Snapshot.ID
	f.forget(gone)
	f.prune(PruneOptions{safeAge: 1})
	late := maps.Clone(f.segments.trash)
	if len(late) == 0 || len(f.segments.batches) == 0 {
		t.Fatalf("%d segments in the trash, %d batches", len(late), len(f.segments.batches))
	}
	f.close()
	// The other device also deleted what the vault needs; nobody has heard of that yet.
	var needed storage.SegmentID
	for id := range f.segments.segments {
		needed = id
	}
	thief, err := storage.SignDeletion(f.config.Node, storage.Deletion{Vault: storage.VaultID{7}, Owner: f.config.Owner, Number: 9,
		Created: time.Now(), Grant: f.config.Grant(), Segments: []storage.SegmentID{needed}})
	if err != nil {
		t.Fatal(err)
	}
	f.segments.batches[thief.ID] = thief
	maps.Copy(f.segments.segments, late) // a holder that was away is back
	f.segments.emptyTrash()

	take := f.takeOver(2)
	f.dir = t.TempDir()
	if err := Adopt(f.dir, testSecrets(t), take); err != nil {
		t.Fatal(err)
	}
	f.config.Node, f.config.Grant = take.Node, func() []byte { return take.Grant }
	f.open()
	if err := f.v.Rescue(t.Context()); err != nil {
		t.Fatal(err)
	}
	rescued := len(f.segments.trash)
	f.segments.silent = []grid.PeerID{{1}, {2}}
	if err := f.v.RenewDeletions(t.Context()); !errors.Is(err, storage.ErrTooFewPeers) {
		t.Errorf("with too few members: %v", err)
	}
	f.segments.silent = nil
	for range 2 {
		seq := f.v.Head().Seq
		if err := f.v.RenewDeletions(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := f.v.SendDeletions(t.Context()); err != nil {
			t.Fatal(err)
		}
		for id := range late {
			if _, ok := f.segments.trash[id]; !ok {
				t.Errorf("segment %s is not deleted (head %d)", id.Short(), seq)
			}
		}
		if len(f.segments.trash) != rescued+len(late) {
			t.Errorf("%d segments in the trash, %d were deleted", len(f.segments.trash), len(late))
		}
	}
	seq := f.v.Head().Seq
	if err := f.v.RenewDeletions(t.Context()); err != nil || f.v.Head().Seq != seq {
		t.Errorf("renewed again: %v", err)
	}
	f.segments.emptyTrash()
	f.checkTrees(map[SnapshotID]map[string][]byte{kept: someFiles(3, 4)})
}
