package mount

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"

	"gotong/grid/blake3"
	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/vault"
)

// memSource keeps snapshots and contents in memory.
type memSource struct {
	snapshots []vault.Snapshot
	objects   map[[32]byte][]byte

	mu    sync.Mutex
	fault error
}

// fail makes what is asked for fail; nil ends it.
func (s *memSource) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = err
}

func (s *memSource) failing() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

func (s *memSource) Snapshots(context.Context) ([]vault.Snapshot, error) {
	return s.snapshots, s.failing()
}

func (s *memSource) put(data []byte) vault.Ref {
	if len(data) == 0 {
		return vault.Ref{}
	}
	h := blake3.Sum256(data)
	s.objects[h] = data
	return vault.Ref{Hash: h, Size: uint64(len(data))}
}

func (s *memSource) Entries(_ context.Context, listing vault.Ref, fn func(*vaultv1.Node) error) error {
	r := bytes.NewReader(s.objects[listing.Hash])
	for r.Len() > 0 {
		n := new(vaultv1.Node)
		if err := protodelim.UnmarshalFrom(r, n); err != nil {
			return err
		}
		if err := fn(n); err != nil {
			return err
		}
	}
	return s.failing()
}

func (s *memSource) ReadAt(_ context.Context, object vault.Ref, p []byte, off int64) (int, error) {
	if err := s.failing(); err != nil {
		return 0, err
	}
	return bytes.NewReader(s.objects[object.Hash]).ReadAt(p, off)
}

func (s *memSource) dir(name string, entries ...*vaultv1.Node) *vaultv1.Node {
	slices.SortFunc(entries, func(a, b *vaultv1.Node) int { return bytes.Compare(a.Name, b.Name) })
	var listing bytes.Buffer
	for _, e := range entries {
		_, _ = protodelim.MarshalTo(&listing, e)
	}
	return &vaultv1.Node{Name: []byte(name), Type: vaultv1.Node_DIRECTORY, Mode: 0o750, Mtime: 1e9, Content: s.put(listing.Bytes()).Proto()}
}

func (s *memSource) file(name, text string) *vaultv1.Node {
	return &vaultv1.Node{Name: []byte(name), Type: vaultv1.Node_FILE, Mode: 0o640, Mtime: 1e9, Size: uint64(len(text)), Content: s.put([]byte(text)).Proto()}
}

func (s *memSource) snapshot(id byte, at time.Time, host string, tags []string, entries ...*vaultv1.Node) {
	root, _ := vault.RefOf(s.dir("", entries...).Content)
	snap := vault.Snapshot{Created: at, Host: host, Tags: tags, Root: root}
	snap.ID[0] = id
	s.snapshots = append(s.snapshots, snap)
}

var began = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// sample has two snapshots with what trees have in them.
func sample() *memSource {
	s := &memSource{objects: map[[32]byte][]byte{}}
	s.snapshot(1, began, "nas", nil, s.file("only", "here"))
	hard := func(name string) *vaultv1.Node {
		f := s.file(name, "two names")
		f.Link = &vaultv1.HardLink{Device: 1, Inode: 7, Names: 2}
		return f
	}
	sparse := s.file("sparse", "")
	sparse.Size, sparse.Sparse, sparse.Content = 1<<20, true, s.put([]byte("abcdef")).Proto()
	sparse.Extents = []*vaultv1.Extent{{Offset: 100, Length: 2}, {Offset: 1<<20 - 4, Length: 4}}
	marked := s.file("marked", "x")
	marked.Xattrs = []*vaultv1.Xattr{{Name: []byte("user.colour"), Value: []byte("green")}}
	home := s.dir("home", s.file("a.txt", "hello"), s.file("empty", ""), hard("one"), hard("other"), sparse, marked,
		&vaultv1.Node{Name: []byte("link"), Type: vaultv1.Node_SYMLINK, Mode: 0o777, Mtime: 1e9, Target: []byte("a.txt")}, s.dir("void"))
	s.snapshot(2, began.Add(time.Hour), "laptop/2", []string{"keep", "keep"}, home)
	return s
}

