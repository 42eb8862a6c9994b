//go:build linux || darwin

package snapshot

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	vaultv1 "gotong/proto/vault/v1"
)

const setIDBits = 0o6000

// finishFile sets the metadata of a file that is written. Owner first, because
// a change of owner clears setuid and capabilities; times last.
func finishFile(f, dir *os.File, _ *os.Root, name string, node *vaultv1.Node) error {
	fd := int(f.Fd())
	err := setOwner(node, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) })
	err = errors.Join(err, removeXattrs(fd, node))
	err = errors.Join(err, setXattrs(node, func(attr string, value []byte) error { return unix.Fsetxattr(fd, attr, value, 0) }))
	err = errors.Join(err, unix.Fchmod(fd, restoredMode(node)))
	return errors.Join(err, setTimes(int(dir.Fd()), name, node))
}

// finishDir sets the metadata of a directory whose entries are all there. The
// mode comes last: without it "." may not be reachable.
func finishDir(f *os.File, node *vaultv1.Node) error {
	fd := int(f.Fd())
	err := setOwner(node, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) })
	err = errors.Join(err, removeXattrs(fd, node))
	err = errors.Join(err, setXattrs(node, func(attr string, value []byte) error { return unix.Fsetxattr(fd, attr, value, 0) }))
	err = errors.Join(err, setTimes(fd, ".", node))
	return errors.Join(err, unix.Fchmod(fd, restoredMode(node)))
}

// finishSpecial sets the metadata of a link, fifo or device, by name and
// without following it.
func finishSpecial(dir *os.File, _ *os.Root, name string, node *vaultv1.Node) error {
	fd := int(dir.Fd())
	err := setOwner(node, func(uid, gid int) error { return unix.Fchownat(fd, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW) })
	path := entryPath(fd, dir.Name(), name)
	err = errors.Join(err, setXattrs(node, func(attr string, value []byte) error { return unix.Lsetxattr(path, attr, value, 0) }))
	if node.Type != vaultv1.Node_SYMLINK {
		err = errors.Join(err, unix.Fchmodat(fd, name, restoredMode(node), 0))
	}
	return errors.Join(err, setTimes(fd, name, node))
}

// setOwner gives an entry its owner, as far as the user may.
func setOwner(node *vaultv1.Node, chown func(uid, gid int) error) error {
	switch {
	case os.Geteuid() == 0:
		return chown(int(node.Uid), int(node.Gid))
	case canOwn(node):
		return chown(-1, int(node.Gid))
	}
	return nil
}

// groups are those of the user.
var groups = sync.OnceValue(func() []int {
	ids, _ := os.Getgroups() // without them only the first counts
	return append(ids, os.Getegid())
})

// canOwn reports whether the user may give an entry its owner and group.
func canOwn(node *vaultv1.Node) bool {
	return os.Geteuid() == 0 || int(node.Uid) == os.Geteuid() && slices.Contains(groups(), int(node.Gid))
}

// restoredMode leaves setuid and setgid out where the owner could not be
// restored: they would lend the rights of somebody else.
func restoredMode(node *vaultv1.Node) uint32 {
	if !canOwn(node) {
		return node.Mode &^ setIDBits
	}
	return node.Mode
}

// sameRights reports whether an entry has the mode and owner that a restore
// would give it.
func sameRights(have meta, node *vaultv1.Node) bool {
	return have.mode == restoredMode(node) && sameOwner(have, node)
}

func sameOwner(have meta, node *vaultv1.Node) bool {
	return !canOwn(node) || have.uid == node.Uid && have.gid == node.Gid
}

// removeXattrs removes what the entry got from elsewhere: from the directory in
// which it was made, or from before.
func removeXattrs(fd int, node *vaultv1.Node) (all error) {
	attrs, err := unixFile(fd).xattrs()
	if err != nil {
		return err
	}
	for _, x := range attrs {
		name := string(x.Name)
		wanted := slices.ContainsFunc(node.Xattrs, func(w *vaultv1.Xattr) bool { return string(w.Name) == name })
		if wanted || !ours(name) {
			continue
		}
		if err := unix.Fremovexattr(fd, name); err != nil && !errors.Is(err, errNoXattr) {
			all = errors.Join(all, &os.PathError{Op: "remove attribute", Path: name, Err: err})
		}
	}
	return all
}

func setXattrs(node *vaultv1.Node, set func(attr string, value []byte) error) (all error) {
	for _, x := range node.Xattrs {
		if err := set(string(x.Name), x.Value); err != nil && !privileged(string(x.Name)) {
			all = errors.Join(all, &os.PathError{Op: "set attribute", Path: string(x.Name), Err: err})
		}
	}
	return all
}

// privileged reports whether an attribute is beyond an ordinary user.
func privileged(attr string) bool {
	return os.Geteuid() != 0 && (strings.HasPrefix(attr, "security.") || strings.HasPrefix(attr, "trusted."))
}

func setTimes(dirfd int, name string, node *vaultv1.Node) error {
	t, err := unix.TimeToTimespec(modTime(node))
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(dirfd, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}

// lstatIn tells about an entry of an open directory, or about "." itself.
func lstatIn(dir *os.File, _ *os.Root, name string) (meta, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return meta{}, err
	}
	return metaOf(&st), nil
}

// sourceOf reads an open file as a backup does. The file stays the caller's.
func sourceOf(f *os.File) sourceFile { return unixFile(f.Fd()) }
