package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotong/grid/localgrid"
)

// TestFriendsWithoutRoom: friends whose pledge is used up are named as such,
// with the exit code of a refusal; when they give more the backup goes through.
func TestFriendsWithoutRoom(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t, "--give", "8MB")
	you, friends := grow(ctx, t, g, 2)
	source := shortTempDir(t)
	writeTree(t, source, 11, 30, 2_000_000)
	code, what := failure(t, you.JSON(ctx, nil, "backup", source))
	if code != 13 {
		t.Errorf("exit code %d", code)
	}
	for _, text := range []string{"no room", friends[0].Name, friends[1].Name} {
		if strings.Count(what, text) != 1 {
			t.Errorf("%q should say %q once", what, text)
		}
	}
	for _, friend := range friends {
		if err := friend.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := friend.Start(ctx, "--give", "1GB"); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(ctx, t, "a backup to go through", func() bool { return you.JSON(ctx, nil, "backup", source) == nil })
	sameTree(t, source, restore(ctx, t, you, "latest", source))
}

// waitFor returns when a condition holds, which is tried again and again.
func waitFor(ctx context.Context, t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline, again := time.After(3*time.Minute), time.NewTicker(200*time.Millisecond)
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatal("no end of waiting for " + what)
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		}
	}
}

// TestNobodyAnswers: with all friends gone a restore says who is missing, by
// name, and nothing of addresses and calls.
func TestNobodyAnswers(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 2)
	source := shortTempDir(t)
	writeTree(t, source, 12, 5, 10_000)
	backup(ctx, t, you, source)
	for _, p := range g.Peers() { // the owner too: it must not remember headers
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	if err := you.Start(ctx); err != nil {
		t.Fatal(err)
	}
	code, what := failure(t, you.JSON(ctx, nil, "restore", "latest", "--target", filepath.Join(shortTempDir(t), "back")))
	if code != 4 || strings.Contains(what, "127.0.0.1") || strings.Contains(what, "dial") {
		t.Errorf("exit code %d: %s", code, what)
	}
	for _, friend := range friends {
		if strings.Count(what, friend.Name) != 1 {
			t.Errorf("%q should name %s once", what, friend.Name)
		}
	}
}

// TestDamagedHead: a head file that a power cut or a bad disk left unreadable
// keeps the peer neither from serving nor from restoring nor from backing up.
func TestDamagedHead(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, _ := grow(ctx, t, g, 2)
	source := shortTempDir(t)
	writeTree(t, source, 13, 10, 50_000)
	backup(ctx, t, you, source)
	backup(ctx, t, you, source)
	if err := you.Kill(); err != nil {
		t.Fatal(err)
	}
	heads, err := filepath.Glob(filepath.Join(you.Home, "peer", "vault", "heads", "*2"))
	if err != nil || len(heads) != 1 {
		t.Fatalf("heads %q, %v", heads, err)
	}
	if err := os.Truncate(heads[0], 20); err != nil {
		t.Fatal(err)
	}
	if err := you.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.WaitAlive(ctx, you, 3); err != nil {
		t.Fatal(err)
	}
	sameTree(t, source, restore(ctx, t, you, "latest", source))
	if s := backup(ctx, t, you, source); s.NewBytes > 1000 { // a directory above the source may have changed
		t.Errorf("%d new bytes", s.NewBytes)
	}
	var list struct{ Snapshots []struct{ ID string } }
	if err := you.JSON(ctx, &list, "snapshots"); err != nil || len(list.Snapshots) != 3 {
		t.Errorf("snapshots %+v, %v", list, err)
	}
}

// TestInterruptedCommands: Ctrl-C ends a backup and a restore with exit code
// 130, and the same command goes through afterwards.
func TestInterruptedCommands(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, _ := grow(ctx, t, g, 2)
	source := shortTempDir(t)
	writeTree(t, source, 14, 20, 30_000_000)
	if code := interrupt(ctx, t, you, "backup", source); code != 130 {
		t.Errorf("interrupted backup: exit code %d", code)
	}
	backup(ctx, t, you, source)
	target := filepath.Join(shortTempDir(t), "back")
	if code := interrupt(ctx, t, you, "restore", "latest", "--target", target); code != 130 {
		t.Errorf("interrupted restore: exit code %d", code)
	}
	if err := you.JSON(ctx, nil, "restore", "latest", "--target", target); err != nil {
		t.Fatal(err)
	}
	sameTree(t, source, target+source)
}

// interrupt sends a command the signal of Ctrl-C once it works, and returns its
// exit code.
func interrupt(ctx context.Context, t *testing.T, p *localgrid.Peer, args ...string) int {
	t.Helper()
	cmd := p.Command(ctx, append([]string{args[0], "--json"}, args[1:]...)...)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n') // in the middle of it
	if err != nil || !strings.Contains(line, "progress") {
		t.Errorf("%s said %q first, %v", args[0], line, err)
	}
	must(t, cmd.Process.Signal(os.Interrupt))
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait() // the code is what matters
	return cmd.ProcessState.ExitCode()
}

// TestOwnHome: the home of the peer is backed up neither by itself nor below
// what is asked for.
func TestOwnHome(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, _ := grow(ctx, t, g, 1)
	if code, what := failure(t, you.JSON(ctx, nil, "backup", you.Home)); code != 1 {
		t.Errorf("exit code %d: %s", code, what)
	}
	above := filepath.Dir(you.Home)
	if err := os.WriteFile(filepath.Join(above, "file"), []byte("here"), 0o600); err != nil {
		t.Fatal(err)
	}
	var seen []string
	if err := you.Lines(ctx, func([]byte) error { return nil }, "backup", above); err != nil {
		if code, what := failure(t, err); code != 3 { // the friend's home is being written meanwhile
			t.Fatalf("exit code %d: %s", code, what)
		}
	}
	out, err := you.Command(ctx, "ls", "-r", "latest", above).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		seen = append(seen, strings.Fields(line)[len(strings.Fields(line))-1])
	}
	if !slices.Contains(seen, filepath.Join(above, "file")) {
		t.Errorf("the file beside the home is missing in %q", seen)
	}
	for _, path := range seen {
		if path == you.Home || strings.HasPrefix(path, you.Home+"/") {
			t.Errorf("%s is in the snapshot", path)
		}
	}
}