// TestFS: the tree is a well-behaved io/fs.FS.
func TestFS(t *testing.T) {
	id := "020000000000"
	f := NewTree(sample(), false).FS(t.Context())
	if err := fstest.TestFS(f, "ids/010000000000/only", "ids/"+id+"/home/a.txt", "ids/"+id+"/home/link", "latest",
		"snapshots/latest", "hosts/nas/latest", "hosts/laptop_2/latest", "tags/keep/latest"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"latest/home/a.txt": "hello", "latest/home/link": "hello", "hosts/nas/latest/only": "here", "snapshots/latest/home/one": "two names", "latest/home/empty": "",
	} {
		if got, err := fs.ReadFile(f, name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := fs.Stat(f, "latest/home/absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	times, err := fs.ReadDir(f, "snapshots")
	if err != nil || len(times) != 3 {
		t.Errorf("%v, %v", times, err)
	}
}

// TestSingle: one snapshot alone is its own root.
func TestSingle(t *testing.T) {
	s := sample()
	s.snapshots = s.snapshots[1:]
	if got, err := fs.ReadFile(NewTree(s, true).FS(t.Context()), "home/a.txt"); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestHoles: what is stored is in its place, and the rest is zeros.
func TestHoles(t *testing.T) {
	f := NewTree(sample(), false).FS(t.Context())
	want := make([]byte, 1<<20)
	copy(want[100:], "ab")
	copy(want[1<<20-4:], "cdef")
	got, err := fs.ReadFile(f, "latest/home/sparse")
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	file, err := f.Open("latest/home/sparse")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]int{{0, 10}, {99, 3}, {101, 5}, {1<<20 - 5, 3}, {1<<20 - 1, 10}} {
		p := make([]byte, r[1])
		n, err := file.(io.ReaderAt).ReadAt(p, int64(r[0]))
		if err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(p[:n], want[r[0]:min(r[0]+r[1], len(want))]) {
			t.Errorf("%v: %q, %v", r, p[:n], err)
		}
	}
}

// TestNewSnapshotAppears soon, and what was forgotten goes.
func TestNewSnapshotAppears(t *testing.T) {
	s := sample()
	tree := NewTree(s, false)
	f := tree.FS(t.Context())
	if _, err := fs.Stat(f, "ids/030000000000"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	s.snapshot(3, began.Add(2*time.Hour), "nas", nil, s.file("third", "3"))
	s.snapshots = s.snapshots[1:]
	tree.loaded = time.Time{} // long ago
	if got, err := fs.ReadFile(f, "latest/third"); err != nil || string(got) != "3" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := fs.Stat(f, "ids/010000000000"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestFaults: what cannot be read is an error, and is tried again.
func TestFaults(t *testing.T) {
	s := sample()
	f := NewTree(s, false).FS(t.Context())
	if _, err := fs.Stat(f, "latest"); err != nil {
		t.Fatal(err)
	}
	s.fail(storage.ErrTooFewShards)
	if _, err := fs.ReadDir(f, "latest/home"); !errors.Is(err, storage.ErrTooFewShards) {
		t.Error(err)
	}
	s.fail(nil)
	if _, err := fs.ReadDir(f, "latest/home"); err != nil {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]string{"a/b": "a_b", "..": "_..", "latest": "_latest", "": "", strings.Repeat("x", 300): strings.Repeat("x", 255)} {
		if got := safeName(name); got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}

func TestPlace(t *testing.T) {
	dir := t.TempDir()
	if err := checkPlace(dir); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{dir, filepath.Join(dir, "f"), filepath.Join(dir, "absent")} {
		if err := checkPlace(bad); !errors.Is(err, ErrPlace) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
