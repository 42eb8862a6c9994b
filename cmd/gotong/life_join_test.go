package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestOneProcessPerHome: a second peer on a home is refused, a home without a
// peer too, and a killed peer starts again at once.
func TestOneProcessPerHome(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, _ := grow(ctx, t, g, 0)
	gotong(ctx, t, "", "--home", you.Home, "up").want(t, 11, "another gotong process uses")
	gotong(ctx, t, "", "--home", you.Home, "init").want(t, 11, "another gotong process uses")
	empty := shortTempDir(t)
	gotong(ctx, t, "", "--home", empty, "up").want(t, 10, "no peer in", "gotong init, or gotong join CODE")
	gotong(ctx, t, "", "--home", filepath.Join(empty, "missing"), "status").want(t, 10, "no peer in")
	for range 3 {
		if err := you.Kill(); err != nil {
			t.Fatal(err)
		}
		s := gotong(ctx, t, "", "--home", you.Home, "status")
		s.want(t, 10, "is not running", "try: gotong up")
		if strings.Contains(s.stderr, "dial unix") {
			t.Errorf("the user reads of sockets: %s", s.stderr)
		}
		if err := you.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(peersOf(ctx, t, you)); n != 1 {
		t.Errorf("%d peers", n)
	}
}

// TestInviterIsGone: a member whose inviter died right after the join gets in
// with a third peer, which it knows from the records only, by showing its
// statements.
func TestInviterIsGone(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 1)
	inviter := friends[0]
	if err := you.Stop(); err != nil { // it must not hear of the newcomer
		t.Fatal(err)
	}
	home := newHome(t, "--name", "newcomer")
	gotong(ctx, t, "", append([]string{"join", invitation(ctx, t, inviter)}, home...)...).want(t, 0)
	if err := inviter.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := you.Start(ctx); err != nil {
		t.Fatal(err)
	}
	up(t, home[1])
	eventually(ctx, t, 2*time.Minute, "the newcomer is in", func() (bool, error) {
		for _, p := range peersOf(ctx, t, you) {
			if p.Name == "newcomer" && p.State == "alive" {
				return true, nil
			}
		}
		return false, nil
	})
	gotong(ctx, t, "", "--home", home[1], "peers").want(t, 0, "you")
}

// TestLeave: who left is shown as left everywhere, after restarts and by peers
// that slept, and cannot come up again.
func TestLeave(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 2)
	leaving, sleeper := friends[0], friends[1]
	if err := sleeper.Stop(); err != nil {
		t.Fatal(err)
	}
	pid := leaving.PID()
	if err := leaving.JSON(ctx, nil, "leave"); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, time.Minute, "its process ends", func() (bool, error) {
		return gotong(ctx, t, "", "--home", leaving.Home, "status").code == 10 && pid != 0, nil
	})
	waitState(ctx, t, you, leaving.ID, "left")
	if err := sleeper.Start(ctx); err != nil {
		t.Fatal(err)
	}
	waitState(ctx, t, sleeper, leaving.ID, "left")
	if err := you.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := you.Start(ctx); err != nil {
		t.Fatal(err)
	}
	waitState(ctx, t, you, leaving.ID, "left")
	gotong(ctx, t, "", "--home", leaving.Home, "up").want(t, 13, "was removed from the grid, or left it", "ask for an invite")
}

// TestOddHomes: homes that are too long for a socket's address work, and what
// cannot be a home is said to be none.
func TestOddHomes(t *testing.T) {
	ctx := testContext(t)
	if testing.Short() {
		t.Skip("runs whole peers as processes")
	}
	t.Parallel()
	dir := shortTempDir(t)
	flags := []string{"--listen", "127.0.0.1:0", "--give", "1GB", "--slots", "1"}
	set := func(home string) said {
		return gotong(ctx, t, "", append([]string{"init", "--home", home}, flags...)...)
	}

	long := filepath.Join(dir, strings.Repeat("long/", 40), "ö")
	set(long).want(t, 0)
	peer := up(t, long)
	gotong(ctx, t, "", "--home", long, "status").want(t, 0, "1 of 1 alive")
	gotong(ctx, t, "", "--home", long, "up").want(t, 11)
	peer.end(t)

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, home := range []string{file, filepath.Join(file, "below")} {
		set(home).want(t, 1, "cannot be the home of a peer", "not a directory", "--home DIR")
		for _, command := range []string{"up", "status", "peers"} {
			gotong(ctx, t, "", "--home", home, command).want(t, 1, "cannot be the home of a peer", "not a directory")
		}
	}
	gotong(ctx, t, "", "--home", "", "status").want(t, 2, "--home is empty")

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := gotong(ctx, t, "", "--home", long, "up", "--listen", taken.Addr().String())
	s.want(t, 1, "cannot listen on "+taken.Addr().String(), "address already in use", "--listen HOST:PORT")
	if strings.Count(s.stderr, "cannot listen") > 1 || strings.Contains(s.stderr, "listen tcp") {
		t.Errorf("said twice: %s", s.stderr)
	}
	for _, listen := range []string{"nonsense", ":99999", "1.2.3.4", ":http-nonsense"} {
		gotong(ctx, t, "", "init", "--home", filepath.Join(dir, "x"), "--listen", listen).want(t, 2, "is not HOST:PORT")
	}
	for _, name := range []string{"a\x1b[31mb", "a\nb", "\xff\xfe", "\u202eabc", strings.Repeat("n", 100)} {
		s := gotong(ctx, t, "", "init", "--home", filepath.Join(dir, "x"), "--grid", "g", "--name", name)
		s.want(t, 2, "name: ")
		if strings.ContainsAny(s.stderr, "\x1b\u202e") {
			t.Errorf("an escape sequence went to the terminal: %q", s.stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("a refused init left a home behind")
	}
}
