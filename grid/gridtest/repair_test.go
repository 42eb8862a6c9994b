package gridtest_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotong/grid/gridtest"
	"gotong/grid/node"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage"
	"gotong/storage/repair"
	"gotong/storage/storagetest"
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
func waitHealthy(t *testing.T, c *gridtest.Cluster, n int, within time.Duration, without ...*gridtest.ClusterPeer) {
	t.Helper()
	peers := slices.DeleteFunc(slices.Clone(c.Peers), func(p *gridtest.ClusterPeer) bool { return slices.Contains(without, p) })
	deadline := time.Now().Add(within)
	for {
		what := ""
		all := onDisk(t, peers)
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

// skipShort leaves a test of whole peers over days out of short runs, which the
// race detector does not survive.
func skipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes whole peers through days")
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

// TestRepairWithoutTheOwner: the owner is away; two of eight holders lose everything
// and the others rebuild it, then two more; the owner comes back and restores.
func TestRepairWithoutTheOwner(t *testing.T) {
	skipShort(t)
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

// audits is what running peers have seen of one of them, together.
type audits struct{ success, wrong, missing uint64 }

func auditsOf(c *gridtest.Cluster, of *gridtest.ClusterPeer) (sum audits) {
	for _, p := range c.Peers {
		if p == of || !p.Running() {
			continue
		}
		for _, info := range p.Peers(context.Background(), false) {
			if r := info.Audit; r != nil && info.Id == of.ID.String() {
				sum.success += r.Success
				sum.wrong += r.Wrong
				sum.missing += r.Missing
			}
		}
	}
	return sum
}

// misbehaving is a cluster in which the store of peer 3 may be told to misbehave.
func misbehaving(redundancy string, peers int) (gridtest.ClusterConfig, **storagetest.Faulty) {
	var faulty *storagetest.Faulty
	config := repairing(peers, redundancy, func(_ int, c *node.Config) { c.Audit.Interval = time.Minute })
	config.Shards = func(i int, s storage.RemoteShards) storage.RemoteShards {
		if i != 3 {
			return s
		}
		faulty = storagetest.NewFaulty(s)
		return faulty
	}
	return config, &faulty
}

// TestAuditFindsWhoKeepsNothing: a holder says that it has its shards and has
// none. It is found by the challenges that the formula says, and what it should
// have is placed elsewhere.
func TestAuditFindsWhoKeepsNothing(t *testing.T) {
	skipShort(t)
	config, faulty := misbehaving("2+3", 8)
	gridtest.Run(t, config, func(t *testing.T, c *gridtest.Cluster) {
		liar := c.Peers[3]
		source := backUpTo(t, c.Peers[0], liar)
		before := auditsOf(c, liar)
		(*faulty).Set(storagetest.Faults{Prove: storage.ErrNotFound, Open: storage.ErrNotFound})
		c.Wait("somebody finds out", func() bool { return auditsOf(c, liar).missing > 0 })
		// Others may have found it in the same second: the first bad one counts.
		sum := auditsOf(c, liar)
		if n := int(sum.success - before.success); repair.Detection(1, n) == 1 {
			t.Errorf("found by %+v", sum)
		}
		waitHealthy(t, c, 5, 10*time.Minute, liar)
		c.Wait("its friends say so", func() bool {
			return slices.ContainsFunc(c.Peers, func(p *gridtest.ClusterPeer) bool {
				status, err := p.Status(t.Context())
				return err == nil && slices.ContainsFunc(status.Problems, func(p *controlv1.Problem) bool { return strings.Contains(p.What, liar.Name) })
			})
		})
		wantRestored(t, c.Peers[0], source)
	})
}

// backUpTo backs up until a holder has some of it.
func backUpTo(t *testing.T, owner, holder *gridtest.ClusterPeer) (source string) {
	t.Helper()
	for range 20 {
		if source = backUp(t, owner); len(shardsOf(t, holder)) > 0 {
			return source
		}
	}
	t.Fatal("the peer holds nothing; nothing is tested")
	return ""
}

// TestReadsFindWhoOnlyProves: a holder answers audits and refuses to be read.
func TestReadsFindWhoOnlyProves(t *testing.T) {
	skipShort(t)
	config, faulty := misbehaving("2+3", 8)
	gridtest.Run(t, config, func(t *testing.T, c *gridtest.Cluster) {
		liar := c.Peers[3]
		source := backUpTo(t, c.Peers[0], liar)
		c.Peers[0].Stop() // nobody restores
		(*faulty).Set(storagetest.Faults{Open: storage.ErrDenied})
		waitHealthy(t, c, 5, time.Hour, liar)
		if sum := auditsOf(c, liar); sum.missing == 0 || sum.wrong != 0 {
			t.Errorf("audits %+v", sum)
		}
		c.Peers[0].Start()
		c.WaitAlive(8)
		wantRestored(t, c.Peers[0], source)
	})
}

// TestPartitionOnlyDuplicates: both sides of a partition have enough shards and
// rebuild the others. When it heals there are duplicates and nothing worse, and
// repair comes to rest.
func TestPartitionOnlyDuplicates(t *testing.T) {
	skipShort(t)
	gridtest.Run(t, repairing(9, "1+5", nil), func(t *testing.T, c *gridtest.Cluster) {
		source := backUp(t, c.Peers[0])
		c.Peers[0].Stop()
		var left, right []string
		for i, p := range c.Peers {
			if i < 5 {
				left = append(left, p.Name)
			} else {
				right = append(right, p.Name)
			}
		}
		before := len(allShards(t, c))
		c.Fabric.Partition(left, right)
		time.Sleep(2*repairGrace + time.Minute)
		for _, side := range [][]*gridtest.ClusterPeer{c.Peers[:5], c.Peers[5:]} {
			for id, shards := range onDisk(t, side) {
				if len(shards) < 4 {
					t.Errorf("one side has %d shards of segment %s", len(shards), id.Short())
				}
			}
		}
		c.Fabric.Heal()
		c.WaitAlive(8)
		waitHealthy(t, c, 6, repairGrace+time.Minute)
		time.Sleep(3 * repairInterval)
		after := len(allShards(t, c))
		if after <= before {
			t.Errorf("%d shards before, %d after: nothing was rebuilt", before, after)
		}
		time.Sleep(10 * repairInterval)
		if n := len(allShards(t, c)); n != after {
			t.Errorf("%d shards, then %d: repair does not come to rest", after, n)
		}
		c.Peers[0].Start()
		c.WaitAlive(9)
		wantRestored(t, c.Peers[0], source)
	})
}

func allShards(t *testing.T, c *gridtest.Cluster) (all []storage.ShardID) {
	t.Helper()
	for _, p := range c.Peers {
		if p.Running() {
			all = append(all, shardsOf(t, p)...)
		}
	}
	return all
}

// TestDrainHandsOver: a peer hands its shards over before it leaves, and nobody
// has to rebuild anything; another gives less than it holds, and gives the rest
// to others.
func TestDrainHandsOver(t *testing.T) {
	skipShort(t)
	gridtest.Run(t, repairing(8, "2+3", nil), func(t *testing.T, c *gridtest.Cluster) {
		source := backUp(t, c.Peers[0])
		friends := slices.SortedFunc(slices.Values(c.Peers[1:]), func(a, b *gridtest.ClusterPeer) int {
			return len(shardsOf(t, b)) - len(shardsOf(t, a)) // who holds most comes first
		})
		leaver, smaller := friends[0], friends[1]
		held := len(shardsOf(t, leaver))
		var last *controlv1.DrainProgress
		if err := leaver.Drain(t.Context(), func(p *controlv1.DrainProgress) { last = p }); err != nil {
			t.Fatal(err)
		}
		if held == 0 || last == nil || last.Shards != uint64(held) || last.Left != 0 || last.Bytes == 0 {
			t.Errorf("%d shards held, progress %+v", held, last)
		}
		waitHealthy(t, c, 5, 0, leaver)
		if err := leaver.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		leaver.Stop()

		held = len(shardsOf(t, smaller))
		smaller.Stop()
		smaller.Reconfigure(func(c *node.Config) { c.Give = 0 })
		smaller.Start()
		c.WaitAlive(7)
		c.Wait("it gave its shards to others", func() bool { return len(shardsOf(t, smaller)) == 0 })
		waitHealthy(t, c, 5, 0)
		if held == 0 {
			t.Error("the peer that gives less held nothing; nothing was tested")
		}
		wantRestored(t, c.Peers[0], source)
	})
}
