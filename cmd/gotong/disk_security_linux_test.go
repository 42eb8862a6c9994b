package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// mount puts a small file system in a new directory for the time of the test.
func mount(t *testing.T, flags uintptr, bytes int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a file system")
	}
	dir := shortTempDir(t)
	if err := syscall.Mount("gotong-test", dir, "tmpfs", flags, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestInitOnBadDisk: a full or read-only disk is named, no half home passes for
// a whole one, and an invite is not used up for a home that cannot be made.
func TestInitOnBadDisk(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, _ := grow(ctx, t, g, 0)
	code := invitation(ctx, t, you)
	flags := []string{"--listen", "127.0.0.1:0", "--give", "1GB", "--slots", "1"}
	for _, disk := range []struct {
		dir   string
		cause string
	}{
		{mount(t, 0, 8192), "no space left on device"},
		{mount(t, syscall.MS_RDONLY, 1<<20), "read-only file system"},
	} {
		home := filepath.Join(disk.dir, "h")
		gotong(ctx, t, "", append([]string{"init", "--home", home}, flags...)...).want(t, 1, disk.cause, "try: ")
		gotong(ctx, t, "", append([]string{"join", code, "--home", home}, flags...)...).want(t, 1, disk.cause, "try: ")
		gotong(ctx, t, "", "--home", home, "up").want(t, 10, "no peer in")
		gotong(ctx, t, "", append([]string{"init", "--home", disk.dir}, flags...)...).want(t, 1, disk.cause, "try: ")
	}
	if n := len(peersOf(ctx, t, you)); n != 1 {
		t.Errorf("%d peers", n)
	}
	gotong(ctx, t, "", append([]string{"join", code}, newHome(t)...)...).want(t, 0)
}
