package main

import (
	"context"
	"testing"
	"time"

	"gotong/grid/localgrid"
)

// TestHealsWithoutTheOwner: the owner's process is stopped and two of eight
// holders get new disks; the others rebuild every shard within the grace and the
// transfer. Then two more. The owner comes back and restores everything. Then
// two holders vanish: after the grace their shards are elsewhere.
func TestHealsWithoutTheOwner(t *testing.T) {
	ctx := testContext(t)
	const grace = 2 * time.Second
	limit := grace + time.Duration(sizeFrom(t, "HEAL_SECONDS", 40))*time.Second
	g := newGridWith(t, healing(grace), "--redundancy", "4+2")
	you, friends := grow(ctx, t, g, 8)
	source := shortTempDir(t)
	writeTree(t, source, 31, sizeFrom(t, "HEAL_FILES", 20), 1_000_000)
	s := backup(ctx, t, you, source)
	if !s.Complete || s.SurvivesSites != 2 {
		t.Fatalf("summary %+v", s)
	}
	segments := len(keptIn(t, "shards", friends...).shards)
	must(t, you.Stop())
	for _, pair := range [][]*localgrid.Peer{friends[0:2], friends[2:4]} {
		for _, p := range pair {
			newDisk(ctx, t, p)
		}
		took := waitHealed(ctx, t, limit, 6, segments, friends...)
		t.Logf("two new disks: %d segments healthy again after %s", segments, took)
	}
	must(t, you.Start(ctx))
	must(t, g.WaitAlive(ctx, you, 9))
	sameTree(t, source, restore(ctx, t, you, "latest", source))
	if s := check(ctx, t, you); s.Degraded != 0 {
		t.Errorf("check after the owner is back: %+v", s)
	}

	must(t, you.Stop())
	vanish(ctx, t, friends[4:6], friends, limit, segments)
	must(t, you.Start(ctx))
	must(t, g.WaitAlive(ctx, you, 7))
	sameTree(t, source, restore(ctx, t, you, "latest", source))
	if s := backup(ctx, t, you, source); s.NewBytes > 10_000 || !s.Complete || s.SurvivesSites != 2 {
		t.Errorf("backup with two away: %+v", s)
	}
}

// vanish kills some of the peers and waits until the others have all.
func vanish(ctx context.Context, t *testing.T, some, all []*localgrid.Peer, limit time.Duration, segments int) {
	t.Helper()
	gone := map[*localgrid.Peer]bool{}
	for _, p := range some {
		must(t, p.Kill())
		gone[p] = true
	}
	var left []*localgrid.Peer
	for _, p := range all {
		if !gone[p] {
			left = append(left, p)
		}
	}
	took := waitHealed(ctx, t, limit, 6, segments, left...)
	t.Logf("two gone: %d segments healthy again after %s", segments, took)
}
