package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	vaultv1 "gotong/proto/vault/v1"
)

const (
	// fixedFor is how long the kernel may keep what never changes.
	fixedFor = time.Hour
	// readBytes is the most that the kernel asks for at once.
	readBytes  = 1 << 20
	blockBytes = 512
)

// Mounted is a tree that is mounted.
type Mounted struct {
	dir    string
	server *fuse.Server
	done   chan struct{}

	mu       sync.Mutex
	detached bool // no longer in the tree of directories, though perhaps still read
}

// Mount mounts the tree at an empty directory, for this user alone. Reads that
// still run when ctx ends fail; the mount stays until Unmount. Errors: ErrPlace,
// ErrStale, ErrUnsupported.
func Mount(ctx context.Context, tree *Tree, dir string, logger *slog.Logger) (*Mounted, error) {
	if err := checkPlace(dir); err != nil {
		return nil, err
	}
	root, err := tree.Root(ctx)
	if err != nil {
		return nil, err
	}
	ours, fixed := refreshAfter, fixedFor
	server, err := fs.Mount(dir, &inode{ctx: ctx, node: root}, &fs.Options{
		MountOptions: fuse.MountOptions{
			FsName: "gotong", Name: "gotong", Options: []string{"ro"}, DirectMount: true,
			MaxWrite: readBytes, MaxReadAhead: readBytes, DisableReadDirPlus: true,
			Logger: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		},
		AttrTimeout: &fixed, EntryTimeout: &fixed, NegativeTimeout: &ours,
		RootStableAttr: &fs.StableAttr{Ino: 1, Mode: syscall.S_IFDIR},
		Logger:         log.New(io.Discard, "", 0),
	})
	if err != nil {
		if _, statErr := os.Stat("/dev/fuse"); statErr != nil {
			err = statErr
		}
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	m := &Mounted{dir: dir, server: server, done: make(chan struct{})}
	go func() {
		server.Wait()
		close(m.done)
	}()
	return m, nil
}

// Done is closed when the tree is no longer mounted.
func (m *Mounted) Done() <-chan struct{} { return m.done }

// Unmount ends the mount. One that is in use goes away now and is taken from
// those who use it, whose reads fail. To do it again changes nothing.
func (m *Mounted) Unmount() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.done:
		return nil
	default:
	}
	if m.detached { // nothing of it is at dir, but its last reader may keep it from being done
		return nil
	}
	err := m.server.Unmount() // which tries for a moment
	if err == nil {
		<-m.done
		return nil
	}
	if unix.Unmount(m.dir, unix.MNT_DETACH) == nil || fusermount("-u", "-z", m.dir) == nil {
		m.detached = true
		return nil
	}
	return fmt.Errorf("unmount %s: %w; fusermount -uz %s does", m.dir, err, m.dir)
}

// fusermount runs the helper that lets ordinary users unmount.
func fusermount(args ...string) error {
	err := exec.Command("fusermount3", args...).Run()
	if errors.Is(err, exec.ErrNotFound) {
		err = exec.Command("fusermount", args...).Run()
	}
	return err
}

// inode is one node in the kernel's eyes.
type inode struct {
	fs.Inode
	ctx  context.Context
	node *Node
}

var (
	_ fs.NodeLookuper    = (*inode)(nil)
	_ fs.NodeReaddirer   = (*inode)(nil)
	_ fs.NodeGetattrer   = (*inode)(nil)
	_ fs.NodeOpener      = (*inode)(nil)
	_ fs.NodeReader      = (*inode)(nil)
	_ fs.NodeReadlinker  = (*inode)(nil)
	_ fs.NodeGetxattrer  = (*inode)(nil)
	_ fs.NodeListxattrer = (*inode)(nil)
	_ fs.NodeStatfser    = (*inode)(nil)
)

// errno is what a program sees of an error. What friends cannot give is an
// input/output error.
func errno(err error) syscall.Errno {
	var no syscall.Errno
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return fs.OK
	case errors.As(err, &no):
		return no
	case errors.Is(err, iofs.ErrNotExist):
		return syscall.ENOENT
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	}
	return syscall.EIO
}

