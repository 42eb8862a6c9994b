package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/vault"
)

// pathsOf returns what the newest snapshot has below a path.
func pathsOf(t testing.TB, v *vault.Vault, at string) (out []string) {
	t.Helper()
	must(t, List(context.Background(), v, vault.Latest, at, true, func(e Entry) error {
		out = append(out, strings.TrimPrefix(e.Path, at+"/"))
		return nil
	}))
	return out
}

func backUpWith(t testing.TB, v *vault.Vault, options BackupOptions) BackupSummary {
	t.Helper()
	if options.Skipped == nil {
		options.Skipped = func(path string, err error) { t.Errorf("skipped %q: %v", path, err) }
	}
	s, err := Backup(context.Background(), v, options)
	must(t, err)
	return s
}

func TestExcludes(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	for _, name := range []string{"a.o", "a.c", "keep.o", "build/x", "sub/build/x", "sub/a.o", "sub/deep/b.tmp", "sub/deep/c", "cache/CACHEDIR.TAG", "cache/data",
		"false/CACHEDIR.TAG", "false/data", "tagged/.nobackup", "tagged/data"} {
		write(t, src+"/"+name, []byte(name))
	}
	write(t, src+"/cache/CACHEDIR.TAG", []byte(cacheSignature+"\n# by a test"))
	write(t, src+"/sub/"+DefaultIgnoreFile, []byte("*.tmp\n/build\n"))
	list := filepath.Join(t.TempDir(), "list")
	write(t, list, []byte("# comment\n*.o\n"))
	s := backUpWith(t, v, BackupOptions{Paths: []string{src}, Exclude: []string{"!keep.o", src + "/build/"}, ExcludeFrom: []string{list},
		ExcludeCaches: true, ExcludeIfPresent: []string{".nobackup"}, Tags: []string{"x"}, Set: "photos"})
	want := []string{"a.c", "cache", "cache/CACHEDIR.TAG", "false", "false/CACHEDIR.TAG", "false/data", "keep.o", "sub", "sub/.gotongignore", "sub/deep", "sub/deep/c", "tagged", "tagged/.nobackup"}
	if got := pathsOf(t, v, src); !slices.Equal(got, want) {
		t.Errorf("backed up %q", got)
	}
	if s.Excluded != 7 || s.Skipped != 0 || s.Snapshot.Set != "photos" || !slices.Equal(s.Snapshot.Tags, []string{"x"}) {
		t.Errorf("%+v", s)
	}
	whole := map[string]bool{}
	must(t, func() error {
		tr, err := openTree(context.Background(), v, vault.Latest)
		must(t, err)
		defer tr.reader.Close()
		root := &vaultv1.Node{Type: vaultv1.Node_DIRECTORY, Content: tr.snapshot.Root.Proto()}
		return walkNodes(tr.reader, root, "/", func(at string, n *vaultv1.Node) error {
			if isDir(n) {
				whole[strings.TrimPrefix(at, src)] = n.Whole
			}
			return nil
		})
	}())
	for at, want := range map[string]bool{"": false, "/cache": false, "/false": true, "/sub": false, "/sub/deep": false, "/tagged": false, filepath.Dir(src): false} {
		if whole[at] != want {
			t.Errorf("%q is whole: %v", at, whole[at])
		}
	}
	for name, options := range map[string]BackupOptions{
		"no such list":    {Paths: []string{src}, ExcludeFrom: []string{list + "x"}},
		"tag with a path": {Paths: []string{src}, ExcludeIfPresent: []string{"a/b"}},
	} {
		if _, err := Backup(context.Background(), v, options); !errors.Is(err, ErrPattern) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Without ignore files all is there, those of another name included.
	write(t, src+"/.other", []byte("sub\n"))
	backUpWith(t, v, BackupOptions{Paths: []string{src}, IgnoreFiles: []string{}})
	if got := pathsOf(t, v, src); !slices.Contains(got, "sub/deep/b.tmp") {
		t.Errorf("backed up %q", got)
	}
	backUpWith(t, v, BackupOptions{Paths: []string{src}, IgnoreFiles: []string{".other"}})
	if got := pathsOf(t, v, src); slices.Contains(got, "sub") {
		t.Errorf("backed up %q", got)
	}
}

func TestDryRunStoresNothing(t *testing.T) {
	v, segments := newVault(t)
	src := filepath.Join(t.TempDir(), "in", "src")
	for i := range 20 {
		write(t, fmt.Sprintf("%s/f%d", src, i), randomBytes(byte(i), 10_000))
	}
	write(t, src+"/double", randomBytes(3, 10_000))
	waitUntilSettled(t, src)
	dry := func() BackupSummary { return backUpWith(t, v, BackupOptions{Paths: []string{src}, DryRun: true}) }
	s := dry()
	if s.NewFiles != 21 || s.Bytes != 210_000 || s.NewBytes < 200_000 || s.NewBytes > 210_000 || s.StoredBytes != 0 || s.DuplicateBytes != 10_000 {
		t.Errorf("before: %+v", s)
	}
	if all, err := v.Snapshots(context.Background()); err != nil || len(all) != 0 || len(segments.segments) != 0 {
		t.Fatalf("%d snapshots, %d segments, %v", len(all), len(segments.segments), err)
	}
	if entries, err := os.ReadDir(v.StateDir()); err != nil || len(entries) != 0 {
		t.Fatalf("%d states, %v", len(entries), err)
	}
	backUp(t, v, src)
	write(t, src+"/f3", randomBytes(99, 5000))
	write(t, src+"/new", randomBytes(100, 7000))
	stored := segments.bytes
	s = dry()
	if s.NewFiles != 1 || s.ChangedFiles != 1 || s.NewBytes < 12_000 || s.NewBytes > 16_000 || segments.bytes != stored {
		t.Errorf("after: %+v", s)
	}
	if real := backUp(t, v, src); real.NewBytes != s.NewBytes || real.Files != s.Files {
		t.Errorf("said %+v, was %+v", s, real)
	}
}

func TestStdin(t *testing.T) {
	v, _ := newVault(t)
	content := randomBytes(5, 11<<20)
	s := backUpWith(t, v, BackupOptions{Stdin: iotest.OneByteReader(bytes.NewReader(content[:1000])), StdinName: "tiny"})
	if s.Files != 1 || s.Bytes != 1000 || !slices.Equal(s.Snapshot.Paths, []string{"/tiny"}) {
		t.Errorf("%+v", s)
	}
	backUpWith(t, v, BackupOptions{Stdin: bytes.NewReader(content), StdinName: "db/dump.sql"})
	if got := pathsOf(t, v, ""); !slices.Equal(got, []string{"db", "db/dump.sql"}) {
		t.Errorf("backed up %q", got)
	}
	var out bytes.Buffer
	must(t, Cat(context.Background(), v, vault.Latest, "/db/dump.sql", &out, 0, -1))
	if !bytes.Equal(out.Bytes(), content) {
		t.Error("another content came back")
	}
	again := backUpWith(t, v, BackupOptions{Stdin: bytes.NewReader(content), StdinName: "db/dump.sql"})
	if again.NewBytes > 10_000 || again.DuplicateBytes != uint64(len(content)) {
		t.Errorf("%+v", again)
	}
	broken := io.MultiReader(bytes.NewReader(content[:5<<20]), iotest.ErrReader(errors.New("the producer died")))
	if _, err := Backup(context.Background(), v, BackupOptions{Stdin: broken}); !errors.Is(err, ErrStdin) {
		t.Errorf("a broken stream: %v", err)
	}
	if all, err := v.Snapshots(context.Background()); err != nil || len(all) != 3 {
		t.Errorf("%d snapshots, %v", len(all), err)
	}
	if _, err := Backup(context.Background(), v, BackupOptions{Stdin: broken, StdinName: "/"}); err == nil {
		t.Error("a stream without a name")
	}
}

// TestManyPaths: a list of paths is one backup with one state, however many
// there are, and what is beside them is not in it.
func TestManyPaths(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "in", "src")
	var paths []string
	for i := range 300 {
		path := fmt.Sprintf("%s/d%d/f%d", src, i%50, i)
		write(t, path, []byte(path))
		for range 20 {
			if i%5 != 0 {
				paths = append(paths, path)
			}
		}
	}
	waitUntilSettled(t, src)
	first := backUp(t, v, paths...)
	if len(first.Snapshot.Paths) != 1 || first.Snapshot.Paths[0] != src || first.Files != 240 || first.NewFiles != first.Files {
		t.Errorf("%+v", first)
	}
	rand.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	second := backUp(t, v, paths...)
	if second.NewFiles+second.ChangedFiles != 0 || second.Files != first.Files {
		t.Errorf("%+v", second)
	}
	if entries, err := os.ReadDir(v.StateDir()); err != nil || len(entries) != 1 {
		t.Errorf("%d states, %v", len(entries), err)
	}
}

