package mount

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"gotong/storage"
)

// mounted mounts a tree. Without FUSE the test is skipped, unless REQUIRE_FUSE
// says that it has to run.
func mounted(t *testing.T, source Source) (string, *Mounted) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil && os.Getenv("REQUIRE_FUSE") == "" {
		t.Skip("no FUSE here: ", err)
	}
	dir := t.TempDir()
	m, err := Mount(t.Context(), NewTree(source, false), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		if os.Getenv("REQUIRE_FUSE") == "" {
			t.Skip("cannot mount here: ", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return dir, m
}

// TestFuseTree: what the kernel shows is the tree.
func TestFuseTree(t *testing.T) {
	dir, _ := mounted(t, sample())
	home := filepath.Join(dir, "latest", "home")
	var names []string
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		names = append(names, path[len(dir):])
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/ids/010000000000/only", "/ids/020000000000/home/a.txt", "/ids/020000000000/home/void", "/hosts/laptop_2/latest", "/latest"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not in %q", want, names)
		}
	}
	for name, want := range map[string]string{"a.txt": "hello", "link": "hello", "other": "two names", "empty": ""} {
		if got, err := os.ReadFile(filepath.Join(home, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	holes, err := os.ReadFile(filepath.Join(home, "sparse"))
	if err != nil || len(holes) != 1<<20 || string(holes[100:102]) != "ab" || string(holes[1<<20-4:]) != "cdef" || !bytes.Equal(holes[102:1<<20-4], make([]byte, 1<<20-4-102)) {
		t.Errorf("%d bytes, %v", len(holes), err)
	}
	var one, other, file syscall.Stat_t
	if err := errors.Join(syscall.Stat(filepath.Join(home, "one"), &one), syscall.Stat(filepath.Join(home, "other"), &other), syscall.Stat(filepath.Join(home, "a.txt"), &file)); err != nil {
		t.Fatal(err)
	}
	if one.Ino != other.Ino || one.Nlink != 2 || file.Ino == one.Ino || file.Nlink != 1 {
		t.Errorf("one %d with %d names, other %d, a.txt %d", one.Ino, one.Nlink, other.Ino, file.Ino)
	}
	if file.Mode != syscall.S_IFREG|0o640 || file.Mtim.Sec != 1e9 || file.Size != 5 {
		t.Errorf("%+v", file)
	}
	value := make([]byte, 100)
	n, err := unix.Getxattr(filepath.Join(home, "marked"), "user.colour", value)
	if err != nil || string(value[:n]) != "green" {
		t.Errorf("attribute %q, %v", value[:max(n, 0)], err)
	}
	if n, err = unix.Listxattr(filepath.Join(home, "marked"), value); err != nil || string(value[:n]) != "user.colour\x00" {
		t.Errorf("attributes %q, %v", value[:max(n, 0)], err)
	}
	if err := os.WriteFile(filepath.Join(home, "new"), nil, 0o600); err == nil {
		t.Error("a file could be made")
	}
	if _, err := os.OpenFile(filepath.Join(home, "a.txt"), os.O_WRONLY, 0); err == nil {
		t.Error("a file could be opened for writing")
	}
}

// TestFuseUnmounts even while a file is open, and tells that it is gone.
func TestFuseUnmounts(t *testing.T) {
	dir, m := mounted(t, sample())
	f, err := os.Open(filepath.Join(dir, "latest", "home", "a.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
	if err := m.Unmount(); err != nil { // while the file keeps the old mount from being done
		t.Error(err)
	}
}

// TestFuseFault: what friends cannot give now is an input/output error, not an
// empty file, and comes when they are back.
func TestFuseFault(t *testing.T) {
	s := sample()
	dir, _ := mounted(t, s)
	name := filepath.Join(dir, "latest", "home", "a.txt")
	if _, err := os.Stat(name); err != nil {
		t.Fatal(err)
	}
	s.fail(storage.ErrTooFewShards)
	if _, err := os.ReadFile(name); err == nil {
		t.Error("read without friends")
	}
	s.fail(nil)
	if got, err := os.ReadFile(name); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}
