package gridtest_test

import (
	"os"
	"path/filepath"
	"testing"

	"gotong/grid"
	"gotong/grid/gridtest"
	"gotong/grid/node"
)

// TestPartitionHeals: seven peers fall into 4 | 3; each side sees the other as
// away, nobody is lost, and all are alive again when the network is whole.
func TestPartitionHeals(t *testing.T) {
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 7}, func(t *testing.T, c *gridtest.Cluster) {
		var left, right []string
		for i, p := range c.Peers {
			if i < 4 {
				left = append(left, p.Name)
			} else {
				right = append(right, p.Name)
			}
		}
		c.Fabric.Partition(left, right)
		c.Wait("each side sees the other as away", func() bool {
			for i, p := range c.Peers {
				want := 4
				if i >= 4 {
					want = 3
				}
				if p.Alive() != want {
					return false
				}
			}
			return true
		})
		for _, p := range c.Peers {
			if n := len(p.Peers(t.Context(), false)); n != 7 {
				t.Errorf("%s lists %d peers", p.Name, n)
			}
		}
		c.Fabric.Heal()
		c.WaitAlive(7)
	})
}

// TestMovedPeerIsTheSameMember: a peer that comes back with another address is
// found by all, whoever is up.
func TestMovedPeerIsTheSameMember(t *testing.T) {
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 4}, func(t *testing.T, c *gridtest.Cluster) {
		moved := c.Peers[2]
		moved.Stop()
		c.Wait("it is away", func() bool { return c.Peers[0].StateOf(moved.ID) == grid.StateAway })
		moved.Host.Move()
		moved.Start()
		c.WaitAlive(4)
	})
}

// TestRestartFromWhatTheyKnew: all peers stop, and start again in another order.
func TestRestartFromWhatTheyKnew(t *testing.T) {
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 4}, func(t *testing.T, c *gridtest.Cluster) {
		c.StopAll()
		for i := len(c.Peers) - 1; i >= 0; i-- {
			c.Peers[i].Start()
		}
		c.WaitAlive(4)
	})
}

// TestLeaveAndRemove: who left and who was removed are told apart, by peers
// that were not there when it happened too.
func TestLeaveAndRemove(t *testing.T) {
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 5}, func(t *testing.T, c *gridtest.Cluster) {
		late, left, removed := c.Peers[1], c.Peers[2], c.Peers[3]
		late.Stop()
		if err := left.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Peers[0].RemovePeer(removed.ID); err != nil {
			t.Fatal(err)
		}
		c.Wait("the others know", func() bool {
			return c.Peers[4].StateOf(left.ID) == grid.StateLeft && c.Peers[4].StateOf(removed.ID) == grid.StateRemoved
		})
		late.Start()
		c.Wait("the late one knows", func() bool {
			return late.StateOf(left.ID) == grid.StateLeft && late.StateOf(removed.ID) == grid.StateRemoved
		})
		left.Stop()
		if _, err := node.Open(left.Home, node.Options{Config: node.DefaultConfig(), Fabric: left.Host, NoControl: true}); err == nil {
			t.Error("a peer that left could be opened again")
		}
	})
}

// TestBackupAcrossRestart: a backup is restored after all holders restarted, and
// by an owner that restarted.
func TestBackupAcrossRestart(t *testing.T) {
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 5, Reconfigure: func(_ int, c *node.Config) { c.Redundancy = "2+2" }}, func(t *testing.T, c *gridtest.Cluster) {
		source := t.TempDir()
		content := []byte("what must come back")
		if err := os.WriteFile(filepath.Join(source, "file"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		summary, err := c.Peers[0].Backup(t.Context(), []string{source}, "", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !summary.Committed || summary.SurvivesSites != 2 {
			t.Errorf("summary %+v", summary)
		}
		c.StopAll()
		for i, p := range c.Peers {
			if i != 1 && i != 3 { // two of the four holders stay away
				p.Start()
			}
		}
		c.WaitAlive(3)
		target := filepath.Join(t.TempDir(), "back")
		if _, err := c.Peers[0].Restore(t.Context(), "latest", "", target, nil, nil); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(target, source, "file"))
		if err != nil || string(got) != string(content) {
			t.Errorf("got %q, %v", got, err)
		}
	})
}
