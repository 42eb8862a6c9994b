package main

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotong/grid/localgrid"
)

// TestKilledAnywhere: the owner is killed at a random moment of a backup, a
// forget, a prune, a restore and a check, and a holder while it repairs what a
// new disk lacks, again and again. The next run goes through, every snapshot
// that was not forgotten restores, and at the end a check of everything is clean.
func TestKilledAnywhere(t *testing.T) {
	rounds := sizeFrom(t, "KILLED_ROUNDS", 4)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	g := newGridWith(t, healing(10*time.Minute, "GOTONG_RETENTION_FLOOR=2s"), "--redundancy", "2+3")
	you, friends := grow(ctx, t, g, 6)
	n := &nights{t: t, you: you, source: shortTempDir(t), random: rand.New(rand.NewPCG(rand.Uint64(), 0)),
		kept: map[string]map[string][32]byte{}, forgotten: map[string]bool{}}
	n.add(sizeFrom(t, "KILLED_FILES", 100))
	n.night(ctx)
	n.day()
	n.night(ctx)
	ops := []string{"backup", "prune", "restore", "forget", "check"}
	for round := range rounds {
		n.day()
		wiped, repairer := friends[round%len(friends)], friends[(round+1+n.random.IntN(5))%len(friends)]
		newDisk(ctx, t, wiped)
		op := ops[(round+n.random.IntN(2))%len(ops)]
		var some string
		for id := range n.kept {
			some = id
		}
		args := map[string][]string{
			"backup": {"backup", n.source}, "prune": {"prune", "--max-waste", "0%"}, "forget": {"forget", some},
			"check": {"check", "--read-data"}, "restore": {"restore", some, "--target", filepath.Join(shortTempDir(t), "back")},
		}[op]
		if op == "forget" && len(n.kept) > 1 {
			delete(n.kept, some)
			n.forgotten[some] = true
		} else if op == "forget" {
			op, args = "prune", []string{"prune"}
		}
		ended := make(chan error, 1)
		go func() { ended <- you.JSON(ctx, nil, args...) }()
		<-time.After(time.Duration(n.random.IntN(600)) * time.Millisecond)
		must(t, you.Kill())
		err := <-ended
		<-time.After(time.Duration(n.random.IntN(600)) * time.Millisecond)
		must(t, repairer.Kill())
		for _, p := range []*localgrid.Peer{repairer, you} {
			must(t, p.Start(ctx))
		}
		must(t, g.WaitAlive(ctx, you, 7))
		t.Logf("round %d: %s, killed: %v", round, op, err != nil)
		switch op {
		case "forget":
			if snapshotIDs(ctx, t, you)[some] {
				must(t, you.JSON(ctx, nil, args...))
			}
		case "backup":
			// A snapshot may have been made though nobody was told of it.
		default:
			must(t, you.JSON(ctx, nil, args...))
		}
		n.night(ctx)
		listed := snapshotIDs(ctx, t, you)
		for id := range n.kept {
			if !listed[id] {
				t.Fatalf("snapshot %s is not listed", id)
			}
		}
		for id := range n.kept {
			n.restores(ctx, id)
			break
		}
		waitHealed(ctx, t, time.Minute, 5, 1, friends...)
	}
	must(t, you.JSON(ctx, nil, "prune", "--max-waste", "0%"))
	for id := range n.kept {
		n.restores(ctx, id)
	}
	if s := check(ctx, t, you); s.Degraded != 0 {
		t.Errorf("check: %+v", s)
	}
	must(t, os.RemoveAll(n.source))
}
