package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotong/grid/localgrid"
	"gotong/tasks/sandbox"
)

// asProgram in the environment makes this test binary the program itself, so
// that the tests run whole peers as processes without building anything.
const asProgram = "TEST_RUN_AS_PROGRAM"

func TestMain(m *testing.M) {
	// A sandbox child gets an empty environment; were it to run the tests, each
	// would start peers that start children.
	child := len(os.Args) > 1 && os.Args[1] == sandbox.ChildCommand
	if child || os.Getenv(asProgram) != "" {
		main()
	}
	// The tests mostly wait for peers: more at once than there may be processors.
	if err := flag.Set("test.parallel", strconv.Itoa(max(4, runtime.GOMAXPROCS(0)))); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// newGrid returns an empty grid of processes that ends with the test.
func newGrid(t *testing.T, args ...string) *localgrid.Grid {
	t.Helper()
	return newGridWith(t, nil, args...)
}

// newGridWith is newGrid with variables in the environment of all peers.
func newGridWith(t *testing.T, env []string, args ...string) *localgrid.Grid {
	t.Helper()
	if testing.Short() {
		t.Skip("runs whole peers as processes")
	}
	t.Parallel() // they mostly wait
	g := localgrid.New(localgrid.Config{
		Executable: os.Args[0],
		Dir:        shortTempDir(t),
		Env:        append([]string{asProgram + "=1", "GOTONG_GOSSIP_PRESET=local", "GOTONG_DISCOVERY_MDNS=false"}, env...),
		Args:       append([]string{"--give", "5GB", "--slots", "1"}, args...),
	})
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// eventually returns when check does; the test fails when it does not in time.
func eventually(ctx context.Context, t *testing.T, limit time.Duration, what string, check func() (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		ok, err := check()
		if err != nil && ctx.Err() == nil {
			t.Fatalf("%s: %v", what, err)
		}
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", limit, what)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// shortTempDir is t.TempDir with a path that leaves room for a socket's name.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// testContext ends shortly before the test binary is killed. The time does not
// count from here: a parallel test may wait for its turn for minutes.
func testContext(t *testing.T) context.Context {
	t.Helper()
	end, ok := t.Deadline()
	if !ok {
		return t.Context()
	}
	ctx, cancel := context.WithDeadline(t.Context(), end.Add(-20*time.Second))
	t.Cleanup(cancel)
	return ctx
}

// grow makes a grid of one founder and n friends, all alive.
func grow(ctx context.Context, t *testing.T, g *localgrid.Grid, n int) (you *localgrid.Peer, friends []*localgrid.Peer) {
	t.Helper()
	you, err := g.Found(ctx, "you")
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		friend, err := g.Join(ctx, you, fmt.Sprintf("friend-%d", i+1))
		if err != nil {
			t.Fatal(err)
		}
		friends = append(friends, friend)
	}
	if err := g.WaitAlive(ctx, you, n+1); err != nil {
		t.Fatal(err)
	}
	return you, friends
}

// writeTree fills dir with files whose content follows from seed.
func writeTree(t *testing.T, dir string, seed uint64, files, bytesMax int) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range files {
		path := filepath.Join(dir, fmt.Sprintf("d%d", i%7), fmt.Sprintf("f%d", i))
		data := make([]byte, random.IntN(bytesMax))
		for j := range data {
			data[j] = byte(random.Uint32())
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// tree returns the hash of every regular file below dir by name.
func tree(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	out := map[string][32]byte{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		out[name] = sha256.Sum256(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sameTree fails the test when the trees differ.
func sameTree(t *testing.T, want, got string) {
	t.Helper()
	a, b := tree(t, want), tree(t, got)
	if len(a) == 0 {
		t.Fatalf("%s has no file", want)
	}
	for name, sum := range a {
		if b[name] != sum {
			t.Errorf("%s differs", name)
		}
	}
	if len(a) != len(b) {
		t.Errorf("%d files, want %d", len(b), len(a))
	}
}

type backupSummary struct {
	Type          string `json:"type"`
	Snapshot      string `json:"snapshot"`
	Files         uint64 `json:"files"`
	NewBytes      uint64 `json:"new_bytes"`
	StoredBytes   uint64 `json:"stored_bytes"`
	Segments      uint64 `json:"segments"`
	Committed     bool   `json:"committed"`
	Complete      bool   `json:"complete"`
	SurvivesSites int    `json:"survives_sites"`
}

func backup(ctx context.Context, t *testing.T, p *localgrid.Peer, args ...string) backupSummary {
	t.Helper()
	var s backupSummary
	if err := p.JSON(ctx, &s, append([]string{"backup"}, args...)...); err != nil {
		t.Fatal(err)
	}
	if s.Type != "summary" || !s.Committed || s.Snapshot == "" {
		t.Fatalf("summary %+v", s)
	}
	return s
}

// restore brings a snapshot back and returns where the directory path is then.
func restore(ctx context.Context, t *testing.T, p *localgrid.Peer, snapshot, path string) string {
	t.Helper()
	target := filepath.Join(shortTempDir(t), "back")
	if err := p.JSON(ctx, nil, "restore", snapshot, "--target", target); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(target, path)
}

// exitCode returns the code and the error text of a command that must fail.
func failure(t *testing.T, err error) (code int, what string) {
	t.Helper()
	var failed *localgrid.CommandError
	if !errors.As(err, &failed) {
		t.Fatalf("error %v is no failed command", err)
	}
	var detail struct {
		Code          int
		What, Meaning string
	}
	lines := strings.Split(strings.TrimSpace(failed.Stderr), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &detail); err != nil {
		t.Fatalf("%q: %v", failed.Stderr, err)
	}
	if detail.Code != failed.Code {
		t.Errorf("exit code %d, but the error says %d", failed.Code, detail.Code)
	}
	return failed.Code, detail.What
}

// storedShards counts the shard files of all peers.
func storedShards(t *testing.T, g *localgrid.Grid) int {
	t.Helper()
	n := 0
	for _, p := range g.Peers() {
		n += len(shardFiles(t, p))
	}
	return n
}

// shardFiles lists the files of the shards that a peer holds.
func shardFiles(t *testing.T, p *localgrid.Peer) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(filepath.Join(p.Home, "peer", "shards"), func(path string, entry fs.DirEntry, err error) error {
		segment, index, ok := strings.Cut(filepath.Base(path), ".")
		if err == nil && ok && entry.Type().IsRegular() && len(segment) == 64 && len(index) <= 2 {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
