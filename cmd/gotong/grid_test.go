package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotong/grid/localgrid"
)

// TestNoPeerIsSpecial: three people make a grid and one backs up; all are
// killed and restarted in an order in which nobody who was a seed is first.
func TestNoPeerIsSpecial(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 2)
	source := shortTempDir(t)
	writeTree(t, source, 1, 30, 200_000)
	first := backup(ctx, t, you, source)
	for _, p := range g.Peers() {
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []*localgrid.Peer{friends[1], friends[0], you} {
		if err := p.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range g.Peers() {
		if err := g.WaitAlive(ctx, p, 3); err != nil {
			t.Fatal(err)
		}
	}
	sameTree(t, source, restore(ctx, t, you, first.Snapshot, source))
	again := backup(ctx, t, you, source)
	if again.NewBytes > 1000 { // a directory above the source may have changed
		t.Errorf("an unchanged tree had %d new bytes", again.NewBytes)
	}
	var made struct{ Code string }
	if err := friends[1].JSON(ctx, &made, "invite"); err != nil || made.Code == "" {
		t.Errorf("a friend cannot invite: %v", err)
	}
}

// TestAnyTwoOfSix: with 4+2 on six holders any two may die; with three dead the
// restore says so, names them and leaves no file that passes as whole; with one
// back it works.
func TestAnyTwoOfSix(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t, "--redundancy", "4+2")
	you, friends := grow(ctx, t, g, 6)
	source := shortTempDir(t)
	writeTree(t, source, 2, 60, 300_000)
	s := backup(ctx, t, you, source)
	if !s.Complete || s.SurvivesSites != 2 {
		t.Fatalf("summary %+v", s)
	}
	kill := func(p *localgrid.Peer) {
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	kill(friends[0])
	kill(friends[3])
	sameTree(t, source, restore(ctx, t, you, "latest", source))

	kill(friends[5])
	target := filepath.Join(shortTempDir(t), "back")
	code, what := failure(t, you.JSON(ctx, nil, "restore", "latest", "--target", target))
	if code != 4 || !strings.Contains(what, "needs 4 of 6, 3 answered") {
		t.Errorf("exit code %d: %s", code, what)
	}
	for _, p := range []*localgrid.Peer{friends[0], friends[3], friends[5]} {
		if !strings.Contains(what, p.Name) {
			t.Errorf("%q does not name %s", what, p.Name)
		}
	}
	want := tree(t, source)
	if _, err := os.Stat(filepath.Join(target, source)); err == nil {
		for name, sum := range tree(t, filepath.Join(target, source)) {
			if whole, ok := want[name]; ok && whole != sum {
				t.Errorf("%s is there under its name and is not whole", name)
			}
		}
	}
	if err := friends[3].Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.WaitAlive(ctx, you, 5); err != nil {
		t.Fatal(err)
	}
	sameTree(t, source, restore(ctx, t, you, "latest", source))

	// Who is back is used again at once.
	for _, p := range []*localgrid.Peer{friends[0], friends[5]} {
		if err := p.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.WaitAlive(ctx, you, 7); err != nil {
		t.Fatal(err)
	}
	more := shortTempDir(t)
	writeTree(t, more, 7, 10, 300_000)
	if s := backup(ctx, t, you, more); !s.Complete || s.SurvivesSites != 2 {
		t.Errorf("after all are back: %+v", s)
	}
}

// TestRemovedPeerIsCut: seconds after it was removed a peer is refused.
func TestRemovedPeerIsCut(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 2)
	if err := you.JSON(ctx, nil, "remove", friends[0].Name); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*localgrid.Peer{you, friends[1]} {
		waitState(ctx, t, p, friends[0].ID, "removed")
	}
	if code, what := failure(t, friends[0].JSON(ctx, nil, "backup", shortTempDir(t))); code == 0 {
		t.Errorf("a removed peer could back up: %s", what)
	}
}

// waitState returns when p sees the peer id in a state.
func waitState(ctx context.Context, t *testing.T, p *localgrid.Peer, id, state string) {
	t.Helper()
	eventually(ctx, t, time.Minute, p.Name+" sees the state "+state, func() (bool, error) {
		var list struct{ Peers []struct{ ID, State string } }
		err := p.JSON(ctx, &list, "peers")
		for _, other := range list.Peers {
			if other.ID == id && other.State == state {
				return true, nil
			}
		}
		return false, err
	})
}
