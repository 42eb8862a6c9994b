package gridtest_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotong/grid/gridtest"
	"gotong/grid/node"
	"gotong/storage"
)

const (
	repairInterval = 10 * time.Second
	repairGrace    = 2 * time.Minute
)

// repairing makes clusters of peers that repair within minutes.
func repairing(peers int, redundancy string, more func(i int, c *node.Config)) gridtest.ClusterConfig {
	return gridtest.ClusterConfig{Peers: peers, Reconfigure: func(i int, c *node.Config) {
		c.Redundancy = redundancy
		c.Repair.Interval, c.Repair.Grace = repairInterval, repairGrace
		if more != nil {
			more(i, c)
		}
	}}
}

// onDisk returns where the shards of running peers are, by segment and index.
func onDisk(t *testing.T, peers []*gridtest.ClusterPeer) map[storage.SegmentID]map[int][]string {
	t.Helper()
	all := map[storage.SegmentID]map[int][]string{}
	for _, p := range peers {
		if !p.Running() {
			continue
		}
		for _, id := range shardsOf(t, p) {
			if all[id.Segment] == nil {
				all[id.Segment] = map[int][]string{}
			}
			all[id.Segment][id.Index] = append(all[id.Segment][id.Index], p.Name)
		}
	}
	return all
}

// storeOf is the directory of a peer's shard store.
func storeOf(t *testing.T, p *gridtest.ClusterPeer) string {
	t.Helper()
	var dir string
	_ = filepath.WalkDir(p.Home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "shards" && dir == "" {
			dir = path
		}
		return nil
	})
	if dir == "" {
		t.Fatalf("%s has no store", p.Name)
	}
	return dir
}

func shardsOf(t *testing.T, p *gridtest.ClusterPeer) (ids []storage.ShardID) {
	t.Helper()
	_ = filepath.WalkDir(filepath.Join(storeOf(t, p), "shards"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if id, err := storage.ParseShardID(d.Name()); err == nil {
				ids = append(ids, id)
			}
		}
		return nil
	})
	return ids
}

// wipe takes all shards from a peer, as a new disk does.
func wipe(t *testing.T, p *gridtest.ClusterPeer) {
	t.Helper()
	running := p.Running()
	p.Stop()
	if err := os.RemoveAll(storeOf(t, p)); err != nil {
		t.Fatal(err)
	}
	if running {
		p.Start()
	}
}

// waitHealthy returns when running peers have all n shards of each segment.
func waitHealthy(t *testing.T, c *gridtest.Cluster, n int, within time.Duration) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		what := ""
		all := onDisk(t, c.Peers)
		for id, shards := range all {
			if len(shards) < n {
				what = fmt.Sprintf("%d of %d shards of segment %s: %v", len(shards), n, id.Short(), shards)
			}
		}
		if what == "" && len(all) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not healthy within %s: %s", within, what)
		}
		time.Sleep(time.Second)
	}
}

// backUp makes a tree of some megabytes and backs it up.
func backUp(t *testing.T, p *gridtest.ClusterPeer) (source string) {
	t.Helper()
	source = t.TempDir()
	content := make([]byte, 6<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	for i := range 3 {
		if err := os.WriteFile(filepath.Join(source, fmt.Sprint("file", i)), content[i<<20:(i+4)<<20-i], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	summary, err := p.Backup(t.Context(), []string{source}, "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !summary.Complete {
		t.Fatalf("backup is not complete: %+v", summary)
	}
	return source
}

// wantRestored restores the latest snapshot and compares.
func wantRestored(t *testing.T, p *gridtest.ClusterPeer, source string) {
	t.Helper()
	target := filepath.Join(t.TempDir(), "back")
	if _, err := p.Restore(t.Context(), "latest", "", target, nil, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		name := fmt.Sprint("file", i)
		want, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(target, source, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs, %v", name, err)
		}
	}
}

// TestHolderlessRepair: the owner is away; two of eight holders lose everything
// and the others rebuild it, then two more; the owner comes back and restores.
func TestRepairWithoutTheOwner(t *testing.T) {
	gridtest.Run(t, repairing(9, "4+2", nil), func(t *testing.T, c *gridtest.Cluster) {
		owner := c.Peers[0]
		source := backUp(t, owner)
		waitHealthy(t, c, 6, time.Second)
		owner.Stop()
		for _, pair := range [][]int{{1, 2}, {3, 4}} {
			for _, i := range pair {
				wipe(t, c.Peers[i])
			}
			c.WaitAlive(8)
			waitHealthy(t, c, 6, repairGrace+time.Minute)
		}
		owner.Start()
		c.WaitAlive(9)
		wantRestored(t, owner, source)
	})
}
