package gridtest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/gridtest"
	"gotong/grid/identity"
	"gotong/grid/node"
	controlv1 "gotong/proto/control/v1"
)

// source makes a small tree and returns its directory.
func source(t *testing.T, texts ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, string(rune('a'+i))), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// wantFile fails the test unless a restored file has this text.
func wantFile(t *testing.T, target, dir, name, text string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(target, dir, name))
	if err != nil || string(got) != text {
		t.Errorf("restored %s as %q, %v", name, got, err)
	}
}

func kindOf(err error) controlv1.Kind {
	var f *node.Failure
	if errors.As(err, &f) {
		return f.Kind
	}
	return controlv1.Kind_KIND_UNSPECIFIED
}

func backupOf(t *testing.T, p *gridtest.ClusterPeer, dir string) (*controlv1.BackupSummary, error) {
	t.Helper()
	return p.Backup(t.Context(), []string{dir}, "", nil, nil)
}

func restoreOf(t *testing.T, p *gridtest.ClusterPeer, snapshot, target string) (*controlv1.RestoreSummary, error) {
	t.Helper()
	return p.Restore(t.Context(), snapshot, "", target, nil, nil)
}

// TestRecover: the owner's machine is gone. With the phrase and one member's id
// and address a new device finds the vault, restores, and goes on with it,
// deduplicating; the old device, should it come back, is refused and told why.
func TestRecover(t *testing.T) {
	skipShort(t)
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 5}, func(t *testing.T, c *gridtest.Cluster) {
		old := c.Peers[0]
		dir := source(t, "first", strings.Repeat("second", 100_000))
		if _, err := backupOf(t, old, dir); err != nil {
			t.Fatal(err)
		}
		old.Stop()
		c.Wait("it is away", func() bool { return c.Peers[1].Alive() == 4 })
		fresh, found, err := c.Recover(old.Phrase, c.Peers[2], nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Vaults) != 1 {
			t.Fatalf("%d vaults", len(found.Vaults))
		}
		if v := found.Vaults[0]; !v.Adopted || v.Snapshots != 1 || v.Writer != old.ID || v.Head != 1 || v.Newest.IsZero() {
			t.Errorf("vault of %q: adopted %v, %d snapshots, head %d, %s", v.Host, v.Adopted, v.Snapshots, v.Head, v.Problem)
		}
		if found.Answered != 4 || found.Members != 4 || found.HeadedBy < 2 {
			t.Errorf("%d of %d answered, %d have the new head", found.Answered, found.Members, found.HeadedBy)
		}
		c.WaitAlive(5)
		target := t.TempDir()
		if _, err := restoreOf(t, fresh, "latest", target); err != nil {
			t.Fatal(err)
		}
		wantFile(t, target, dir, "a", "first")
		again, err := backupOf(t, fresh, dir)
		if err != nil {
			t.Fatal(err)
		}
		if again.NewBytes > 10_000 {
			t.Errorf("%d bytes were stored again", again.NewBytes)
		}
		old.Start()
		c.WaitAlive(6)
		_, err = backupOf(t, old, dir)
		if kindOf(err) != controlv1.Kind_KIND_REFUSED || !strings.Contains(err.Error(), "another device") {
			t.Errorf("the old device: %v", err)
		}
	})
}

// TestRecoverRefusals: another owner's words, a vault whose device is up, and a
// member that is not there are each told in words, and nothing is made.
func TestRecoverRefusals(t *testing.T) {
	skipShort(t)
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 3}, func(t *testing.T, c *gridtest.Cluster) {
		you := c.Peers[0]
		dir := source(t, "text")
		if _, _, err := c.Recover(you.Phrase, c.Peers[1], nil); kindOf(err) != controlv1.Kind_KIND_TOO_FEW {
			t.Errorf("no vault: %v", err)
		}
		if _, err := backupOf(t, you, dir); err != nil {
			t.Fatal(err)
		}
		stranger, err := identity.NewPhrase()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Recover(stranger.String(), c.Peers[1], nil); kindOf(err) != controlv1.Kind_KIND_WRONG_PHRASE {
			t.Errorf("another owner: %v", err)
		}
		if _, _, err := c.Recover("abandon", c.Peers[1], nil); kindOf(err) != controlv1.Kind_KIND_WRONG_PHRASE {
			t.Errorf("no phrase: %v", err)
		}
		_, found, err := c.Recover(you.Phrase, c.Peers[1], nil)
		if kindOf(err) != controlv1.Kind_KIND_REFUSED || len(found.Vaults) != 1 || !found.Vaults[0].Alive {
			t.Errorf("a vault in use: %v, %d vaults", err, len(found.Vaults))
		}
		c.Peers[2].Stop()
		if _, _, err := c.Recover(you.Phrase, c.Peers[2], nil); kindOf(err) != controlv1.Kind_KIND_TEMPORARY {
			t.Errorf("nobody there: %v", err)
		}
		fresh, _, err := c.Recover(you.Phrase, c.Peers[1], func(p *node.RecoverParams) { p.Vault = found.Vaults[0].ID.String()[:8] })
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, err := backupOf(t, you, dir); kindOf(err) != controlv1.Kind_KIND_REFUSED {
			t.Errorf("the device that was shut out: %v", err)
		}
		if _, err := backupOf(t, fresh, dir); err != nil {
			t.Error(err)
		}
	})
}

// TestRecoverRemovesOld: the old device is taken out of the grid with the recovery,
// by a statement that the new one signs.
func TestRecoverRemovesOld(t *testing.T) {
	skipShort(t)
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 4}, func(t *testing.T, c *gridtest.Cluster) {
		old := c.Peers[0] // it founded the grid and admitted the others
		dir := source(t, "text")
		if _, err := backupOf(t, old, dir); err != nil {
			t.Fatal(err)
		}
		old.Stop()
		c.Wait("it is away", func() bool { return c.Peers[1].Alive() == 3 })
		if _, _, err := c.Recover(old.Phrase, c.Peers[2], func(p *node.RecoverParams) { p.RemoveOld, p.WriteOnly = true, true }); kindOf(err) != controlv1.Kind_KIND_USAGE {
			t.Errorf("by a write-only device: %v", err)
		}
		fresh, found, err := c.Recover(old.Phrase, c.Peers[2], func(p *node.RecoverParams) { p.RemoveOld = true })
		if err != nil {
			t.Fatal(err)
		}
		if v := found.Vaults[0]; !v.Adopted || !v.Removed {
			t.Errorf("adopted %t, removed %t", v.Adopted, v.Removed)
		}
		c.WaitAlive(4)
		c.Wait("all know that the old device is out", func() bool {
			for _, p := range append(c.Peers[1:4:4], fresh) {
				if state := p.StateOf(old.ID); state == grid.StateAlive || state == grid.StateAway {
					return false
				}
			}
			return true
		})
		target := t.TempDir()
		if _, err := restoreOf(t, fresh, "latest", target); err != nil {
			t.Fatal(err)
		}
		wantFile(t, target, dir, "a", "text")
		if _, err := backupOf(t, fresh, source(t, "more")); err != nil {
			t.Error(err)
		}
	})
}
