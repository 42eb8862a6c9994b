package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gotong/storage"
	"gotong/storage/vault"
)

// compare fails the test unless two trees are equal in all that this system
// keeps. Top directories are compared by content only.
func compare(t errorer, want, got string) {
	t.Helper()
	a, b := describe(t, want), describe(t, got)
	for path, line := range a {
		if b[path] != line {
			t.Errorf("%q: was %s, came back as %s", path, line, b[path])
		}
	}
	for path := range b {
		if _, ok := a[path]; !ok {
			t.Errorf("%q was not there before", path)
		}
	}
}

type errorer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
}

func describe(t errorer, root string) map[string]string {
	t.Helper()
	lines := map[string]string{}
	links := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%v %d", info.Mode(), info.ModTime().UnixNano())
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x", len(content), hashOf(content))
		case info.Mode().Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		}
		name := path[len(root):]
		lines[name] = line + describeSystem(t, path, name, info, links)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func hashOf(b []byte) [4]byte {
	var sum [4]byte
	for i, c := range b {
		sum[i%4] = sum[i%4]*31 + c
	}
	return sum
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, content, 0o644))
}

func randomBytes(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func TestTreeComesBack(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	write(t, src+"/empty", nil)
	write(t, src+"/small", []byte("hello"))
	write(t, src+"/big", randomBytes(1, 9<<20))
	write(t, src+"/dir/deeper/text", bytes.Repeat([]byte("again and again "), 50_000))
	write(t, src+"/"+strings.Repeat("n", 255), []byte("long name"))
	write(t, src+"/new\nline\t\x1b", []byte("odd name"))
	must(t, os.Mkdir(src+"/nothing", 0o700))
	must(t, os.Symlink("dir/deeper/text", src+"/link"))
	must(t, os.Symlink("/nowhere/at all", src+"/dangling"))
	must(t, os.Chmod(src+"/small", 0o400))
	must(t, os.Chmod(src+"/dir/deeper", 0o500))
	must(t, os.Chtimes(src+"/small", time.Unix(1, 1), time.Unix(1234567890, 123456789)))
	must(t, os.Chtimes(src+"/dir", time.Unix(1, 1), time.Unix(-5, 999)))
	s := backUp(t, v, src)
	if s.Files != 6 || s.Directories != 4 || s.Bytes != 5+9<<20+50_000*16+9+8 || !s.Committed {
		t.Errorf("summary %+v", s)
	}
	compare(t, src, restoreAll(t, v, src))
	all := restoreAll(t, v, "")
	compare(t, src, filepath.Join(all, src))
	must(t, os.Chmod(src+"/dir/deeper", 0o700))
}

func TestUnchangedTreeIsNotReadAgain(t *testing.T) {
	v, segments := newVault(t)
	src := filepath.Join(t.TempDir(), "in", "src")
	for i := range 300 {
		write(t, fmt.Sprintf("%s/d%d/f%d", src, i%7, i), randomBytes(byte(i), 3000+i))
	}
	past := time.Now().Add(-time.Hour)
	must(t, filepath.WalkDir(src, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(path, past, past))
	}))
	waitUntilSettled(t, src)
	first := backUp(t, v, src)
	sent := segments.bytes
	second := backUp(t, v, src)
	if second.NewBytes > 2000 || segments.bytes-sent > 16<<10 || second.Files != first.Files || second.Bytes != first.Bytes {
		t.Errorf("second backup: %+v, %d bytes sent", second, segments.bytes-sent)
	}
	records := countRecords(t, v, src)
	if records != 300 {
		t.Errorf("%d files are remembered", records)
	}
	write(t, src+"/d3/f3", []byte("changed"))
	must(t, os.Remove(src+"/d4/f4"))
	must(t, os.Rename(src+"/d5", src+"/renamed"))
	third := backUp(t, v, src)
	if third.Files != first.Files-1 || third.NewBytes > 60_000 {
		t.Errorf("third backup: %+v", third)
	}
	compare(t, src, restoreAll(t, v, src))
}

// waitUntilSettled returns once the last change is old enough to be trusted.
func waitUntilSettled(t testing.TB, dir string) {
	t.Helper()
	const last = "probe" // written after everything in dir
	parent := filepath.Dir(dir)
	write(t, filepath.Join(parent, last), nil)
	d, err := openSource(parent)
	must(t, err)
	defer d.close()
	m, err := d.lstat(last)
	must(t, err)
	for !settled(m, time.Now()) {
		write(t, filepath.Join(parent, "clock"), nil)
	}
}

