package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"gotong/grid/gridtest"
	"gotong/grid/node"
	controlv1 "gotong/proto/control/v1"
)

// write makes a file below a new directory and returns the directory.
func write(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestADryRunChangesNothingForOthers: it may run beside a backup, whose segments are
// still coded as that one was asked for.
func TestADryRunChangesNothingForOthers(t *testing.T) {
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 4}, func(t *testing.T, c *gridtest.Cluster) {
		owner, dir := c.Peers[0], write(t, 1000)
		if _, err := owner.Backup(t.Context(), []string{dir}, "1+1", nil, nil); err != nil {
			t.Fatal(err)
		}
		dry, err := owner.DryRun(t.Context(), dir, "1+2")
		if err != nil || dry.Redundancy != "1+2" {
			t.Errorf("dry run: %v, %v", dry, err)
		}
		if next := owner.NextRedundancy(); next != "1+1" {
			t.Errorf("segments are coded %s after a dry run", next)
		}
	})
}

// TestADrainOutlastsAMove: a peer that changes networks while it hands over what it
// keeps still gives nothing.
func TestADrainOutlastsAMove(t *testing.T) {
	cfg := gridtest.ClusterConfig{Peers: 4, Reconfigure: func(_ int, c *node.Config) { c.Redundancy = "1+2" }}
	gridtest.Run(t, cfg, func(t *testing.T, c *gridtest.Cluster) {
		if _, err := c.Peers[0].Backup(t.Context(), []string{write(t, 1000)}, "1+2", nil, nil); err != nil {
			t.Fatal(err)
		}
		leaver := c.Peers[1]
		seen := func() *controlv1.PeerInfo {
			for _, p := range c.Peers[0].Peer.Peers(t.Context(), false) {
				if p.Id == leaver.ID.String() {
					return p
				}
			}
			return nil
		}
		before, moved := seen().Address, false
		_ = leaver.Drain(t.Context(), func(*controlv1.DrainProgress) {
			if moved {
				return
			}
			moved = true
			leaver.Host.Move()
			c.Wait("the new address is known", func() bool { return seen().Address != before })
			if gives := seen().PledgeBytes; gives != 0 {
				t.Errorf("it gives %d bytes while it drains", gives)
			}
		}) // whether others had a place for all of it does not matter here
		c.Wait("it gives again", func() bool { return seen().PledgeBytes != 0 })
		if !moved {
			t.Error("nothing was drained")
		}
	})
}