// within returns a context that ends with the request and with the mount.
func (i *inode) within(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(i.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// Lookup implements fs.NodeLookuper.
func (i *inode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	ctx, done := i.within(ctx)
	defer done()
	child, err := i.node.Child(ctx, name)
	if err != nil {
		return nil, errno(err)
	}
	if !i.node.Fixed() {
		out.SetEntryTimeout(refreshAfter)
	}
	child.attr(&out.Attr)
	return i.NewInode(ctx, &inode{ctx: i.ctx, node: child}, fs.StableAttr{Mode: child.mode() & syscall.S_IFMT, Ino: child.inode}), fs.OK
}

// Readdir implements fs.NodeReaddirer.
func (i *inode) Readdir(ctx context.Context) (fs.DirStream, syscall.Errno) {
	ctx, done := i.within(ctx)
	defer done()
	children, err := i.node.Children(ctx)
	if err != nil {
		return nil, errno(err)
	}
	entries := make([]fuse.DirEntry, len(children))
	for j, c := range children {
		entries[j] = fuse.DirEntry{Name: c.name, Mode: c.mode(), Ino: c.inode}
	}
	return fs.NewListDirStream(entries), fs.OK
}

// Getattr implements fs.NodeGetattrer.
func (i *inode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	i.node.attr(&out.Attr)
	return fs.OK
}

// Open implements fs.NodeOpener. Contents never change, so the kernel may keep
// them.
func (i *inode) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	return nil, fuse.FOPEN_KEEP_CACHE, fs.OK
}

// Read implements fs.NodeReader.
func (i *inode) Read(ctx context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	ctx, done := i.within(ctx)
	defer done()
	n, err := i.node.ReadAt(ctx, dest, off)
	return fuse.ReadResultData(dest[:n]), errno(err)
}

// Readlink implements fs.NodeReadlinker.
func (i *inode) Readlink(context.Context) ([]byte, syscall.Errno) { return i.node.entry.Target, fs.OK }

// Getxattr implements fs.NodeGetxattrer.
func (i *inode) Getxattr(_ context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	for _, x := range i.node.entry.Xattrs {
		if string(x.Name) == name {
			return fill(dest, x.Value)
		}
	}
	return 0, syscall.ENODATA
}

// Listxattr implements fs.NodeListxattrer.
func (i *inode) Listxattr(_ context.Context, dest []byte) (uint32, syscall.Errno) {
	var names []byte
	for _, x := range i.node.entry.Xattrs {
		names = append(append(names, x.Name...), 0)
	}
	return fill(dest, names)
}

// fill answers as the xattr calls do: the size alone when there is no room.
func fill(dest, value []byte) (uint32, syscall.Errno) {
	if len(dest) < len(value) {
		return uint32(len(value)), syscall.ERANGE
	}
	return uint32(copy(dest, value)), fs.OK
}

// Statfs implements fs.NodeStatfser.
func (i *inode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.NameLen = blockBytes, 4096
	return fs.OK
}

// mode returns type and permissions as stat does.
func (n *Node) mode() uint32 {
	kinds := map[vaultv1.Node_Type]uint32{
		vaultv1.Node_FILE: syscall.S_IFREG, vaultv1.Node_DIRECTORY: syscall.S_IFDIR, vaultv1.Node_SYMLINK: syscall.S_IFLNK,
		vaultv1.Node_FIFO: syscall.S_IFIFO, vaultv1.Node_CHARACTER_DEVICE: syscall.S_IFCHR, vaultv1.Node_BLOCK_DEVICE: syscall.S_IFBLK,
	}
	return kinds[n.entry.Type] | n.entry.Mode
}

// attr fills in what stat tells.
func (n *Node) attr(out *fuse.Attr) {
	e := n.entry
	out.Ino, out.Mode, out.Nlink = n.inode, n.mode(), 1
	out.Size, out.Uid, out.Gid = e.Size, e.Uid, e.Gid
	switch e.Type {
	case vaultv1.Node_DIRECTORY:
		out.Nlink = 2
	case vaultv1.Node_SYMLINK:
		out.Size = uint64(len(e.Target))
	case vaultv1.Node_FILE:
		if e.Link != nil {
			out.Nlink = uint32(e.Link.Names)
		}
		stored := e.Size
		if e.Sparse {
			stored = e.Content.GetSize()
		}
		out.Blocks = (stored + blockBytes - 1) / blockBytes
	}
	out.Blksize = 4096
	out.Rdev = uint32(unix.Mkdev(e.DeviceMajor, e.DeviceMinor))
	if n.own {
		out.Uid, out.Gid = uint32(os.Getuid()), uint32(os.Getgid())
	}
	mtime := time.Unix(e.Mtime, int64(e.MtimeNanos))
	out.SetTimes(&mtime, &mtime, &mtime)
}
