package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/vault"
)

// describeSystem adds what Linux keeps: owner, device, attributes, which names
// are one file.
func describeSystem(t errorer, path, name string, info fs.FileInfo, links map[string]string) string {
	t.Helper()
	st := info.Sys().(*syscall.Stat_t)
	line := ""
	if os.Geteuid() == 0 {
		line = fmt.Sprintf(" %d:%d", st.Uid, st.Gid)
	}
	if info.Mode()&fs.ModeDevice != 0 {
		line += fmt.Sprintf(" device %x", st.Rdev)
	}
	if !info.IsDir() && st.Nlink > 1 {
		key := fmt.Sprint(st.Dev, st.Ino)
		if links[key] == "" {
			links[key] = name
		}
		line += " same as " + links[key]
	}
	d, err := openSource(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	attrs, err := d.xattrs(filepath.Base(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range attrs {
		line += fmt.Sprintf(" %s=%q", x.Name, x.Value)
	}
	return line
}

// growSystem adds attributes, hard links, and what only root may make.
func growSystem(rt *rapid.T, t *testing.T, root string) {
	var files, dirs []string
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if d.Type().IsRegular() {
			files = append(files, path)
		} else if d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	}))
	for i, path := range append(files, dirs...) {
		if i%2 == 0 {
			setXattr(t, path, "user.gotong", rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(rt, "value"))
		}
	}
	for i, path := range files {
		if rapid.Bool().Draw(rt, "link") {
			name := filepath.Join(dirs[i%len(dirs)], fmt.Sprintf("hard-%d-%d", i, rapid.Int().Draw(rt, "n")))
			if err := os.Link(path, name); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Fatal(err)
			}
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	for i, path := range append(files, dirs...) {
		must(t, os.Lchown(path, 1000+i, 2000+i))
		if rapid.Bool().Draw(rt, "special") {
			must(t, unix.Chmod(path, rapid.SampledFrom([]uint32{0o4755, 0o2755, 0o1777}).Draw(rt, "bits")))
		}
	}
	fifo := filepath.Join(dirs[0], fmt.Sprintf("fifo%d", rapid.Int().Draw(rt, "n")))
	for name, kind := range map[string]uint32{fifo: unix.S_IFIFO, fifo + "dev": unix.S_IFCHR} {
		err := unix.Mknod(name, kind|0o640, int(unix.Mkdev(1, 3)))
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
}

func setXattr(t testing.TB, path, name string, value []byte) {
	t.Helper()
	if err := unix.Lsetxattr(path, name, value, 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
}

func blocksOf(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Blocks
}

func TestSparseFilesStaySparse(t *testing.T) {
	v, segments := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	must(t, os.Mkdir(src, 0o755))
	for name, at := range map[string][]int64{"holes": {0, 5 << 20, 900 << 20}, "middle": {64 << 20}, "void": {}} {
		f, err := os.Create(src + "/" + name)
		must(t, err)
		for i, off := range at {
			_, err := f.WriteAt(randomBytes(byte(i), 100_000), off)
			must(t, err)
		}
		must(t, f.Truncate(1<<30))
		must(t, f.Close())
	}
	s := backUp(t, v, src)
	if s.Bytes != 3<<30 || segments.bytes > 2<<20 {
		t.Errorf("%d bytes, %d sent", s.Bytes, segments.bytes)
	}
	target := restoreAll(t, v, src)
	for _, name := range []string{"holes", "middle", "void"} {
		want, got := blocksOf(t, src+"/"+name), blocksOf(t, target+"/"+name)
		if got > want+16 {
			t.Errorf("%s takes %d blocks, took %d", name, got, want)
		}
		a, err := os.Open(src + "/" + name)
		must(t, err)
		b, err := os.Open(target + "/" + name)
		must(t, err)
		info, err := b.Stat()
		must(t, err)
		if info.Size() != 1<<30 {
			t.Errorf("%s has %d bytes", name, info.Size())
		}
		for _, off := range []int64{0, 90_000, 5 << 20, 64 << 20, 900 << 20, 1<<30 - 4096} {
			x, y := make([]byte, 4096), make([]byte, 4096)
			_, err := a.ReadAt(x, off)
			must(t, err)
			_, err = b.ReadAt(y, off)
			must(t, err)
			if string(x) != string(y) {
				t.Errorf("%s differs at %d", name, off)
			}
		}
		must(t, errors.Join(a.Close(), b.Close()))
	}
}

func TestVeryDeepTree(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	must(t, os.Mkdir(src, 0o755))
	dir, err := os.OpenRoot(src)
	must(t, err)
	for range 40 { // beyond the longest path that the system takes
		name := strings.Repeat("d", 200)
		must(t, dir.Mkdir(name, 0o755))
		next, err := dir.OpenRoot(name)
		must(t, err)
		must(t, dir.Close())
		dir = next
	}
	must(t, dir.WriteFile("bottom", []byte("deep"), 0o644))
	must(t, dir.Close())
	backUp(t, v, src)
	target := restoreAll(t, v, src)
	root, err := os.OpenRoot(target)
	must(t, err)
	defer root.Close()
	if b, err := root.ReadFile(strings.Repeat(strings.Repeat("d", 200)+"/", 40) + "bottom"); err != nil || string(b) != "deep" {
		t.Errorf("%q %v", b, err)
	}
	must(t, root.RemoveAll(strings.Repeat("d", 200)))
	source, err := os.OpenRoot(src)
	must(t, err)
	defer source.Close()
	must(t, source.RemoveAll(strings.Repeat("d", 200)))
}

// TestFilesThatKnowNoSize: files of /proc have content and claim to be empty.
func TestFilesThatKnowNoSize(t *testing.T) {
	const path = "/proc/version"
	want, err := os.ReadFile(path)
	if err != nil || len(want) == 0 {
		t.Skipf("no %s: %v", path, err)
	}
	v, _ := newVault(t)
	backUp(t, v, path)
	got, err := os.ReadFile(filepath.Join(restoreAll(t, v, path), "version"))
	if err != nil || string(got) != string(want) {
		t.Errorf("got %q, want %q; %v", got, want, err)
	}
}

// asNobody in the environment is where a test of an ordinary user works.
const asNobody = "TEST_AS_NOBODY_IN"

// TestRestoreAgainAsOrdinaryUser: directories that nobody may write or enter,
// not even their owner, do not stop a second restore into the same place.
func TestRestoreAgainAsOrdinaryUser(t *testing.T) {
	if os.Getuid() == 0 {
		again(t)
		return
	}
	dir := os.Getenv(asNobody)
	if dir == "" {
		dir = t.TempDir()
	}
	t.Setenv("TMPDIR", dir)
	source, target := filepath.Join(dir, "source"), filepath.Join(dir, "target")
	for name, mode := range map[string]fs.FileMode{"read-only": 0o555, "closed": 0o000} {
		path := filepath.Join(source, name)
		must(t, os.MkdirAll(path, 0o755))
		write(t, filepath.Join(path, "file"), []byte(name))
		defer os.Chmod(path, 0o755)
		defer os.Chmod(filepath.Join(target, name), 0o755)
		if mode != 0 {
			must(t, os.Chmod(path, mode))
		}
	}
	v, _ := newVault(t)
	backUp(t, v, source)
	for range 2 {
		_, err := Restore(context.Background(), v, vault.Latest, target, RestoreOptions{Path: source,
			Skipped: func(path string, err error) { t.Errorf("skipped %q: %v", path, err) }})
		must(t, err)
		compare(t, source, target)
		must(t, os.Chmod(filepath.Join(target, "closed"), 0))
	}
}

// again runs the test as a user who is not root.
func again(t *testing.T) {
	dir, err := os.MkdirTemp("", "nobody")
	must(t, err)
	defer os.RemoveAll(dir)
	const nobody = 65534
	must(t, os.Chown(dir, nobody, nobody))
	program := filepath.Join(dir, "program") // the test binary may lie where only root can look
	binary, err := os.ReadFile(os.Args[0])
	must(t, err)
	must(t, os.WriteFile(program, binary, 0o755))
	cmd := exec.Command(program, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), asNobody+"="+dir, "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestOneFileSystem: what is mounted below a path becomes an empty directory.
func TestOneFileSystem(t *testing.T) {
	src := filepath.Join(t.TempDir(), "src")
	write(t, src+"/here", []byte("x"))
	must(t, os.Mkdir(src+"/mounted", 0o755))
	if err := unix.Mount("none", src+"/mounted", "tmpfs", 0, ""); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer unix.Unmount(src+"/mounted", 0)
	write(t, src+"/mounted/there", []byte("y"))
	v, _ := newVault(t)
	s := backUpWith(t, v, BackupOptions{Paths: []string{src}, OneFileSystem: true})
	if got := pathsOf(t, v, src); len(got) != 2 || got[1] != "mounted" || s.Excluded != 1 {
		t.Errorf("backed up %q, %+v", got, s)
	}
	// A restore that deletes leaves it alone, and what is mounted elsewhere.
	restoreInto(t, v, src, RestoreOptions{Path: src, Delete: true})
	if _, err := os.Stat(src + "/mounted/there"); err != nil {
		t.Error(err)
	}
	must(t, os.Mkdir(src+"/extra", 0o755))
	must(t, os.Rename(src+"/here", src+"/extra/here"))
	must(t, os.Mkdir(src+"/extra/mount", 0o755))
	must(t, unix.Mount("none", src+"/extra/mount", "tmpfs", 0, ""))
	defer unix.Unmount(src+"/extra/mount", 0)
	var why error
	_, did := restoreInto(t, v, src, RestoreOptions{Path: src, Delete: true, Skipped: func(_ string, err error) { why = err }})
	if _, err := os.Stat(src + "/extra/here"); err != nil || !errors.Is(why, errMounted) || did["here"] != ActionNew {
		t.Errorf("%v, %v, %v", err, why, did)
	}
	backUp(t, v, src)
	if got := pathsOf(t, v, src); len(got) != 6 {
		t.Errorf("backed up %q", got)
	}
}

// TestOwnersThatOnlyRootCanGive are counted, and no reason to fail.
func TestOwnersThatOnlyRootCanGive(t *testing.T) {
	if os.Getuid() == 0 {
		again(t)
		return
	}
	dir := os.Getenv(asNobody)
	if dir == "" {
		dir = t.TempDir()
	}
	t.Setenv("TMPDIR", dir)
	v, _ := newVault(t)
	craft(t, v, func(w *vault.Writer) vault.Ref {
		node := func(name string, uid int) *vaultv1.Node {
			return &vaultv1.Node{Name: []byte(name), Type: vaultv1.Node_FILE, Mode: 0o6755, Uid: uint32(uid), Gid: uint32(os.Getgid()), Size: 1, Content: content(t, w, "x")}
		}
		return listing(t, w, node("mine", os.Getuid()), node("theirs", 0))
	})
	target := t.TempDir()
	for range 2 {
		s, _ := restoreInto(t, v, target, RestoreOptions{})
		if s.Unowned != 1 || s.Files != 2 || s.Skipped != 0 {
			t.Errorf("%+v", s)
		}
	}
	for name, want := range map[string]uint32{"mine": 0o6755, "theirs": 0o755} {
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(target, name), &st))
		if st.Mode&0o7777 != want {
			t.Errorf("%s has mode %o", name, st.Mode)
		}
	}
}

// TestRestoreToWhereItWas: an ordinary user puts files back to where they were;
// what leads there is left as it is.
func TestRestoreToWhereItWas(t *testing.T) {
	if os.Getuid() == 0 {
		again(t)
		return
	}
	dir := os.Getenv(asNobody)
	if dir == "" {
		dir = t.TempDir()
	}
	t.Setenv("TMPDIR", dir)
	src := filepath.Join(dir, "above", "src")
	write(t, src+"/in/file", []byte("right"))
	write(t, src+"/other", []byte("other"))
	v, _ := newVault(t)
	backUp(t, v, src)
	write(t, src+"/in/file", []byte("wrong!"))
	must(t, os.Chmod(src, 0o700))
	must(t, os.Chmod(filepath.Dir(src), 0o711))
	// Where this user may write, it gives a directory of root another time.
	if probe, err := os.CreateTemp(filepath.Dir(dir), "probe"); err == nil {
		must(t, errors.Join(probe.Close(), os.Remove(probe.Name())))
	}
	restoreInto(t, v, "/", RestoreOptions{Include: []string{src + "/in/file"}})
	for path, want := range map[string]fs.FileMode{src: 0o700, filepath.Dir(src): 0o711} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	s, did := restoreInto(t, v, "/", RestoreOptions{Delete: true})
	if got := only(did, ActionUnchanged); len(got) != 2 || got[0] != ActionMetadata+" "+src[1:] || got[1] != got[0]+"/in" || s.Unowned != 0 {
		t.Errorf("%+v, %q", s, got)
	}
	for path, want := range map[string]fs.FileMode{src: 0o755, filepath.Dir(src): 0o711} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
}

func TestUnreadableFilesAreCounted(t *testing.T) {
	if os.Getuid() == 0 {
		again(t)
		return
	}
	dir := os.Getenv(asNobody)
	if dir == "" {
		dir = t.TempDir()
	}
	t.Setenv("TMPDIR", dir)
	src := filepath.Join(dir, "source")
	write(t, src+"/secret", []byte("x"))
	write(t, src+"/open", []byte("y"))
	write(t, src+"/closed/file", []byte("z"))
	must(t, errors.Join(os.Chmod(src+"/secret", 0), os.Chmod(src+"/closed", 0)))
	defer os.Chmod(src+"/closed", 0o700)
	v, _ := newVault(t)
	var skipped []string
	s := backUpWith(t, v, BackupOptions{Paths: []string{src}, Skipped: func(path string, err error) { skipped = append(skipped, strings.TrimPrefix(path, src)) }})
	slices.Sort(skipped)
	if s.Skipped != 2 || !slices.Equal(skipped, []string{"/closed", "/secret"}) {
		t.Errorf("%+v, skipped %q", s, skipped)
	}
	if got := pathsOf(t, v, src); !slices.Equal(got, []string{"closed", "open"}) {
		t.Errorf("backed up %q", got)
	}
	// What could not be read is not deleted by a restore.
	must(t, os.Chmod(src+"/closed", 0o700))
	_, err := Restore(context.Background(), v, vault.Latest, src, RestoreOptions{Path: src, Delete: true})
	must(t, err)
	must(t, os.Chmod(src+"/closed", 0o700))
	for _, name := range []string{"/secret", "/closed/file"} {
		if _, err := os.Lstat(src + name); err != nil {
			t.Error(err)
		}
	}
}
