package sandbox

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/experimental/sys"
	"pgregory.net/rapid"

	"gotong/tasks"
)

func newTestTree(t interface {
	Helper()
	Fatal(...any)
}, dir string) *tree {
	t.Helper()
	for _, name := range []string{inputDir, outputDir, codeDir} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	store, err := openStore(dir, tasks.Limits{OutputBytes: 1 << 20, OutputFiles: 100})
	if err != nil {
		t.Fatal(err)
	}
	return newTree(store, &clock{})
}

// treeModel is what the files below /out should be.
type treeModel struct {
	t     *rapid.T
	tree  *tree
	files map[string][]byte
	dirs  map[string]bool
}

var modelNames = []string{"/out/a", "/out/b", "/out/d", "/out/d/a", "/out/d/b", "/out/e", "/in/x", "/out", "/x"}

func (m *treeModel) name(label string) string { return rapid.SampledFrom(modelNames).Draw(m.t, label) }

// writableName reports whether a file may be made at path.
func (m *treeModel) writableName(path string) bool {
	dir := path[:strings.LastIndexByte(path, '/')]
	return dir == "/out" || m.dirs[dir]
}

func (m *treeModel) expect(errno sys.Errno, ok bool, what string, args ...any) {
	m.t.Helper()
	if (errno == 0) != ok {
		m.t.Fatalf("%s %v: %v, want success %v", what, args, errno, ok)
	}
}

func (m *treeModel) write(t *rapid.T) {
	path := m.name("path")
	data := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.SampledFrom([]int{0, 1, 100, spillBytes, 100_000}).Draw(t, "size"))
	off := rapid.SampledFrom([]int{0, 1, 50, 70_000}).Draw(t, "offset")
	flag := sys.O_RDWR | sys.O_CREAT
	truncate := rapid.Bool().Draw(t, "truncate")
	if truncate {
		flag |= sys.O_TRUNC
	}
	f, errno := m.tree.OpenFile(path, flag, 0)
	m.expect(errno, m.writableName(path) && !m.dirs[path], "create", path)
	if errno != 0 {
		return
	}
	_, errno = f.Pwrite(data, int64(off))
	m.expect(errno, true, "write", path, off, len(data))
	m.expect(f.Close(), true, "close", path)
	old := m.files[path]
	if truncate {
		old = nil
	}
	if end := off + len(data); len(data) > 0 && len(old) < end {
		old = append(slices.Clone(old), make([]byte, end-len(old))...)
	}
	m.files[path] = slices.Clone(old)
	copy(m.files[path][min(off, len(old)):], data)
}

func (m *treeModel) truncate(t *rapid.T) {
	path, size := m.name("path"), rapid.SampledFrom([]int{0, 10, spillBytes + 1}).Draw(t, "size")
	f, errno := m.tree.OpenFile(path, sys.O_WRONLY, 0)
	data, there := m.files[path]
	m.expect(errno, there, "open", path)
	if errno != 0 {
		return
	}
	m.expect(f.Truncate(int64(size)), true, "truncate", path, size)
	f.Close()
	m.files[path] = append(slices.Clone(data[:min(size, len(data))]), make([]byte, max(0, size-len(data)))...)
}

func (m *treeModel) unlink(*rapid.T) {
	path := m.name("path")
	_, there := m.files[path]
	m.expect(m.tree.Unlink(path), there, "unlink", path)
	delete(m.files, path)
}

func (m *treeModel) mkdir(*rapid.T) {
	path := m.name("path")
	_, file := m.files[path]
	ok := m.writableName(path) && !file && !m.dirs[path]
	m.expect(m.tree.Mkdir(path, 0), ok, "mkdir", path)
	if ok {
		m.dirs[path] = true
	}
}

func (m *treeModel) empty(dir string) bool {
	below := func(path string) bool { return strings.HasPrefix(path, dir+"/") }
	return !slices.ContainsFunc(slices.Collect(maps.Keys(m.files)), below) &&
		!slices.ContainsFunc(slices.Collect(maps.Keys(m.dirs)), below)
}

func (m *treeModel) rmdir(*rapid.T) {
	path := m.name("path")
	ok := m.dirs[path] && m.empty(path)
	m.expect(m.tree.Rmdir(path), ok, "rmdir", path)
	if ok {
		delete(m.dirs, path)
	}
}

func (m *treeModel) rename(*rapid.T) {
	from, to := m.name("from"), m.name("to")
	data, file := m.files[from]
	if !file || !m.writableName(to) {
		return // directories: see TestRenameOfDirectories
	}
	m.expect(m.tree.Rename(from, to), !m.dirs[to], "rename", from, to)
	if !m.dirs[to] {
		delete(m.files, from)
		m.files[to] = data
	}
}

