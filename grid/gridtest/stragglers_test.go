package gridtest_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotong/grid/gridtest"
	"gotong/grid/node"
)

// TestStragglersFollow: a friend who is away while a backup runs does not lower
// its redundancy. What is the friend's waits in the spool, across a restart of
// the owner, and is sent when the friend is back.
func TestStragglersFollow(t *testing.T) {
	skipShort(t)
	gridtest.Run(t, repairing(5, "auto", nil), func(t *testing.T, c *gridtest.Cluster) {
		owner, friend := c.Peers[0], c.Peers[2]
		source := t.TempDir()
		content := make([]byte, 3<<20)
		_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
		if err := os.WriteFile(filepath.Join(source, "file"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		friend.Stop()
		c.WaitAlive(4)
		summary, err := owner.Backup(t.Context(), []string{source}, "", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !summary.Committed || summary.Complete || summary.Redundancy != "2+2" || summary.Note == "" {
			t.Errorf("%+v", summary)
		}
		if n := spooled(t, owner); n == 0 {
			t.Error("nothing waits for the friend")
		}
		owner.Stop()
		friend.Start()
		owner.Start()
		c.WaitAlive(5)
		waitHealthy(t, c, 4, 10*repairInterval)
		c.Wait("the spool to be empty", func() bool { return spooled(t, owner) == 0 })
		time.Sleep(2 * repairInterval)
		states, err := owner.Status(t.Context())
		if err != nil || len(states.Backups) != 1 || states.Backups[0].State != "complete" || states.Backups[0].SurvivesSites != 2 {
			t.Errorf("%+v, %v", states, err)
		}
		target := filepath.Join(t.TempDir(), "back")
		if _, err := owner.Restore(t.Context(), "latest", "", target, nil, nil); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(target, source, "file")); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes came back, %v", len(got), err)
		}
	})
}

// TestPartialBackup: with too few friends here the snapshot is partial and can be
// restored, and is completed when they are back, not only at the next round of
// repair.
func TestPartialBackup(t *testing.T) {
	skipShort(t)
	seldom := func(_ int, c *node.Config) { c.Repair.Interval = 24 * time.Hour }
	gridtest.Run(t, repairing(5, "auto", seldom), func(t *testing.T, c *gridtest.Cluster) {
		owner := c.Peers[0]
		source := t.TempDir()
		if err := os.WriteFile(filepath.Join(source, "file"), []byte("what must come back"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, friend := range c.Peers[2:] {
			friend.Stop()
		}
		c.WaitAlive(2)
		summary, err := owner.Backup(t.Context(), []string{source}, "", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if summary.Committed || summary.Complete || summary.SurvivesSites != 0 || summary.Redundancy != "2+2" {
			t.Errorf("%+v", summary)
		}
		state := func() string {
			status, err := owner.Status(t.Context())
			if err != nil || len(status.Backups) != 1 {
				t.Fatalf("%+v, %v", status, err)
			}
			return status.Backups[0].State
		}
		if got := state(); got != "partial" {
			t.Errorf("the backup is %s", got)
		}
		if _, err := owner.Restore(t.Context(), "latest", "", filepath.Join(t.TempDir(), "back"), nil, nil); err != nil {
			t.Error(err)
		}
		for _, friend := range c.Peers[2:] {
			friend.Start()
		}
		c.WaitAlive(5)
		c.Wait("the backup to be complete", func() bool { return state() == "complete" })
		waitHealthy(t, c, 4, repairInterval)
	})
}

// spooled counts what waits on a peer.
func spooled(t *testing.T, p *gridtest.ClusterPeer) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.Home, "peer", "spool", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}
