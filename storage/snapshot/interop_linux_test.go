package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// odd makes a tree with one of everything that the user may make.
func odd(t *testing.T, src string) {
	t.Helper()
	for _, name := range []string{"plain", "dir/file", "dir/sub/deep", "space and\nnewline", "\xff\xfe not UTF-8", "-dash", "quote'\"", "unicode ü 漢"} {
		write(t, src+"/"+name, []byte(name))
	}
	write(t, src+"/big", randomBytes(9, 6<<20))
	write(t, src+"/empty", nil)
	must(t, os.Mkdir(src+"/nothing", 0o711))
	must(t, os.Symlink("plain", src+"/link"))
	must(t, os.Symlink("/no/where", src+"/dangling"))
	must(t, os.Link(src+"/plain", src+"/dir/hard"))
	must(t, unix.Mkfifo(src+"/fifo", 0o640))
	f, err := os.Create(src + "/sparse")
	must(t, err)
	_, err = f.WriteAt(randomBytes(1, 50_000), 8<<20)
	must(t, errors.Join(err, f.Truncate(20<<20), f.Close()))
	must(t, os.Chmod(src+"/dir/file", 0o4711|fs.ModeSetuid))
	must(t, os.Chmod(src+"/dir/sub", fs.ModeSticky|0o770))
	must(t, os.Chmod(src+"/empty", 0o000))
	setXattr(t, src+"/plain", "user.one", []byte("1\x00\xff"))
	setXattr(t, src+"/plain", "user.empty", nil)
	setXattr(t, src+"/dir", "user.dir", []byte("directory"))
	for path, acl := range map[string]string{"/big": "u:7:rw,m::rx", "/dir/sub": "g:9:rwx"} {
		if out, err := exec.Command("setfacl", "-m", acl, src+path).CombinedOutput(); err != nil {
			t.Logf("without the ACL of %s: %v %s", path, err, out)
		}
	}
	if out, err := exec.Command("setfacl", "-d", "-m", "u:7:rwx", src+"/dir").CombinedOutput(); err != nil {
		t.Logf("without a default ACL: %v %s", err, out)
	}
	if os.Geteuid() == 0 {
		must(t, os.Lchown(src+"/link", 1234, 4321))
		must(t, os.Chown(src+"/dir", 1001, 1002))
		must(t, os.Chmod(src+"/dir", fs.ModeSetgid|0o775))
		if err := unix.Mknod(src+"/device", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil && !errors.Is(err, unix.EPERM) {
			t.Fatal(err)
		}
		setXattr(t, src+"/dir/sub/deep", "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
		setXattr(t, src+"/plain", "trusted.gotong", []byte("root's"))
	}
	for i, name := range []string{"/link", "/dangling", "/fifo", "/dir/sub/deep", "/dir/sub", "/dir", "/nothing", "/big", ""} {
		at := time.Unix(1_500_000_000+int64(i)*86_400, 123_456_789)
		spec, err := unix.TimeToTimespec(at)
		must(t, err)
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, src+name, []unix.Timespec{spec, spec}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// TestOthersAgree compares a restored tree with the original by rsync, getfattr
// and mtree, as root and as an ordinary user; then again after a restore in
// place over a tree in which everything was changed.
func TestOthersAgree(t *testing.T) {
	if os.Getuid() == 0 && os.Getenv(asNobody) == "" {
		t.Run("root", othersAgree)
		again(t)
		return
	}
	othersAgree(t)
}

func othersAgree(t *testing.T) {
	dir := os.Getenv(asNobody)
	if dir == "" {
		dir = t.TempDir()
	}
	t.Setenv("TMPDIR", dir)
	src, into := filepath.Join(dir, "src"), filepath.Join(dir, "restored")
	target := filepath.Join(into, "src")
	odd(t, src)
	v, _ := newVault(t)
	if os.Getuid() != 0 {
		must(t, os.Chmod(src+"/empty", 0o400)) // who may not read a file cannot back it up
	}
	backUp(t, v, src)
	restoreInto(t, v, into, RestoreOptions{Path: dir, Verify: true})
	agree(t, src, target)
	spoil(t, target)
	restoreInto(t, v, into, RestoreOptions{Path: dir, Delete: true})
	agree(t, src, target)
	if _, did := restoreInto(t, v, into, RestoreOptions{Path: dir, Delete: true}); len(only(did, ActionUnchanged)) > 0 {
		t.Errorf("restored once more: %q", only(did, ActionUnchanged))
	}
	original := filepath.Join(dir, "original")
	must(t, os.Rename(src, original))
	must(t, os.Mkdir(src, 0o700))
	restoreInto(t, v, src, RestoreOptions{Path: src, Delete: true}) // to where it was
	agree(t, original, src)
}

// spoil changes content, metadata and types below a directory.
func spoil(t *testing.T, target string) {
	t.Helper()
	must(t, os.Chmod(target+"/dir/sub", 0o700))
	must(t, os.Remove(target+"/link"))
	must(t, os.Mkdir(target+"/link", 0o700))
	write(t, target+"/link/file", nil)
	must(t, os.RemoveAll(target+"/nothing"))
	write(t, target+"/nothing", []byte("a file now"))
	must(t, os.Remove(target+"/dir/hard"))
	write(t, target+"/dir/hard", []byte("not linked"))
	must(t, unix.Setxattr(target+"/plain", "user.more", []byte("x"), 0))
	must(t, unix.Setxattr(target+"/dir", "user.dir", []byte("other"), 0))
	must(t, os.Chmod(target+"/-dash", 0o600))
	must(t, os.WriteFile(target+"/dir/extra", nil, 0o644))
	f, err := os.OpenFile(target+"/sparse", os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("data in a hole"), 15<<20)
	must(t, errors.Join(err, f.Close(), os.Truncate(target+"/big", 3<<20)))
}

// agree runs the tools that are here.
func agree(t *testing.T, src, target string) {
	t.Helper()
	ran := 0
	for _, tool := range []struct{ name, script string }{
		{"rsync", `rsync -aHAXcn --delete --itemize-changes "$1/" "$2/"`},
		{"getfattr", `a=$(cd "$1" && find . -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex) && b=$(cd "$2" && find . -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex) && [ "$a" = "$b" ] || { echo "attributes differ"; echo "$a" >"$1.attrs"; echo "$b" | diff "$1.attrs" -; }`},
		{"mtree", `(cd "$1" && mtree -c -k type,mode,uid,gid,nlink,size,link,time,sha256) | (cd "$2" && mtree -f /dev/stdin -p .)`},
	} {
		if _, err := exec.LookPath(tool.name); err != nil {
			t.Logf("no %s here", tool.name)
			continue
		}
		ran++
		cmd := exec.Command("bash", "-c", tool.script, tool.name, src, target)
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "" {
			t.Errorf("%s as %d: %v\n%s", tool.name, os.Geteuid(), err, firstLines(out))
		}
	}
	if ran == 0 {
		t.Skip("no tool to compare with is installed")
	}
}

func firstLines(b []byte) string {
	lines := strings.SplitAfterN(string(b), "\n", 30)
	return fmt.Sprint(strings.Join(lines[:min(len(lines), 29)], ""))
}
