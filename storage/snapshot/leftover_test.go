package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// temporaries returns what is left over below a directory.
func temporaries(t *testing.T, dir string) (out []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), temporaryPrefix) {
			out = append(out, path)
		}
		return err
	}))
	return out
}

// TestLeftovers: a restore removes what one that was killed left, wherever in the
// target, and leaves alone what one that runs makes.
func TestLeftovers(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	write(t, src+"/sub/file", []byte("file"))
	backUp(t, v, src)
	target := t.TempDir()
	top, err := os.OpenRoot(target)
	must(t, err)
	t.Cleanup(func() { _ = top.Close() })
	must(t, os.MkdirAll(target+"/elsewhere/deep", 0o755))
	leave := func(dir string) *run {
		n := newRun(top)
		n.begin()
		n.note(dir)
		n.note("gone meanwhile")
		write(t, filepath.Join(target, dir, n.temporary()), []byte("half"))
		return n
	}
	dead, alive := leave("elsewhere/deep"), leave("elsewhere")
	must(t, dead.file.Close()) // as the end of a process does
	write(t, filepath.Join(target, "elsewhere", temporaryPrefix+"somebody's"), []byte("no run made this"))
	restoreInto(t, v, target, RestoreOptions{DryRun: true})
	if left := temporaries(t, target); len(left) != 5 {
		t.Errorf("after a dry run: %q", left)
	}
	restoreInto(t, v, target, RestoreOptions{Include: []string{"nothing"}})
	left := temporaries(t, target)
	if len(left) != 3 {
		t.Errorf("left are %q", left)
	}
	for _, path := range left {
		if strings.Contains(path, dead.id) {
			t.Errorf("%s is left", path)
		}
	}
	alive.end()
	if left := temporaries(t, target); len(left) != 2 {
		t.Errorf("after the end of the other: %q", left)
	}
}

// TestRunLeavesNothing: a restore that deletes what the snapshot does not have keeps
// its notes meanwhile, and the target has its own time in the end.
func TestRunLeavesNothing(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	write(t, src+"/file", []byte("file"))
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	must(t, os.Chtimes(src, old, old))
	backUp(t, v, src)
	for _, path := range []string{"", src} {
		target := filepath.Join(t.TempDir(), "target")
		must(t, os.Mkdir(target, 0o755))
		must(t, os.Chtimes(target, old, old))
		_, did := restoreInto(t, v, target, RestoreOptions{Path: path, Delete: true})
		if left := temporaries(t, target); len(left) != 0 {
			t.Errorf("left are %q", left)
		}
		for name, action := range did {
			if action == ActionDeleted {
				t.Errorf("deleted %q", name)
			}
		}
	}
	same := filepath.Join(t.TempDir(), "src")
	restoreInto(t, v, same, RestoreOptions{Path: src})
	if info, err := os.Stat(same); err != nil || !info.ModTime().Equal(old) {
		t.Errorf("the target is of %v, %v", info, errors.Join(err))
	}
}
