package gridtest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotong/grid/gridtest"
	"gotong/grid/identity"
	"gotong/grid/node"
	"gotong/storage/seal"
)

// fromPhrase derives the secrets of the peer's vault.
func fromPhrase(t *testing.T, p *gridtest.ClusterPeer) seal.VaultSecrets {
	t.Helper()
	phrase, err := identity.ParsePhrase(p.Phrase)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(p.Home, "peer", "vault", "secrets"))
	if err != nil {
		t.Fatal(err)
	}
	device, err := seal.ParseSecrets(file)
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := seal.DeriveVault(phrase.Entropy(), device.Vault())
	if err != nil {
		t.Fatal(err)
	}
	return secrets
}

// TestDrill: a drill brings files back from an empty index, with the device's
// keys and with those of the phrase; it fails when friends cannot give the data,
// and says when the last one passed.
func TestDrill(t *testing.T) {
	skipShort(t)
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 4}, func(t *testing.T, c *gridtest.Cluster) {
		you := c.Peers[0]
		if r, err := you.Drill(t.Context(), 0, seal.VaultSecrets{}); err != nil || r.OK {
			t.Errorf("without a snapshot: %+v, %v", r, err)
		}
		if _, err := backupOf(t, you, source(t, "one", "two", strings.Repeat("three", 300_000))); err != nil {
			t.Fatal(err)
		}
		for _, secrets := range []seal.VaultSecrets{{}, fromPhrase(t, you)} {
			r, err := you.Drill(t.Context(), 10, secrets)
			if err != nil || !r.OK || r.Files != 3 || r.What != node.DrillFiles || r.Segments == 0 || r.SitesNeeded != 1 || r.Phrase == secrets.IsZero() {
				t.Errorf("drill %+v, %v", r, err)
			}
		}
		if left, err := filepath.Glob(filepath.Join(you.Home, ".drill*")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %q, %v", left, err)
		}
		passed, ok := you.LastDrill()
		if !ok {
			t.Fatal("the result was not kept")
		}
		for _, friend := range c.Peers[1:] {
			friend.Stop()
		}
		r, err := you.Drill(t.Context(), 10, seal.VaultSecrets{})
		if err != nil || r.OK || r.Problem == "" || !r.Passed.Equal(passed.Time) {
			t.Errorf("with nobody there: %+v, %v", r, err)
		}
		status, err := you.Status(t.Context())
		if err != nil || status.LastDrill.GetOk() || len(status.Problems) == 0 {
			t.Errorf("status %v, %v", status.GetLastDrill(), err)
		}
	})
}

// TestDrillsByItself: the peer drills as the configuration says, on a write-only
// device by opening segments.
func TestDrillsByItself(t *testing.T) {
	skipShort(t)
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 3, WriteOnly: true, Reconfigure: func(_ int, c *node.Config) { c.Drill.Every = 10 * time.Second }},
		func(t *testing.T, c *gridtest.Cluster) {
			you := c.Peers[0]
			if _, err := backupOf(t, you, source(t, "text")); err != nil {
				t.Fatal(err)
			}
			c.Wait("a drill that passed", func() bool { r, ok := you.LastDrill(); return ok && r.OK })
			if r, _ := you.LastDrill(); r.What != node.DrillSegments || r.Bytes == 0 {
				t.Errorf("drill %+v", r)
			}
			if r, err := you.Drill(t.Context(), 5, fromPhrase(t, you)); err != nil || !r.OK || r.What != node.DrillFiles || r.Files != 1 {
				t.Errorf("with the phrase: %+v, %v", r, err)
			}
			if file, err := os.ReadFile(filepath.Join(you.Home, "peer", "vault", "secrets")); err != nil || file[10] != 0 {
				t.Errorf("the read key is on the device, %v", err)
			}
		})
}