func countRecords(t testing.TB, v *vault.Vault, path string) (n int) {
	t.Helper()
	s := openState(statePath(v.StateDir(), path))
	for _, ok := s.next(); ok; _, ok = s.next() {
		n++
	}
	return n
}

func TestRandomTreesComeBack(t *testing.T) {
	v, _ := newVault(t)
	rapid.Check(t, func(rt *rapid.T) {
		src, err := os.MkdirTemp(t.TempDir(), "src")
		must(t, err)
		before := "" // where the first round was restored
		for round := range 2 {
			growTree(rt, src, 0)
			growSystem(rt, t, src)
			backUp(t, v, src)
			target := restoreAll(t, v, src)
			compare(rt, src, target)
			if round == 0 {
				before = target
				continue
			}
			_, err := Restore(context.Background(), v, vault.Latest, before, RestoreOptions{Path: src, Delete: true,
				Skipped: func(path string, err error) { rt.Errorf("skipped %q: %v", path, err) }})
			must(t, err)
			compare(rt, src, before)
		}
	})
}

// growTree adds and changes entries.
func growTree(t *rapid.T, dir string, depth int) {
	name := rapid.Custom(func(t *rapid.T) string {
		b := rapid.SliceOfN(rapid.ByteRange(1, 255), 1, 12).Draw(t, "name")
		return strings.Map(func(r rune) rune { return r }, strings.NewReplacer("/", "_").Replace(string(b)))
	})
	for range rapid.IntRange(0, 5).Draw(t, "entries") {
		path := filepath.Join(dir, sane(name.Draw(t, "name")))
		_ = os.RemoveAll(path)
		var err error
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			err = os.WriteFile(path, randomBytes(rapid.Byte().Draw(t, "content"), rapid.SampledFrom([]int{0, 1, 100, 5000, 300_000}).Draw(t, "size")), 0o600)
		case 1:
			if err = os.Symlink(rapid.StringN(1, 20, 60).Filter(func(s string) bool { return !strings.Contains(s, "\x00") }).Draw(t, "target"), path); err == nil {
				continue
			}
		case 2, 3:
			if err = os.Mkdir(path, 0o700); err == nil && depth < 4 {
				growTree(t, path, depth+1)
			}
		}
		if err == nil {
			when := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "mtime"), rapid.Int64Range(0, 1e9-1).Draw(t, "nanos"))
			err = errors.Join(os.Chmod(path, os.FileMode(rapid.Uint32Range(0, 0o777).Draw(t, "mode"))|0o700), os.Chtimes(path, when, when))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// sane keeps clear of names that stand for something.
func sane(name string) string {
	if name == "." || name == ".." {
		return "dots" + name
	}
	return name
}

func TestTooFewShardsStopsTheRestore(t *testing.T) {
	v, segments := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	for i := range 40 {
		write(t, fmt.Sprintf("%s/f%d", src, i), randomBytes(byte(i), 1<<20))
	}
	backUp(t, v, src)
	lost := 0
	for id, data := range segments.segments {
		if len(data) > 8<<20 && lost < 1 {
			delete(segments.segments, id)
			lost++
		}
	}
	target := t.TempDir()
	_, err := Restore(context.Background(), v, vault.Latest, target, RestoreOptions{Path: src})
	if !errors.Is(err, storage.ErrTooFewShards) {
		t.Fatalf("restore without a segment: %v", err)
	}
	want := describe(t, src)
	for path, line := range describe(t, target) {
		if want[path] == "" || strings.Fields(want[path])[3] != strings.Fields(line)[3] {
			t.Errorf("%s is there and is not whole", path)
		}
	}
}

