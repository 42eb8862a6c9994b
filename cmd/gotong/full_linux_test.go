package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gotong/grid/localgrid"
)

// onSmallDisk moves a directory of a peer to a file system of its own.
func onSmallDisk(ctx context.Context, t *testing.T, p *localgrid.Peer, dir string, bytes int) {
	t.Helper()
	must(t, p.Stop())
	small := mount(t, 0, bytes)
	must(t, exec.Command("cp", "-a", dir+"/.", small).Run())
	must(t, os.RemoveAll(dir))
	must(t, os.Symlink(small, dir))
	must(t, p.Start(ctx))
}

// fill leaves no room on a small disk; the returned function gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	must(t, err)
	for chunk := 1 << 20; chunk > 0; chunk /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, chunk))
		}
	}
	must(t, f.Close())
	return func() { must(t, os.Remove(path)) }
}

// TestFullDisks: the disk of one holder is full, then that of all, then that of
// the owner. Each is told in clear words, what was stored stays, and the same
// command goes through when there is room.
func TestFullDisks(t *testing.T) {
	ctx := testContext(t)
	g := newGridWith(t, []string{"GOTONG_STORE_KEEP_FREE=0B"}, "--redundancy", "2+2")
	you, friends := grow(ctx, t, g, 5)
	const disk = 12_000_000
	for _, p := range friends {
		onSmallDisk(ctx, t, p, storeOf(p), disk)
	}
	onSmallDisk(ctx, t, you, filepath.Join(you.Home, "peer"), 24_000_000)
	must(t, g.WaitAlive(ctx, you, 6))
	source := shortTempDir(t)
	writeTree(t, source, 71, 20, 200_000)
	first := backup(ctx, t, you, source)
	firstTree := tree(t, source)

	free := fill(t, storeOf(friends[0])+"/")
	writeTree(t, filepath.Join(source, "second"), 72, 20, 200_000)
	if s := backup(ctx, t, you, source); !s.Complete {
		t.Errorf("one holder is full, four are not: %+v", s)
	}
	wantTree(t, "the first, one holder full", firstTree, restore(ctx, t, you, first.Snapshot, source))

	frees := []func(){free}
	for _, p := range friends[1:] {
		frees = append(frees, fill(t, storeOf(p)+"/"))
	}
	writeTree(t, filepath.Join(source, "third"), 73, 20, 200_000)
	code, what := failure(t, you.JSON(ctx, nil, "backup", source))
	if code != 13 || !strings.Contains(what, "no room") {
		t.Errorf("all holders full: exit code %d: %s", code, what)
	}
	wantTree(t, "the first, all holders full", firstTree, restore(ctx, t, you, first.Snapshot, source))
	for _, p := range friends { // full disks keep nobody from coming back
		must(t, p.Kill())
		must(t, p.Start(ctx))
	}
	must(t, g.WaitAlive(ctx, you, 6))
	wantTree(t, "the first, all holders full and back", firstTree, restore(ctx, t, you, first.Snapshot, source))
	for _, free := range frees {
		free()
	}
	waitFor(ctx, t, "a backup to go through", func() bool { return you.JSON(ctx, nil, "backup", source) == nil })

	free = fill(t, filepath.Join(you.Home, "peer")+"/")
	writeTree(t, filepath.Join(source, "fourth"), 74, 20, 200_000)
	code, what = failure(t, you.JSON(ctx, nil, "backup", source))
	if code != 1 || !strings.Contains(what, "full") {
		t.Errorf("own disk full: exit code %d: %s", code, what)
	}
	wantTree(t, "the first, own disk full", firstTree, restore(ctx, t, you, first.Snapshot, source))
	if code, what = failure(t, you.JSON(ctx, nil, "forget", first.Snapshot)); code != 1 || !strings.Contains(what, "is full") {
		t.Errorf("own disk full: forget: exit code %d: %s", code, what)
	}
	must(t, you.Kill())
	if err := you.Start(ctx); err != nil {
		t.Logf("own disk full: up: %v", err)
		free()
		must(t, you.Start(ctx))
	} else {
		free()
	}
	must(t, g.WaitAlive(ctx, you, 6))
	backup(ctx, t, you, source)
	sameTree(t, source, restore(ctx, t, you, "latest", source))
	check(ctx, t, you)

	target := filepath.Join(mount(t, 0, 1_000_000), "back")
	code, what = failure(t, you.JSON(ctx, nil, "restore", "latest", "--target", target))
	if code != 1 || !strings.Contains(what, "is full") {
		t.Errorf("disk of the target full: exit code %d: %s", code, what)
	}
}
