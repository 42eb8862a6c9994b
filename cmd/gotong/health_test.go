package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"gotong/grid/localgrid"
	"gotong/storage"
)

// healing is the environment of peers that repair within seconds.
func healing(grace time.Duration, more ...string) []string {
	return append([]string{"GOTONG_REPAIR_GRACE=" + grace.String(), "GOTONG_REPAIR_INTERVAL=1s"}, more...)
}

// sizeFrom returns a number from the environment, by which a test is made
// bigger, or else the small one.
func sizeFrom(t *testing.T, name string, small int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return small
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// kept is what is in one directory of the shard stores of peers.
type kept struct {
	shards map[storage.SegmentID]map[int]int // copies of each shard
	bytes  int64
	files  int
}

// keptIn looks into a directory of shard stores: shards, or trash.
func keptIn(t *testing.T, where string, peers ...*localgrid.Peer) kept {
	t.Helper()
	k := kept{shards: map[storage.SegmentID]map[int]int{}}
	for _, p := range peers {
		_ = filepath.WalkDir(filepath.Join(storeOf(p), where), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return nil // moved meanwhile
			}
			name := entry.Name()
			if where == "trash" {
				name = name[:len(name)-len(filepath.Ext(name))]
			}
			id, err := storage.ParseShardID(name)
			info, gone := entry.Info()
			if err != nil || gone != nil {
				return nil
			}
			if k.shards[id.Segment] == nil {
				k.shards[id.Segment] = map[int]int{}
			}
			k.shards[id.Segment][id.Index]++
			k.bytes += info.Size()
			k.files++
			return nil
		})
	}
	return k
}

// storeOf is the directory of the shards that a peer keeps.
func storeOf(p *localgrid.Peer) string { return filepath.Join(p.Home, "peer", "shards") }

// missing says in words which segments have fewer than n shards; empty: none.
func (k kept) missing(n int) string {
	for id, shards := range k.shards {
		if len(shards) < n {
			return fmt.Sprintf("%d of %d shards of segment %s", len(shards), n, id.Short())
		}
	}
	if len(k.shards) == 0 {
		return "no shard at all"
	}
	return ""
}

// waitHealed returns how long it took until the peers keep all n shards of each
// of at least some segments.
func waitHealed(ctx context.Context, t *testing.T, within time.Duration, n, segments int, peers ...*localgrid.Peer) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		k := keptIn(t, "shards", peers...)
		what := k.missing(n)
		if what == "" && len(k.shards) < segments {
			what = fmt.Sprintf("%d of %d segments", len(k.shards), segments)
		}
		if what == "" {
			return time.Since(began)
		}
		if time.Since(began) > within {
			t.Fatalf("not healthy within %s: %s", within, what)
		}
		select {
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// newDisk starts a peer again whose disk for others is new.
func newDisk(ctx context.Context, t *testing.T, p *localgrid.Peer) {
	t.Helper()
	must(t, p.Kill())
	must(t, os.RemoveAll(storeOf(p)))
	must(t, p.Start(ctx))
}

// must fails the test with an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type checkSummary struct {
	Type          string  `json:"type"`
	Segments      uint64  `json:"segments"`
	Healthy       uint64  `json:"healthy"`
	Degraded      uint64  `json:"degraded"`
	Lost          uint64  `json:"lost"`
	ShardsChecked uint64  `json:"shards_checked"`
	ShardsBad     uint64  `json:"shards_bad"`
	Seconds       float64 `json:"seconds"`
	SegmentsRead  uint64  `json:"segments_read"`
	Problems      uint64  `json:"problems"`
}

// check reads all of a vault. It must find everything in order but for shards
// that are being rebuilt.
func check(ctx context.Context, t *testing.T, p *localgrid.Peer) checkSummary {
	t.Helper()
	var s checkSummary
	if err := p.JSON(ctx, &s, "check", "--read-data"); err != nil {
		t.Fatalf("%v; summary %+v", err, s)
	}
	if s.Type != "summary" || s.Lost != 0 || s.ShardsBad != 0 || s.Problems != 0 || s.SegmentsRead == 0 {
		t.Errorf("check: %+v", s)
	}
	return s
}

// snapshotIDs lists the snapshots of a peer's vault.
func snapshotIDs(ctx context.Context, t *testing.T, p *localgrid.Peer, args ...string) map[string]bool {
	t.Helper()
	var list struct{ Snapshots []struct{ ID string } }
	must(t, p.JSON(ctx, &list, append([]string{"snapshots"}, args...)...))
	ids := map[string]bool{}
	for _, s := range list.Snapshots {
		ids[s.ID] = true
	}
	return ids
}

// wantTree fails the test when a directory differs from the record of its files.
func wantTree(t *testing.T, what string, want map[string][32]byte, dir string) {
	t.Helper()
	got := tree(t, dir)
	for name, sum := range want {
		if got[name] != sum {
			t.Errorf("%s: %s differs", what, name)
		}
	}
	if len(want) != len(got) {
		t.Errorf("%s: %d files, want %d", what, len(got), len(want))
	}
}