// TestLostDataDoesNotStopTheRestore: what needs a lost segment is named and left
// out, the rest comes back, and the next backup makes the same snapshot whole.
func TestLostDataDoesNotStopTheRestore(t *testing.T) {
	v, segments := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	for i := range 24 {
		write(t, fmt.Sprintf("%s/f%d", src, i), randomBytes(byte(i), 1<<20))
	}
	first := backUp(t, v, src)
	for id, data := range segments.segments {
		if len(data) <= 8<<20 {
			continue
		}
		delete(segments.segments, id)
		if err := List(context.Background(), v, vault.Latest, "", true, func(Entry) error { return nil }); err == nil {
			break
		}
		segments.segments[id] = data // the listings are in it
	}
	segments.gone = storage.ErrLost
	skipped := map[string]bool{}
	restore := func() RestoreSummary {
		s, err := Restore(context.Background(), v, first.Snapshot.ID.String(), t.TempDir()+"/to", RestoreOptions{Path: src, Verify: true,
			Skipped: func(path string, err error) { skipped[path] = true }})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := restore(); s.Lost == 0 || s.Lost != s.Skipped || s.Lost != uint64(len(skipped)) || s.Files != 24-s.Lost || s.Files == 0 || s.Verified != s.Files {
		t.Errorf("%+v, skipped %v", s, skipped)
	}
	if s := backUp(t, v, src); s.NewBytes < 8<<20 {
		t.Errorf("stored %d bytes anew", s.NewBytes)
	}
	if s := restore(); s.Skipped != 0 || s.Files != 24 {
		t.Errorf("%+v", s)
	}
}

func TestEachSegmentIsFetchedOnce(t *testing.T) {
	v, segments := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	for i := range 60 {
		write(t, fmt.Sprintf("%s/d%d/e%d/f%d", src, i%3, i%7, i), randomBytes(byte(i), 2<<20))
	}
	// Packed in the order of the tree, which the readers of a backup do not keep
	// when one of them is held up.
	craft(t, v, func(w *vault.Writer) (last vault.Ref) {
		must(t, filepath.WalkDir(src, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			object, err := w.Put(bytes.NewReader(data), int64(len(data)))
			last = object.Ref
			return err
		}))
		return last
	})
	backUp(t, v, src)
	clear(segments.gets)
	compare(t, src, restoreAll(t, v, src))
	for id, n := range segments.gets {
		if n > 1 {
			t.Errorf("segment %s was fetched %d times", id.Short(), n)
		}
	}
}

func TestRestoreReplacesWhatIsThere(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	write(t, src+"/file", []byte("right"))
	write(t, src+"/dir/file", []byte("right too"))
	write(t, src+"/was-dir", []byte("x"))
	must(t, os.Symlink("file", src+"/link"))
	backUp(t, v, src)
	target, outside := t.TempDir(), t.TempDir()
	write(t, outside+"/precious", []byte("precious"))
	write(t, target+"/other", []byte("stays"))
	must(t, os.Symlink(outside+"/precious", target+"/file"))
	must(t, os.Symlink("elsewhere", target+"/link"))
	must(t, os.Mkdir(target+"/was-dir", 0o755))
	must(t, os.Symlink(outside, target+"/dir"))
	var skipped []string
	s, err := Restore(context.Background(), v, vault.Latest, target, RestoreOptions{Path: src,
		Skipped: func(path string, err error) { skipped = append(skipped, path) }})
	must(t, err)
	if s.Skipped != 2 || len(skipped) != 2 {
		t.Errorf("skipped %q", skipped)
	}
	if b, err := os.ReadFile(outside + "/precious"); err != nil || string(b) != "precious" {
		t.Errorf("written through a link: %q %v", b, err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("%d entries outside, %v", len(entries), err)
	}
	for path, want := range map[string]string{"/file": "right", "/other": "stays"} {
		if b, err := os.ReadFile(target + path); err != nil || string(b) != want {
			t.Errorf("%s: %q %v", path, b, err)
		}
	}
	if l, err := os.Readlink(target + "/link"); err != nil || l != "file" {
		t.Errorf("link to %q, %v", l, err)
	}
}

func TestPaths(t *testing.T) {
	v, _ := newVault(t)
	base := t.TempDir()
	write(t, base+"/a/one", []byte("1"))
	write(t, base+"/a/sub/two", []byte("2"))
	write(t, base+"/b/three", []byte("3"))
	write(t, base+"/b/home/secret", []byte("4"))
	must(t, os.Symlink(base+"/b", base+"/c"))
	s, err := Backup(context.Background(), v, BackupOptions{
		Paths: []string{base + "/a", base + "/a/sub", base + "/b/three", base + "/c", base + "/missing"}, Never: []string{base + "/c/home"}})
	must(t, err)
	if s.Files != 4 || s.Skipped != 1 {
		t.Errorf("%+v", s)
	}
	target := restoreAll(t, v, base)
	var got []string
	must(t, List(context.Background(), v, vault.Latest, base, true, func(e Entry) error {
		got = append(got, strings.TrimPrefix(e.Path, base)+" "+e.Type)
		return nil
	}))
	want := "/a dir,/a/one file,/a/sub dir,/a/sub/two file,/b dir,/b/three file,/c dir,/c/three file"
	if strings.Join(got, ",") != want {
		t.Errorf("listed %q", got)
	}
	if b, err := os.ReadFile(target + "/a/sub/two"); err != nil || string(b) != "2" {
		t.Errorf("%q %v", b, err)
	}
	one := restoreAll(t, v, base+"/b/three")
	if b, err := os.ReadFile(one + "/three"); err != nil || string(b) != "3" {
		t.Errorf("%q %v", b, err)
	}
	if _, err := Restore(context.Background(), v, vault.Latest, t.TempDir(), RestoreOptions{Path: "/no/such"}); !errors.Is(err, ErrNoPath) {
		t.Error(err)
	}
	if _, err := Backup(context.Background(), v, BackupOptions{Paths: []string{base + "/missing"}}); !errors.Is(err, ErrNothing) {
		t.Errorf("backup of nothing: %v", err)
	}
}

func TestCancelledBackupLeavesAUsableVault(t *testing.T) {
	v, segments := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	for i := range 50 {
		write(t, fmt.Sprintf("%s/f%d", src, i), randomBytes(byte(i), 1<<20))
	}
	ctx, cancel := context.WithCancel(context.Background())
	puts := 0
	segments.put = func() error {
		if puts++; puts == 2 {
			cancel()
		}
		return nil
	}
	if _, err := Backup(ctx, v, BackupOptions{Paths: []string{src}}); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled backup: %v", err)
	}
	segments.put = nil
	s := backUp(t, v, src)
	if s.NewBytes > 40<<20 {
		t.Errorf("%d bytes were stored again", s.NewBytes)
	}
	compare(t, src, restoreAll(t, v, src))
}

