package gridtest_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotong/grid/gridtest"
	"gotong/grid/node"
	controlv1 "gotong/proto/control/v1"
)

// TestFairShare: an owner who gives little is refused beyond its share, with
// the numbers; one whom the donors name may keep more; status tells the limit.
func TestFairShare(t *testing.T) {
	skipShort(t)
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 4, Reconfigure: func(i int, c *node.Config) {
		c.Redundancy, c.Store.Allowance, c.Store.Owners = "1+2", 100e3, []string{"PEER-3=20MB"}
		switch i {
		case 0:
			c.Give = 30e6 // 10 MB on each of the others
		case 3:
			c.Give = 0
			c.Redundancy = "1+1"
		default:
			c.Give = 30e6
		}
	}}, func(t *testing.T, c *gridtest.Cluster) {
		dir := t.TempDir()
		data := make([]byte, 6<<20)
		_, _ = rand.Read(data)
		if err := os.WriteFile(filepath.Join(dir, "f"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := backupOf(t, c.Peers[3], dir); err != nil { // by the donors' word
			t.Fatal(err)
		}
		var sum uint64
		for _, p := range c.Peers[:3] {
			s, err := p.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range s.Giving.HeldFor {
				if sum += h.Bytes; !h.Limited || h.LimitBytes != 20e6 || len(h.Names) != 1 || h.Names[0] != "peer-3" {
					t.Errorf("%s holds for %+v", p.Name, h)
				}
			}
		}
		if sum < 2*uint64(len(data)) {
			t.Errorf("%d bytes are held in all", sum)
		}
	})
}

// TestFairShareRefuses: who gives nothing has the allowance and no more.
func TestFairShareRefuses(t *testing.T) {
	skipShort(t)
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 4, Reconfigure: func(i int, c *node.Config) {
		c.Redundancy, c.Store.Allowance = "1+2", 1e6
		if i == 0 {
			c.Give = 0
		}
	}}, func(t *testing.T, c *gridtest.Cluster) {
		dir := t.TempDir()
		data := make([]byte, 3<<20)
		_, _ = rand.Read(data)
		if err := os.WriteFile(filepath.Join(dir, "f"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := backupOf(t, c.Peers[0], dir)
		if err == nil || kindOf(err) != controlv1.Kind_KIND_REFUSED {
			t.Fatal(err)
		}
		for _, want := range []string{"no room: peer-1, peer-2, peer-3", "allowed are 1MB for everybody", "0B that the owner gives"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
	})
}