// changingDir has one file, which is another one each time it is looked at.
type changingDir struct {
	sourceDir
	looks  int
	steady int // from this look on it stays
}

func (d *changingDir) openFile(string) (sourceFile, error) { return &changingFile{d: d}, nil }

type changingFile struct {
	d *changingDir
	r *strings.Reader
}

func (f *changingFile) stat() (meta, error) {
	f.d.looks = min(f.d.looks+1, f.d.steady)
	f.r = strings.NewReader(f.content())
	return meta{kind: vaultv1.Node_FILE, size: int64(f.r.Len()), mtime: int64(f.d.looks), names: 1}, nil
}
func (f *changingFile) content() string                           { return fmt.Sprintf("look %d", f.d.looks) }
func (f *changingFile) Read(p []byte) (int, error)                { return f.r.Read(p) }
func (f *changingFile) xattrs() ([]*vaultv1.Xattr, error)         { return nil, nil }
func (f *changingFile) seek(int64) error                          { return nil }
func (f *changingFile) close() error                              { return nil }
func (f *changingFile) seekData(o, s int64) (int64, int64, error) { return o, s, nil }

func TestFileThatChangesWhileItIsRead(t *testing.T) {
	for steady, wantWarned := range map[int]int{2: 0, 3: 0, 100: 1} {
		v, _ := newVault(t)
		var warned []string
		b, err := newBackup(v, BackupOptions{Paths: []string{"/x"}, Warned: func(path string, err error) {
			if !errors.Is(err, ErrChanged) {
				t.Error(err)
			}
			warned = append(warned, path)
		}})
		must(t, err)
		b.s, err = v.Begin(context.Background())
		must(t, err)
		b.ctx = b.s.Context()
		w, err := b.s.NewWriter()
		must(t, err)
		it := &item{dir: newOpenDir(&changingDir{steady: steady}, "/x"), name: "file", encode: &vaultv1.Node{Name: []byte("file"), Type: vaultv1.Node_FILE}}
		b.readFile(w, it)
		if len(warned) != wantWarned || it.node == nil || it.known && wantWarned > 0 {
			t.Errorf("steady from look %d: warned of %q, node %v", steady, warned, it.node)
		}
		if b.read.Load() != it.encode.Size && wantWarned == 0 {
			t.Errorf("%d bytes counted, file of %d", b.read.Load(), it.encode.Size)
		}
		b.s.Abort()
	}
}

// TestScanCountsWhatIsThere: the second walk leaves out what the first one does.
func TestScanCountsWhatIsThere(t *testing.T) {
	src := filepath.Join(t.TempDir(), "src")
	for i := range 30 {
		write(t, fmt.Sprintf("%s/d%d/f%d", src, i%3, i), make([]byte, 100))
	}
	write(t, src+"/d1/"+DefaultIgnoreFile, []byte("f1\n"))
	synctest.Test(t, func(t *testing.T) {
		b, err := newBackup(nil, BackupOptions{Paths: []string{src}, Exclude: []string{"/d0/"}, Skipped: func(string, error) { t.Error("skipped twice") }})
		must(t, err)
		b.scan(t.Context())
		if b.totalFiles.Load() != 20 || b.totalBytes.Load() != 19*100+3 {
			t.Errorf("%d files, %d bytes", b.totalFiles.Load(), b.totalBytes.Load())
		}
	})
}