// TestHomeIsNeverBackedUp: a path that is to be left out is left out under any
// name, also when it is what was asked for.
func TestHomeIsNeverBackedUp(t *testing.T) {
	v, _ := newVault(t)
	dir := t.TempDir()
	home, link := filepath.Join(dir, "home"), filepath.Join(dir, "link")
	must(t, os.MkdirAll(filepath.Join(home, "peer"), 0o755))
	write(t, filepath.Join(home, "peer", "key"), []byte("secret"))
	must(t, os.Symlink(home, link))
	for _, path := range []string{home, filepath.Join(home, "peer"), filepath.Join(home, "peer", "key"), link} {
		var skipped []string
		_, err := Backup(context.Background(), v, BackupOptions{Paths: []string{path}, Never: []string{home},
			Skipped: func(path string, err error) { skipped = append(skipped, path+": "+err.Error()) }})
		if !errors.Is(err, ErrNothing) || len(skipped) != 1 || !strings.Contains(skipped[0], "left out") {
			t.Errorf("backup of %s: skipped %q, error %v", path, skipped, err)
		}
	}
}

// TestHomeIsLeftOutUnderAnyName: the way to it may lead over a link.
func TestHomeIsLeftOutUnderAnyName(t *testing.T) {
	if meta, err := metaAt(t.TempDir()); err != nil || meta.inode == 0 {
		t.Skipf("directories have no number here: %v", err)
	}
	v, _ := newVault(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "real", "home", "key"), []byte("secret"))
	write(t, filepath.Join(dir, "real", "file"), []byte("content"))
	must(t, os.Symlink(filepath.Join(dir, "real"), filepath.Join(dir, "link")))
	s := backUpWith(t, v, BackupOptions{Paths: []string{filepath.Join(dir, "link")}, Never: []string{filepath.Join(dir, "real", "home")}})
	if got := pathsOf(t, v, filepath.Join(dir, "link")); len(got) != 1 || got[0] != "file" || s.Files != 1 {
		t.Errorf("backed up %q", got)
	}
}

func metaAt(path string) (meta, error) {
	d, err := openSource(path)
	if err != nil {
		return meta{}, err
	}
	defer d.close()
	return d.lstat(".")
}

func TestOtherCase(t *testing.T) {
	for name, want := range map[string]string{"README.md": "readme.MD", "123_-": "123_-", "aZ[{@`": "Az[{@`", "ü": "ü"} {
		if got := otherCase(name); got != want {
			t.Errorf("%q became %q", name, got)
		}
	}
	dir := t.TempDir()
	write(t, dir+"/File", nil)
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	_, err = os.Lstat(dir + "/fILE")
	if foldsNames(root, true, newRun(root)) != (err == nil) {
		t.Error("the file system was misjudged")
	}
}
