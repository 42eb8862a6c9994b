package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotong/grid/localgrid"
	"gotong/tasks/guests"
)

// TestBadShardsOnDisk: a flipped bit, a truncated file, the shard of another
// segment in a shard's place, and garbage, each on another holder. Every restore
// is right, and status says where.
func TestBadShardsOnDisk(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t, "--redundancy", "2+4")
	you, friends := grow(ctx, t, g, 6)
	source := shortTempDir(t)
	writeTree(t, source, 6, 40, 1_000_000)
	if s := backup(ctx, t, you, source); !s.Complete || s.Segments < 2 {
		t.Fatalf("summary %+v", s)
	}
	edit := func(p *localgrid.Peer, change func(data, other []byte) []byte) {
		files := shardFiles(t, p)
		if len(files) < 2 {
			t.Fatalf("%s holds %d shards", p.Name, len(files))
		}
		other, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files[1:] {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(name, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, change(data, other), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	// With one of the two that stay whole gone, nobody can put the others right,
	// every bad shard is looked at, and none is taken for good.
	if err := friends[5].Kill(); err != nil {
		t.Fatal(err)
	}
	edit(friends[0], func(data, _ []byte) []byte { data[len(data)/2] ^= 1; return data })
	edit(friends[1], func(data, _ []byte) []byte { return data[:len(data)*2/3] })
	edit(friends[2], func(_, other []byte) []byte { return other })
	edit(friends[3], func(data, _ []byte) []byte {
		for i := range data {
			data[i] = byte(rand.Uint32())
		}
		return data
	})
	err := you.JSON(ctx, nil, "restore", "latest", "--target", filepath.Join(shortTempDir(t), "back"))
	if code, what := failure(t, err); code != 4 || !strings.Contains(what, "bad data from") {
		t.Errorf("exit code %d: %s", code, what)
	}
	if err := friends[5].Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.WaitAlive(ctx, you, 7); err != nil {
		t.Fatal(err)
	}
	sameTree(t, source, restore(ctx, t, you, "latest", source))
	if n := problemsOf(ctx, t, you) + problemsOf(ctx, t, friends[0], friends[1], friends[2], friends[3]); n == 0 {
		t.Error("no status names a bad shard")
	}
}

// problemsOf counts the problems that peers' status names.
func problemsOf(ctx context.Context, t *testing.T, peers ...*localgrid.Peer) int {
	t.Helper()
	n := 0
	for _, p := range peers {
		var s struct {
			Sentence string
			Problems []struct{ What, Why, Do string }
		}
		if err := p.JSON(ctx, &s, "status"); err != nil {
			t.Fatal(err)
		}
		for _, problem := range s.Problems {
			t.Logf("%s: %s: %s; %s", p.Name, problem.What, problem.Why, problem.Do)
		}
		n += len(s.Problems)
	}
	return n
}

// killRounds is how often TestKillNine kills; the environment may ask for more.
func killRounds(t *testing.T) int {
	t.Helper()
	text := os.Getenv("KILL_ROUNDS")
	if text == "" {
		return 5
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestKillNine: a holder or the owner is killed at a random moment of a backup,
// again and again. What was acknowledged is there: every committed snapshot
// restores, and the next backup goes through.
func TestKillNine(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	g := newGrid(t, "--redundancy", "2+2")
	you, _ := grow(ctx, t, g, 4)
	source := shortTempDir(t)
	type kept struct {
		snapshot string
		tree     map[string][32]byte
	}
	var snapshots []kept
	for round := range killRounds(t) {
		writeTree(t, source, uint64(round), 30, 400_000)
		ended := make(chan error, 1)
		var s backupSummary
		go func() { ended <- you.JSON(ctx, &s, "backup", source) }()
		victim := g.Peers()[rand.IntN(len(g.Peers()))]
		<-time.After(time.Duration(rand.IntN(400)) * time.Millisecond)
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		err := <-ended
		var failed *localgrid.CommandError
		if err != nil && !errors.As(err, &failed) {
			t.Fatal(err)
		}
		if err == nil && s.Committed {
			snapshots = append(snapshots, kept{s.Snapshot, tree(t, source)})
		}
		if err := victim.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if err := g.WaitAlive(ctx, you, 5); err != nil {
			t.Fatal(err)
		}
		after := backup(ctx, t, you, source)
		snapshots = append(snapshots, kept{after.Snapshot, tree(t, source)})
		checked := snapshots[rand.IntN(len(snapshots))]
		back := restore(ctx, t, you, checked.snapshot, source)
		for name, sum := range tree(t, back) {
			if checked.tree[name] != sum {
				t.Fatalf("round %d: %s of snapshot %s differs", round, name, checked.snapshot)
			}
		}
		if err := os.RemoveAll(strings.TrimSuffix(back, source)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d snapshots", len(snapshots))
}

// TestHostileGuests: a program that never ends, one that takes all memory, one
// that forks, one that opens files outside, one that opens sockets: each ends
// with a clear state, and no peer notices.
func TestHostileGuests(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, _ := grow(ctx, t, g, 1)
	for _, test := range []struct {
		guest string
		flags []string
		state string
	}{
		{guests.Spin, []string{"--timeout", "1s"}, "limit"},
		{guests.Hog, []string{"--memory", "64MiB"}, ""},
		{guests.Recurse, nil, ""},
		{guests.Fork, nil, "failed"},
		{guests.Escape, nil, "done"}, // exit code 0: nothing was reached
		{guests.Socket, nil, "done"},
		{guests.Flood, nil, "limit"},
		{guests.Fill, []string{"--timeout", "3s"}, ""},
	} {
		t.Run(test.guest, func(t *testing.T) {
			lines, err := run(ctx, t, you, append(test.flags, guest(t, test.guest))...)
			if len(lines) == 0 || lines[0].Type != "task" {
				t.Fatalf("lines %+v, error %v", lines, err)
			}
			got := lines[0]
			t.Logf("%s: exit code %d, %s", got.State, got.ExitCode, got.Why)
			if test.state != "" && got.State != test.state {
				t.Errorf("state %s, want %s", got.State, test.state)
			}
			if got.State != "done" && got.Why == "" {
				t.Error("no reason in words")
			}
			if (got.State == "done") != (err == nil) {
				t.Errorf("state %s, error %v", got.State, err)
			}
		})
	}
	for _, p := range g.Peers() {
		if err := g.WaitAlive(ctx, p, 2); err != nil {
			t.Error(err)
		}
	}
}

// TestRunItems: output comes in the order of the items, files come back under
// encoded names, and a worker that dies has its tasks run elsewhere.
func TestRunItems(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 2)

	out := filepath.Join(shortTempDir(t), "out")
	lines, err := run(ctx, t, you, "--output", out, guest(t, guests.Outfile), "result", "{}", ":::", "a b", ".dot", "a b", "plain")
	if err != nil {
		t.Fatal(err)
	}
	if last := lines[len(lines)-1]; last.Type != "summary" || last.Done != 4 {
		t.Errorf("summary %+v", last)
	}
	for name, want := range map[string]string{"a%20b": "a b", "%2Edot": ".dot", "a%20b~2": "a b", "plain": "plain"} {
		if got, err := os.ReadFile(filepath.Join(out, name, "result")); err != nil || !strings.HasPrefix(string(got), want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}

	args := []string{guest(t, guests.Spin), "40", ":::"}
	for i := range 40 {
		args = append(args, strconv.Itoa(i))
	}
	killed := make(chan error, 1)
	go func() {
		<-time.After(300 * time.Millisecond)
		killed <- friends[0].Kill()
	}()
	lines, err = run(ctx, t, you, args...)
	if err := errors.Join(err, <-killed); err != nil {
		t.Fatal(err)
	}
	for i, l := range lines[:len(lines)-1] {
		if l.Index != i || l.State != "done" {
			t.Errorf("line %d: %+v", i, l)
		}
	}
	if len(lines) != 41 {
		t.Errorf("%d lines", len(lines))
	}
}
