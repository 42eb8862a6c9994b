package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestOldHomeAfterRecovery: the owner recovered on a new machine; then the old
// one, that was only off and was killed in the middle of a backup, is started
// again. It is told so in clear words, whatever it tries, and does no harm.
func TestOldHomeAfterRecovery(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t, "--redundancy", "2+2")
	old, friends := grow(ctx, t, g, 4)
	source := shortTempDir(t)
	writeTree(t, source, 51, 40, 200_000)
	first := backup(ctx, t, old, source)
	firstTree := tree(t, source)
	writeTree(t, source, 52, 10, 200_000)
	second := backup(ctx, t, old, source)
	secondTree := tree(t, source)
	writeTree(t, filepath.Join(source, "more"), 53, 40, 500_000)
	ended := make(chan error, 1)
	go func() { ended <- old.JSON(ctx, nil, "backup", source) }()
	<-time.After(200 * time.Millisecond)
	must(t, old.Kill())
	<-ended // killed or not, it is all one

	phrase := filepath.Join(shortTempDir(t), "phrase")
	must(t, os.WriteFile(phrase, []byte(old.Phrase+"\n"), 0o600))
	fresh, err := g.Recover(ctx, friends[0], "fresh", phrase)
	must(t, err)
	must(t, g.WaitAlive(ctx, fresh, 5))
	ids := snapshotIDs(ctx, t, fresh)
	if !ids[first.Snapshot] || !ids[second.Snapshot] {
		t.Errorf("snapshots %v after recovery, want %s and %s", ids, first.Snapshot, second.Snapshot)
	}
	wantTree(t, "the first", firstTree, restore(ctx, t, fresh, first.Snapshot, source))
	wantTree(t, "the second", secondTree, restore(ctx, t, fresh, second.Snapshot, source))
	must(t, os.RemoveAll(filepath.Join(source, "more")))
	if s := backup(ctx, t, fresh, source); s.NewBytes > 10_000 {
		t.Errorf("the new machine stored %d bytes again", s.NewBytes)
	}
	before := snapshotIDs(ctx, t, fresh)
	kept := keptIn(t, "shards", friends...)

	must(t, old.Start(ctx))
	must(t, g.WaitAlive(ctx, old, 6))
	writeTree(t, filepath.Join(source, "old"), 54, 5, 100_000)
	for _, args := range [][]string{{"backup", source}, {"forget", first.Snapshot}, {"forget", "--keep-last", "1", "--prune"}, {"prune"}} {
		code, what := failure(t, old.JSON(ctx, nil, args...))
		t.Logf("old machine: %s: exit code %d: %s", args[0], code, what)
		if code != 13 || !strings.Contains(what, "took this vault over") {
			t.Errorf("%v: exit code %d: %s", args, code, what)
		}
	}
	if n := problemsOf(ctx, t, old); n == 0 {
		t.Error("status of the old machine says nothing")
	}
	if n := keptIn(t, "trash", friends...).files; n != 0 {
		t.Errorf("%d shards are in the trash", n)
	}
	after := keptIn(t, "shards", friends...)
	for id, shards := range kept.shards {
		if len(after.shards[id]) < len(shards) {
			t.Errorf("shards of segment %s are gone", id.Short())
		}
	}
	if now := snapshotIDs(ctx, t, fresh); len(now) != len(before) {
		t.Errorf("%d snapshots, then %d", len(before), len(now))
	}
	must(t, os.RemoveAll(filepath.Join(source, "old")))
	backup(ctx, t, fresh, source)
	wantTree(t, "the latest", tree(t, source), restore(ctx, t, fresh, "latest", source))
	check(ctx, t, fresh)
}
