package sandbox

import (
	"io/fs"

	"github.com/tetratelabs/wazero/experimental/sys"
	wsys "github.com/tetratelabs/wazero/sys"
)

// This file has the calls that the engine makes on behalf of a guest. Links of
// either kind are refused: nothing in the tree ever leads elsewhere.

// OpenFile opens or makes a file, or opens a directory.
func (t *tree) OpenFile(path string, flag sys.Oflag, _ fs.FileMode) (sys.File, sys.Errno) {
	p, errno := t.walk(path)
	if errno != 0 {
		return nil, errno
	}
	if t.open >= maxOpenFiles {
		return nil, sys.EAGAIN
	}
	writes := flag&(sys.O_RDWR|sys.O_WRONLY|sys.O_TRUNC|sys.O_APPEND) != 0
	switch {
	case p.node == nil && flag&sys.O_CREAT == 0:
		return nil, sys.ENOENT
	case p.node == nil && (flag&sys.O_DIRECTORY != 0 || p.mustDir):
		return nil, sys.EISDIR
	case p.node == nil:
		return t.create(p, flag)
	case flag&sys.O_CREAT != 0 && flag&sys.O_EXCL != 0:
		return nil, sys.EEXIST
	case p.node.isDir() && flag&sys.O_DIRECTORY != 0:
		return t.openDir(p.node), 0
	case p.node.isDir() && writes:
		return nil, sys.EISDIR
	case p.node.isDir():
		return t.openDir(p.node), 0
	case flag&sys.O_DIRECTORY != 0:
		return nil, sys.ENOTDIR
	case writes && !p.node.writable:
		return nil, sys.EROFS
	}
	return t.openFile(p.node, flag)
}

func (t *tree) create(p place, flag sys.Oflag) (sys.File, sys.Errno) {
	n := t.newNode(true)
	n.content = t.store.newOutput()
	if errno := t.link(p, n); errno != 0 {
		return nil, errno
	}
	return t.openFile(n, flag)
}

func (t *tree) openFile(n *node, flag sys.Oflag) (sys.File, sys.Errno) {
	if errno := n.content.open(); errno != 0 {
		return nil, errno
	}
	if flag&sys.O_TRUNC != 0 {
		if errno := n.content.truncate(0); errno != 0 {
			n.content.close()
			return nil, errno
		}
		n.mtime = t.clock.now()
	}
	t.hold(n)
	return &fileHandle{
		tree: t, node: n, append: flag&sys.O_APPEND != 0,
		reads: flag&sys.O_WRONLY == 0, writes: flag&(sys.O_RDWR|sys.O_WRONLY) != 0,
	}, 0
}

func (t *tree) openDir(n *node) sys.File {
	t.hold(n)
	return &dirHandle{tree: t, node: n}
}

func (t *tree) hold(n *node) {
	t.open++
	n.handles++
}

func (t *tree) release(n *node) {
	t.open--
	n.handles--
	n.dropUnused()
}

// Stat describes what path names.
func (t *tree) Stat(path string) (wsys.Stat_t, sys.Errno) {
	p, errno := t.find(path)
	if errno != 0 {
		return wsys.Stat_t{}, errno
	}
	return p.node.stat(), 0
}

// Lstat is Stat: there are no links.
func (t *tree) Lstat(path string) (wsys.Stat_t, sys.Errno) { return t.Stat(path) }

// Readlink refuses: there are no links.
func (t *tree) Readlink(path string) (string, sys.Errno) {
	if _, errno := t.find(path); errno != 0 {
		return "", errno
	}
	return "", sys.EINVAL
}

// Link refuses to make a second name.
func (t *tree) Link(_, _ string) sys.Errno { return sys.EPERM }

// Symlink refuses to make a link.
func (t *tree) Symlink(_, _ string) sys.Errno { return sys.EPERM }

// Chmod refuses: modes are fixed.
func (t *tree) Chmod(string, fs.FileMode) sys.Errno { return sys.EPERM }

// Mkdir makes a directory below /out.
func (t *tree) Mkdir(path string, _ fs.FileMode) sys.Errno {
	p, errno := t.walk(path)
	switch {
	case errno != 0:
		return errno
	case p.node != nil:
		return sys.EEXIST
	}
	return t.link(p, t.newDir(true))
}

// Rmdir removes an empty directory below /out.
func (t *tree) Rmdir(path string) sys.Errno {
	p, errno := t.find(path)
	switch {
	case errno != 0:
		return errno
	case !p.node.isDir():
		return sys.ENOTDIR
	}
	if errno := p.changeable(); errno != 0 {
		return errno
	}
	if len(p.node.children) > 0 {
		return sys.ENOTEMPTY
	}
	t.unlink(p)
	return 0
}

// Unlink removes a file below /out.
func (t *tree) Unlink(path string) sys.Errno {
	p, errno := t.find(path)
	switch {
	case errno != 0:
		return errno
	case p.node.isDir():
		return sys.EISDIR
	}
	if errno := p.changeable(); errno != 0 {
		return errno
	}
	t.unlink(p)
	return 0
}

// Rename moves a file, or an empty directory, below /out. A directory with
// entries is refused: their names would change cost and length unseen.
func (t *tree) Rename(from, to string) sys.Errno {
	src, errno := t.find(from)
	if errno != 0 {
		return errno
	}
	dst, errno := t.walk(to)
	if errno != 0 {
		return errno
	}
	if src.node == dst.node && src.node != nil {
		return 0
	}
	if errno := src.renameable(dst); errno != 0 {
		return errno
	}
	n := src.node
	if dst.node != nil {
		t.unlink(dst)
	}
	n.handles++ // keeps the content while the node has no name
	defer func() { n.handles--; n.dropUnused() }()
	t.unlink(src)
	return t.link(dst, n)
}

func (p place) renameable(dst place) sys.Errno {
	if errno := p.changeable(); errno != 0 {
		return errno
	}
	if errno := dst.linkable(); errno != 0 {
		return errno
	}
	switch {
	case p.node.isDir() && len(p.node.children) > 0:
		return sys.ENOTSUP
	case p.node.isDir() && p.node == dst.dir:
		return sys.EINVAL
	case dst.node == nil && dst.mustDir && !p.node.isDir():
		return sys.ENOTDIR
	case dst.node == nil:
		return 0
	case p.node.isDir() != dst.node.isDir() && dst.node.isDir():
		return sys.EISDIR
	case p.node.isDir() != dst.node.isDir():
		return sys.ENOTDIR
	case len(dst.node.children) > 0:
		return sys.ENOTEMPTY
	}
	return 0
}

// Utimens sets the time of a file below /out.
func (t *tree) Utimens(path string, _, mtim int64) sys.Errno {
	p, errno := t.find(path)
	if errno != 0 {
		return errno
	}
	return p.node.setTime(mtim)
}

func (n *node) setTime(mtim int64) sys.Errno {
	if !n.writable {
		return sys.EROFS
	}
	if mtim != sys.UTIME_OMIT {
		n.mtime = mtim
	}
	return 0
}
