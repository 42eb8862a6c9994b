package gridtest_test

import (
	"context"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gotong/grid/gridtest"
	"gotong/grid/node"
	"gotong/storage"
)

// surplusFloor is what clusters of these tests keep deleted and surplus shards for.
const surplusFloor = 4 * time.Minute

// asideOf returns the shards that a peer has set aside.
func asideOf(t *testing.T, p *gridtest.ClusterPeer) (ids []storage.ShardID) {
	t.Helper()
	_ = filepath.WalkDir(filepath.Join(storeOf(t, p), "surplus"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name := d.Name()[:strings.LastIndexByte(d.Name(), '.')]
			if id, err := storage.ParseShardID(name); err == nil {
				ids = append(ids, id)
			}
		}
		return nil
	})
	return ids
}

// doubles counts the copies of shards that another running peer has too, those
// that are set aside among them.
func doubles(t *testing.T, c *gridtest.Cluster) (n int) {
	t.Helper()
	for _, shards := range onDisk(t, c.Peers) {
		for _, peers := range shards {
			n += len(peers) - 1
		}
	}
	for _, p := range c.Peers {
		n += len(asideOf(t, p))
	}
	return n
}

// waitUntil returns when condition holds; the test fails when it does not in time.
func waitUntil(t *testing.T, what string, within time.Duration, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !condition(); time.Sleep(repairInterval / 2) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// doubled makes a backup of which some shards are on two peers, because one was
// away for longer than the grace.
func doubled(t *testing.T, c *gridtest.Cluster, n int) (source string) {
	t.Helper()
	source = backUp(t, c.Peers[0])
	away := slices.MaxFunc(c.Peers[1:], func(a, b *gridtest.ClusterPeer) int { return len(shardsOf(t, a)) - len(shardsOf(t, b)) })
	away.Stop()
	waitHealthy(t, c, n, repairGrace+2*time.Minute)
	away.Start()
	c.WaitAlive(len(c.Peers))
	if doubles(t, c) == 0 {
		t.Fatal("no shard is on two peers; nothing is tested")
	}
	return source
}

// firstAside waits until somebody sets a shard aside, and returns who, and who has
// it.
func firstAside(t *testing.T, c *gridtest.Cluster) (by, keeper *gridtest.ClusterPeer, id storage.ShardID) {
	t.Helper()
	waitUntil(t, "a shard is set aside", time.Hour, func() bool {
		for _, p := range c.Peers {
			if ids := asideOf(t, p); len(ids) > 0 {
				by, id = p, ids[0]
			}
		}
		return by != nil
	})
	for _, p := range c.Peers {
		if slices.Contains(shardsOf(t, p), id) {
			keeper = p
		}
	}
	if keeper == nil {
		t.Fatalf("%s set %s aside, and nobody has it", by.Name, id)
	}
	return by, keeper, id
}

// TestSurplusIsLetGo: a holder comes back after its shards were rebuilt elsewhere.
// One copy of each is let go in the end; it is taken back when too much of the rest
// is away before that.
func TestSurplusIsLetGo(t *testing.T) {
	skipShort(t)
	config := repairing(6, "2+2", func(_ int, c *node.Config) { c.Retention.Floor = surplusFloor })
	gridtest.Run(t, config, func(t *testing.T, c *gridtest.Cluster) {
		source := doubled(t, c, 4)
		by, keeper, id := firstAside(t, c)
		gone := []*gridtest.ClusterPeer{keeper}
		for _, p := range c.Peers[1:] {
			if p != by && p != keeper && len(gone) < 2 && slices.ContainsFunc(shardsOf(t, p), func(s storage.ShardID) bool { return s.Segment == id.Segment }) {
				gone = append(gone, p)
			}
		}
		for _, p := range gone {
			p.Stop()
		}
		waitUntil(t, "the shard is taken back", time.Minute, func() bool { return slices.Contains(shardsOf(t, by), id) })
		for _, p := range gone {
			p.Start()
		}
		c.WaitAlive(6)
		waitUntil(t, "no shard is on two peers", 4*time.Hour, func() bool {
			waitHealthy(t, c, 4, 0)
			return doubles(t, c) == 0
		})
		wantRestored(t, c.Peers[0], source)
	})
}

// relay is what others see of a peer that has nothing of its own while it lies: it
// passes on what another one has.
type relay struct {
	storage.RemoteShards
	from func() storage.RemoteShards // nil: it does not lie
}

func (r relay) OpenShard(ctx context.Context, id storage.ShardID, off, n int64) (storage.ShardReader, error) {
	if other := r.from(); other != nil {
		return other.OpenShard(ctx, id, off, n)
	}
	return r.RemoteShards.OpenShard(ctx, id, off, n)
}

func (r relay) Prove(ctx context.Context, id storage.ShardID, groups []int) ([][]byte, error) {
	if other := r.from(); other != nil {
		return other.Prove(ctx, id, groups)
	}
	return r.RemoteShards.Prove(ctx, id, groups)
}

// TestSurplusForALiar: a peer answers audits of a shard with the copy of the one
// that audits. It is found as soon as that copy is set aside, which is then taken
// back.
func TestSurplusForALiar(t *testing.T) {
	skipShort(t)
	const peers = 6
	var liar, victim atomic.Int32
	stores := make([]storage.RemoteShards, peers)
	config := repairing(peers, "2+2", func(_ int, c *node.Config) { c.Retention.Floor = surplusFloor })
	config.Shards = func(i int, s storage.RemoteShards) storage.RemoteShards {
		stores[i] = s
		return relay{s, func() storage.RemoteShards {
			if liar.Load() == int32(i) && i > 0 {
				return stores[victim.Load()]
			}
			return nil
		}}
	}
	gridtest.Run(t, config, func(t *testing.T, c *gridtest.Cluster) {
		source := doubled(t, c, 4)
		by, keeper, id := firstAside(t, c)
		victim.Store(int32(slices.Index(c.Peers, by)))
		liar.Store(int32(slices.Index(c.Peers, keeper)))
		waitUntil(t, "the copy is taken back", surplusFloor, func() bool { return slices.Contains(shardsOf(t, by), id) })
		if sum := auditsOf(c, keeper); sum.missing == 0 {
			t.Errorf("the liar's audits: %+v", sum)
		}
		time.Sleep(surplusFloor + 2*repairGrace)
		if !slices.Contains(shardsOf(t, by), id) {
			t.Errorf("the only copy is gone for a liar")
		}
		keeper.Stop()
		wantRestored(t, c.Peers[0], source)
	})
}