// check compares everything with the model.
func (m *treeModel) check(t *rapid.T) {
	want, total, host := slices.Sorted(maps.Keys(m.files)), int64(0), 0
	var got []string
	for _, f := range m.tree.files() {
		path := "/out/" + f.Name
		got = append(got, path)
		data := f.Data
		if f.Spilled() {
			host++
			data, _ = os.ReadFile(filepath.Join(m.tree.store.out.Name(), spillName(f.number)))
		}
		if !bytes.Equal(data, m.files[path]) || f.Size != int64(len(data)) {
			t.Fatalf("%s has %d bytes, want %d", path, len(data), len(m.files[path]))
		}
		total += f.Size
	}
	if !slices.Equal(got, want) {
		t.Fatalf("files %v, want %v", got, want)
	}
	if m.tree.store.used != total {
		t.Fatalf("%d bytes are charged, want %d", m.tree.store.used, total)
	}
	if list, _ := os.ReadDir(m.tree.store.out.Name()); len(list) != host {
		t.Fatalf("%d files on disk, want %d", len(list), host)
	}
	if m.tree.open != 0 || m.tree.nodes != len(m.files)+len(m.dirs) {
		t.Fatalf("%d open, %d nodes", m.tree.open, m.tree.nodes)
	}
}

func TestTreeAgainstModel(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		tree := newTestTree(t, dir)
		m := &treeModel{t: t, tree: tree, files: map[string][]byte{}, dirs: map[string]bool{}}
		t.Repeat(map[string]func(*rapid.T){
			"write": m.write, "truncate": m.truncate, "unlink": m.unlink, "rename": m.rename,
			"mkdir": m.mkdir, "rmdir": m.rmdir, "": m.check,
		})
		tree.discard()
		if list, _ := os.ReadDir(tree.store.out.Name()); len(list) != 0 || tree.store.used != 0 {
			t.Fatalf("%d files, %d bytes after discard", len(list), tree.store.used)
		}
		tree.store.in.Close()
		tree.store.out.Close()
	})
}

func TestRenameOfDirectories(t *testing.T) {
	tree := newTestTree(t, t.TempDir())
	for _, dir := range []string{"/out/d", "/out/e", "/out/full", "/out/full/x"} {
		if errno := tree.Mkdir(dir, 0); errno != 0 {
			t.Fatal(dir, errno)
		}
	}
	for _, c := range []struct {
		from, to string
		want     sys.Errno
	}{
		{"/out/d", "/out/d/below", sys.EINVAL},
		{"/out/full", "/out/g", sys.ENOTSUP},
		{"/out/d", "/out/full", sys.ENOTEMPTY},
		{"/out", "/out/d", sys.EPERM},
		{"/in", "/out/in", sys.EPERM},
		{"/out/d", "/in/d", sys.EROFS},
		{"/out/d", "/d", sys.EPERM},
		{"/out/missing", "/out/d", sys.ENOENT},
		{"/out/d", "/out/../etc", sys.EPERM},
		{"/out/d", "/out/a\\b", sys.EINVAL},
		{"/out/d", "/out/e", 0},
		{"/out/e", "/out/full/x/y/", 0},
	} {
		if errno := tree.Rename(c.from, c.to); errno != c.want {
			t.Errorf("rename %s to %s: %v, want %v", c.from, c.to, errno, c.want)
		}
	}
}

// TestPathsThatTheEngineWouldNotPass checks the tree alone, without the
// engine's own cleaning in front of it.
func TestPathsThatTheEngineWouldNotPass(t *testing.T) {
	tree := newTestTree(t, t.TempDir())
	for _, path := range []string{"..", "../x", "/out/../..", "in/../../etc/passwd", "/out/..", strings.Repeat("a/", 1000)} {
		if _, errno := tree.Stat(path); errno == 0 {
			t.Errorf("stat %s succeeds", path)
		}
		if f, errno := tree.OpenFile(path, sys.O_RDWR|sys.O_CREAT, 0); errno == 0 {
			f.Close()
			t.Errorf("create %s succeeds", path)
		}
	}
	for _, path := range []string{"", "/", ".", "//", "/./"} {
		if st, errno := tree.Stat(path); errno != 0 || st.Ino != tree.root.ino {
			t.Errorf("%q is not the root: %v", path, errno)
		}
	}
	for name, errno := range map[string]sys.Errno{
		"symlink": tree.Symlink("/etc/passwd", "/out/x"), "link": tree.Link("/in", "/out/x"), "chmod": tree.Chmod("/out", 0o777),
	} {
		if errno != sys.EPERM {
			t.Errorf("%s: %v", name, errno)
		}
	}
}
