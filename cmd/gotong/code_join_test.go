package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/invite"
	"gotong/grid/localgrid"
	"gotong/grid/node"
)

// joiners is how many use one code at once.
const joiners = 50

// TestOneOfFiftyGetsIn: fifty joiners use one code at once; one gets in.
func TestOneOfFiftyGetsIn(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, _ := grow(ctx, t, g, 0)
	code, err := invite.ParseCode(invitation(ctx, t, you))
	if err != nil {
		t.Fatal(err)
	}
	keys := make([]identity.NodeKey, joiners)
	errs := make([]error, joiners)
	var wait sync.WaitGroup
	for i := range joiners {
		keys[i] = newKey(t)
		wait.Go(func() { _, errs[i] = redeem(ctx, t, keys[i], code) })
	}
	wait.Wait()
	var in []string
	for i, err := range errs {
		switch {
		case err == nil:
			in = append(in, keys[i].PeerID().String())
		case !errors.Is(err, invite.ErrUsed):
			t.Errorf("joiner %d: %v", i, err)
		}
	}
	peers := peersOf(ctx, t, you)
	if len(in) != 1 || len(peers) != 2 || peers[1].ID != in[0] {
		t.Errorf("in: %v; peers: %+v", in, peers)
	}
}

// TestOneGetsInAcrossKill: fifty joiners use one code at once while the inviter
// is killed and started again; one gets in, and nobody is a member that does
// not know it.
func TestOneGetsInAcrossKill(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, _ := grow(ctx, t, g, 0)
	code := invitation(ctx, t, you)
	dir := shortTempDir(t)
	var wait sync.WaitGroup
	made := make([]node.Made, joiners)
	errs := make([]error, joiners)
	for i := range joiners {
		wait.Go(func() { made[i], errs[i] = joinHere(ctx, filepath.Join(dir, fmt.Sprint(i)), code) })
	}
	waitForRedeem(ctx, t, you)
	if err := you.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := you.Start(ctx); err != nil {
		t.Fatal(err)
	}
	wait.Wait()
	var in []string
	for i, err := range errs {
		if err == nil {
			in = append(in, made[i].Peer.String())
		}
	}
	peers := peersOf(ctx, t, you)
	if len(in) != 1 || len(peers) != 2 || peers[1].ID != in[0] {
		t.Errorf("in: %v; peers: %+v", in, peers)
	}
	gotong(ctx, t, "", append([]string{"join", code}, newHome(t)...)...).want(t, 13, "used by another peer")
}

// joinHere joins in this process.
func joinHere(ctx context.Context, home, code string) (node.Made, error) {
	c := node.DefaultConfig()
	c.Name, c.Give, c.Listen = filepath.Base(home), 1e9, "127.0.0.1:0"
	return node.Join(ctx, home, node.JoinParams{Config: c, Code: code, Save: func(string, node.Config) error { return nil }})
}

// waitForRedeem returns when the peer has marked its only invite as used.
func waitForRedeem(ctx context.Context, t *testing.T, p *localgrid.Peer) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.Home, "peer", "invites", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("invites %v, error %v", files, err)
	}
	before, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for ctx.Err() == nil {
		if now, err := os.ReadFile(files[0]); err != nil || string(now) != string(before) {
			return
		}
	}
	t.Fatal(ctx.Err())
}

// TestBadCodes: what a person pastes that is no code, or not a good one any
// more, is told apart and changes nothing.
func TestBadCodes(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, _ := grow(ctx, t, g, 0)
	good := invitation(ctx, t, you)
	short := invitation(ctx, t, you, "--valid", "1s")
	made := time.Now()
	home := newHome(t)
	join := func(code string, args ...string) said {
		t.Helper()
		return gotong(ctx, t, "", append(append([]string{"join", code}, args...), home...)...)
	}
	other := "a"
	if good[20] == 'a' {
		other = "b"
	}
	for _, code := range []string{"", "hello", "gotong1", "gotong1!!!!", good[:len(good)-3], good + "a", good[:20] + other + good[21:], "\x1b[31m" + good[:30], strings.Repeat("a", 100_000)} {
		s := join(code)
		s.want(t, 2, "the code is not whole", "copy the whole line")
		if strings.Contains(s.stderr, "\x1b") {
			t.Errorf("an escape sequence went to the terminal: %q", s.stderr)
		}
	}
	gotong(ctx, t, "  "+strings.ToUpper(good)+"\r\n", append([]string{"join", "-", "--phrase-file", "/nonexistent"}, home...)...).want(t, 2, "recovery phrase")

	<-time.After(time.Until(made.Add(2 * time.Second)))
	join(short).want(t, 13, "has expired", "ask for a new invite")

	// A code of another grid at this peer's address: nobody is let in by it.
	foreign, err := invite.ParseCode(good)
	if err != nil {
		t.Fatal(err)
	}
	foreign.Grid = grid.GridID{1, 2, 3}
	join(foreign.String()).want(t, 13, "nothing was changed")
	foreign, _ = invite.ParseCode(good)
	foreign.Inviter = newKey(t).PeerID()
	join(foreign.String()).want(t, 75, "does not answer")
	foreign, _ = invite.ParseCode(good)
	foreign.Addresses = []string{"127.0.0.1:1"}
	join(foreign.String()).want(t, 75, "does not answer", "gotong up")

	if _, err := os.Stat(filepath.Join(home[1], "peer")); err == nil {
		t.Error("a home was set up")
	}
	if n := len(peersOf(ctx, t, you)); n != 1 {
		t.Errorf("%d peers", n)
	}
	gotong(ctx, t, "\n "+good+" \n", append([]string{"join", "-"}, home...)...).want(t, 0)
	join(good).want(t, 13, "is the home of a peer already")
}

// TestSecondDevice: with the phrase, join makes another device of the owner.
func TestSecondDevice(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 1)
	file := filepath.Join(shortTempDir(t), "phrase")
	words := strings.Fields(you.Phrase)
	if err := os.WriteFile(file, []byte(strings.ToUpper(strings.Join(words, "\n"))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code := invitation(ctx, t, friends[0]) // any member can let the device in
	words[3], words[4] = words[4], words[3]+"x"
	home := newHome(t, "--name", "laptop")
	gotong(ctx, t, strings.Join(words, " "), append([]string{"join", code, "--phrase-file", "-"}, home...)...).want(t, 12, "recovery phrase", "nothing was changed")
	s := gotong(ctx, t, "", append([]string{"join", code, "--phrase-file", file, "--json"}, home...)...)
	s.want(t, 0, `"recovery_phrase":""`, you.Owner)
	up(t, home[1])
	if err := g.WaitAlive(ctx, you, 3); err != nil {
		t.Fatal(err)
	}
	for _, p := range peersOf(ctx, t, friends[0]) {
		if mine := p.Name == "you" || p.Name == "laptop"; mine != (p.Owner == you.Owner) || mine != (p.Site == you.Owner) || p.State != "alive" {
			t.Errorf("%+v", p)
		}
	}
}
