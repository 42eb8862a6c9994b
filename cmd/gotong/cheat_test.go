package main

import (
	"context"
	"crypto/sha256"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotong/grid/localgrid"
	"gotong/storage"
)

// faults counts the challenges of others that a peer failed.
func faults(ctx context.Context, t *testing.T, of *localgrid.Peer, by ...*localgrid.Peer) (n uint64) {
	t.Helper()
	for _, p := range by {
		var list struct {
			Peers []struct {
				ID    string
				Audit *struct{ Wrong, Missing uint64 }
			}
		}
		must(t, p.JSON(ctx, &list, "peers"))
		for _, other := range list.Peers {
			if other.ID == of.ID && other.Audit != nil {
				n += other.Audit.Wrong + other.Audit.Missing
			}
		}
	}
	return n
}

// shardsOf lists the shard files of one peer.
func shardsOf(t *testing.T, p *localgrid.Peer) (paths []string) {
	t.Helper()
	_ = filepath.WalkDir(filepath.Join(storeOf(p), "shards"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if _, err := storage.ParseShardID(entry.Name()); err == nil {
				paths = append(paths, path)
			}
		}
		return nil
	})
	if len(paths) == 0 {
		t.Fatalf("%s holds nothing", p.Name)
	}
	return paths
}

// TestDisksThatLie: one holder's files vanish behind its back, the bits of
// another's are flipped. Both go on running. They are found by audits, and everything
// is whole again, though the owner is away.
func TestDisksThatLie(t *testing.T) {
	ctx := testContext(t)
	g := newGridWith(t, healing(time.Hour, "GOTONG_AUDIT_INTERVAL=2s"), "--redundancy", "2+3")
	you, friends := grow(ctx, t, g, 7)
	source := shortTempDir(t)
	writeTree(t, source, 61, sizeFrom(t, "HEAL_FILES", 20), 1_000_000)
	if s := backup(ctx, t, you, source); !s.Complete {
		t.Fatalf("summary %+v", s)
	}
	must(t, you.Stop())
	var holders []*localgrid.Peer
	for _, p := range friends {
		if keptIn(t, "shards", p).files > 0 {
			holders = append(holders, p)
		}
	}
	empty, flipped := holders[0], holders[1]
	want := payloads(t, nil, friends...)
	had := len(shardsOf(t, empty)) + len(shardsOf(t, flipped))
	for _, path := range shardsOf(t, empty) {
		must(t, os.Remove(path))
	}
	for _, path := range shardsOf(t, flipped) {
		data, err := os.ReadFile(path)
		must(t, err)
		for i := 4096; i < len(data); i += 8192 {
			data[i] ^= 1
		}
		must(t, os.Chmod(path, 0o600))
		must(t, os.WriteFile(path, data, 0o600))
	}
	began := time.Now()
	waitFor(ctx, t, "the empty disk to be found", func() bool {
		return faults(ctx, t, empty, friends...) > 0 || keptIn(t, "shards", empty).files > 0
	})
	found := time.Since(began)
	waitFor(ctx, t, "all shards to be whole again", func() bool { return maps.Equal(payloads(t, want, friends...), want) })
	t.Logf("%d of %d shards gone or flipped; the first found after %s, all whole after %s", had, len(want), found, time.Since(began))
	must(t, you.Start(ctx))
	must(t, g.WaitAlive(ctx, you, 8))
	if s := check(ctx, t, you); s.Degraded != 0 {
		t.Errorf("check: %+v", s)
	}
	sameTree(t, source, restore(ctx, t, you, "latest", source))
}

// payloads returns the hash of what each shard on the disks of peers holds, from
// the best copy: the one that is as in want, if any.
func payloads(t *testing.T, want map[storage.ShardID][32]byte, peers ...*localgrid.Peer) map[storage.ShardID][32]byte {
	t.Helper()
	const pages = 8192 // before the payload: header and holders
	sums := map[storage.ShardID][32]byte{}
	for _, p := range peers {
		_ = filepath.WalkDir(filepath.Join(storeOf(p), "shards"), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return nil // moved meanwhile
			}
			id, err := storage.ParseShardID(entry.Name())
			data, gone := os.ReadFile(path)
			if err != nil || gone != nil || len(data) < pages {
				return nil
			}
			if sum := sha256.Sum256(data[pages:]); sums[id] == [32]byte{} || want[id] == sum {
				sums[id] = sum
			}
			return nil
		})
	}
	return sums
}
