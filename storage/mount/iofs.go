package mount

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	vaultv1 "gotong/proto/vault/v1"
)

// maxLinks are followed on the way to one file.
const maxLinks = 40

// FS is a Tree as io/fs.FS. Symbolic links are followed unless they lead out of
// the tree.
type FS struct {
	ctx  context.Context
	tree *Tree
}

var (
	_ fs.ReadDirFS  = FS{}
	_ fs.StatFS     = FS{}
	_ fs.ReadLinkFS = FS{}
)

// FS returns the tree as io/fs.FS; its reads end with ctx.
func (t *Tree) FS(ctx context.Context) FS { return FS{ctx, t} }

// walk returns the node at a path, following a link at its end if told so.
func (f FS) walk(op, name string, follow bool) (*Node, error) {
	fail := func(err error) (*Node, error) { return nil, &fs.PathError{Op: op, Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	rest := strings.Split(name, "/")
	at := "."
	node, err := f.tree.Root(f.ctx)
	if err != nil {
		return fail(err)
	}
	for links := 0; len(rest) > 0; {
		next := rest[0]
		if rest = rest[1:]; next == "." {
			continue
		}
		child, err := node.Child(f.ctx, next)
		if err != nil {
			return fail(err)
		}
		if child.entry.Type != vaultv1.Node_SYMLINK || len(rest) == 0 && !follow {
			node, at = child, path.Join(at, next)
			continue
		}
		target := path.Join(at, string(child.entry.Target))
		if links++; links > maxLinks || path.IsAbs(string(child.entry.Target)) || !fs.ValidPath(target) {
			return fail(fs.ErrNotExist)
		}
		rest = append(strings.Split(target, "/"), rest...)
		if node, err = f.tree.Root(f.ctx); err != nil {
			return fail(err)
		}
		at = "."
	}
	return node, nil
}

// Open implements fs.FS.
func (f FS) Open(name string) (fs.File, error) {
	node, err := f.walk("open", name, true)
	if err != nil {
		return nil, err
	}
	return &file{f.ctx, node, info{node, path.Base(name)}, 0, nil, false}, nil
}

// Stat implements fs.StatFS.
func (f FS) Stat(name string) (fs.FileInfo, error) {
	node, err := f.walk("stat", name, true)
	if err != nil {
		return nil, err
	}
	return info{node, path.Base(name)}, nil
}

// Lstat implements fs.ReadLinkFS.
func (f FS) Lstat(name string) (fs.FileInfo, error) {
	node, err := f.walk("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return info{node, path.Base(name)}, nil
}

// ReadLink implements fs.ReadLinkFS.
func (f FS) ReadLink(name string) (string, error) {
	node, err := f.walk("readlink", name, false)
	if err != nil {
		return "", err
	}
	if node.entry.Type != vaultv1.Node_SYMLINK {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return string(node.entry.Target), nil
}

// ReadDir implements fs.ReadDirFS.
func (f FS) ReadDir(name string) ([]fs.DirEntry, error) {
	node, err := f.walk("readdir", name, true)
	if err != nil {
		return nil, err
	}
	children, err := node.Children(f.ctx)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	out := make([]fs.DirEntry, len(children))
	for i, c := range children {
		out[i] = fs.FileInfoToDirEntry(info{c, c.name})
	}
	return out, nil
}

// info implements fs.FileInfo.
type info struct {
	node *Node
	name string
}

func (i info) Name() string { return i.name }
func (i info) Size() int64  { return int64(i.node.entry.Size) }
func (i info) IsDir() bool  { return i.node.IsDir() }
func (i info) Sys() any     { return i.node.entry }
func (i info) ModTime() time.Time {
	return time.Unix(i.node.entry.Mtime, int64(i.node.entry.MtimeNanos))
}

// Mode implements fs.FileInfo.
func (i info) Mode() fs.FileMode {
	e := i.node.entry
	mode := fs.FileMode(e.Mode & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if e.Mode&bit != 0 {
			mode |= flag
		}
	}
	switch e.Type {
	case vaultv1.Node_DIRECTORY:
		mode |= fs.ModeDir
	case vaultv1.Node_SYMLINK:
		mode |= fs.ModeSymlink
	case vaultv1.Node_FIFO:
		mode |= fs.ModeNamedPipe
	case vaultv1.Node_CHARACTER_DEVICE:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case vaultv1.Node_BLOCK_DEVICE:
		mode |= fs.ModeDevice
	}
	return mode
}

// file is an open file or directory.
type file struct {
	ctx    context.Context
	node   *Node
	info   info
	off    int64
	dir    []*Node // still to be read
	listed bool
}

func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *file) Close() error               { return nil }

// Read implements fs.File.
func (f *file) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.off)
	f.off += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// ReadAt implements io.ReaderAt.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if f.node.IsDir() || off < 0 {
		return 0, &fs.PathError{Op: "read", Path: f.info.name, Err: fs.ErrInvalid}
	}
	return f.node.ReadAt(f.ctx, p, off)
}

// ReadDir implements fs.ReadDirFile.
func (f *file) ReadDir(n int) ([]fs.DirEntry, error) {
	if !f.listed {
		children, err := f.node.Children(f.ctx)
		if err != nil {
			return nil, &fs.PathError{Op: "readdir", Path: f.info.name, Err: err}
		}
		f.dir, f.listed = children, true
	}
	count := len(f.dir)
	if n > 0 {
		if count == 0 {
			return nil, io.EOF
		}
		count = min(count, n)
	}
	out := make([]fs.DirEntry, count)
	for i, c := range f.dir[:count] {
		out[i] = fs.FileInfoToDirEntry(info{c, c.name})
	}
	f.dir = f.dir[count:]
	return out, nil
}
