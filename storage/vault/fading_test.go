package vault

import (
	"crypto/ed25519"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
)

// TestWhatIsOnlyInTheTrashIsCopied: a new device goes on from the head before
// everything was forgotten and pruned. A prune makes what it needs durable
// again, before the holders empty their trash, also after a backup.
func TestWhatIsOnlyInTheTrashIsCopied(t *testing.T) {
	for _, backup := range []bool{false, true} {
		f := newFixture(t)
		first := f.tree(someFiles(1, 2, 3)).Snapshot.ID
		second := f.tree(someFiles(3, 4)).Snapshot.ID
		good := f.v.Head()
		f.forget(first, second)
		f.prune(PruneOptions{})
		trees := map[SnapshotID]map[string][]byte{first: someFiles(1, 2, 3), second: someFiles(3, 4)}

		f.close()
		fresh := t.TempDir()
		owner, node := ed25519.NewKeyFromSeed(make([]byte, 32)), ed25519.NewKeyFromSeed(append(make([]byte, 31), 2))
		grant := identity.SignDelegation(owner, identity.Delegation{
			Peer: grid.PeerIDOf(node.Public().(ed25519.PublicKey)), Capabilities: grid.CapAll, Epoch: 2, Created: time.Unix(1e9, 0),
		}).Encode()
		err := Adopt(fresh, testSecrets(t), TakeOver{Node: node, Owner: f.config.Owner, Grant: grant, Floor: time.Hour, Links: f.segments.heads, State: good})
		if err != nil {
			t.Fatal(err)
		}
		f.dir, f.config.Node, f.config.Grant = fresh, node, func() []byte { return grant }
		f.open()
		f.checkTrees(trees)
		if result := f.prune(PruneOptions{MaxWaste: 1, DryRun: true}); result.Repacked == 0 {
			t.Errorf("%+v", result)
		}
		if backup {
			trees[f.tree(someFiles(1, 4)).Snapshot.ID] = someFiles(1, 4)
		}
		if err := f.v.Rescue(t.Context()); err != nil {
			t.Fatal(err)
		}
		seq := f.v.Head().Seq
		if err := f.v.Rescue(t.Context()); err != nil || f.v.Head().Seq != seq {
			t.Errorf("rescued again: %v", err)
		}
		f.segments.emptyTrash()
		f.checkTrees(trees)
		f.checkIndexAnew(trees)
		if report := f.check(CheckOptions{ReadData: 1}); !report.OK() || report.Degraded > 0 {
			t.Errorf("%+v", report)
		}
		if result := f.prune(PruneOptions{}); result.Rescued != 0 {
			t.Errorf("again: %+v", result)
		}
		f.close()
	}
}
