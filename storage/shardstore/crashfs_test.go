package shardstore_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"gotong/grid/disk"
	"gotong/storage/shardstore"
)

// crashFS is a file system in memory that remembers what was synced, writes
// down every operation, and fails the n-th one on demand.
type crashFS struct {
	mu     sync.Mutex
	root   *inode
	locked bool
	free   uint64

	log     []string // operations that change something, in order
	ops     int
	failAt  int  // the operation that fails; 0: none
	failAll bool // and all after it: the machine is gone
	failErr error
	failed  string // what failed first

	failedAfter int // lines of the log that came before
}

// inode is a file or a directory. Its durable side is what a power cut leaves.
type inode struct {
	dir           bool
	data, durable []byte
	names, kept   map[string]*inode
}

func newDirNode() *inode {
	return &inode{dir: true, names: map[string]*inode{}, kept: map[string]*inode{}}
}

func newCrashFS() *crashFS { return &crashFS{root: newDirNode(), free: 1 << 40} }

// open opens the store on it.
func (c *crashFS) open() (*shardstore.Store, error) {
	return shardstore.Open("", shardstore.Config{FS: c})
}

// crash returns the file system after a power cut. With rng nil all that was
// not synced is gone; else each name and each page is as it was when it was
// last synced, or as it was last written. A file that only changed its name has
// at least one of the two, because file systems with a journal, and those that
// copy on write, rename in one step.
func (c *crashFS) crash(rng *rand.Rand) *crashFS {
	c.mu.Lock()
	defer c.mu.Unlock()
	made := map[*inode]*inode{}
	out := &crashFS{root: c.root.crash(rng, made), free: c.free}
	now := map[*inode]bool{}
	c.root.walk(false, "", func(_ string, n *inode) { now[n] = true })
	c.root.walk(true, "", func(name string, n *inode) {
		if !now[n] || n.dir || made[n] != nil {
			return
		}
		if parent, err := out.find(path.Dir(name)); err == nil {
			made[n] = n.crash(rng, made)
			parent.names[path.Base(name)], parent.kept[path.Base(name)] = made[n], made[n]
		}
	})
	return out
}

// walk calls each for everything below n, as it is or as it was last synced.
func (n *inode) walk(kept bool, prefix string, each func(name string, n *inode)) {
	names := n.names
	if kept {
		names = n.kept
	}
	for name, child := range names {
		each(prefix+name, child)
		if child.dir {
			child.walk(kept, prefix+name+"/", each)
		}
	}
}

func (n *inode) crash(rng *rand.Rand, made map[*inode]*inode) *inode {
	lucky := func() bool { return rng != nil && rng.IntN(2) == 0 }
	if !n.dir {
		data := bytes.Clone(n.durable)
		const page = 512
		for at := 0; at < len(n.data); at += page {
			end := min(at+page, len(n.data))
			if lucky() {
				data = append(data, make([]byte, max(0, end-len(data)))...)
				copy(data[at:end], n.data[at:end])
			}
		}
		made[n] = &inode{data: data, durable: bytes.Clone(data)}
		return made[n]
	}
	out := newDirNode()
	all := slices.Sorted(maps.Keys(n.kept))
	for name := range n.names {
		if n.kept[name] == nil {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	for _, name := range all {
		child := n.kept[name]
		if lucky() {
			child = n.names[name]
		}
		if child != nil {
			out.names[name] = child.crash(rng, made)
			out.kept[name] = out.names[name]
		}
	}
	return out
}

// step counts one operation and says whether it fails.
func (c *crashFS) step(format string, args ...any) error {
	c.ops++
	line := fmt.Sprintf(format, args...)
	if c.failAt > 0 && (c.ops == c.failAt || c.failAll && c.ops > c.failAt) {
		if c.failed == "" {
			c.failed, c.failedAfter = line, len(c.log)
		}
		return &fs.PathError{Op: line, Path: "", Err: c.failErr}
	}
	c.log = append(c.log, line)
	return nil
}

func (c *crashFS) find(name string) (*inode, error) {
	n := c.root
	if name == "." {
		return n, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if n = n.names[part]; n == nil {
			return nil, &fs.PathError{Op: "find", Path: name, Err: fs.ErrNotExist}
		}
	}
	return n, nil
}

func (c *crashFS) add(name string, n *inode) error {
	parent, err := c.find(path.Dir(name))
	if err != nil {
		return err
	}
	if parent.names[path.Base(name)] != nil {
		return &fs.PathError{Op: "add", Path: name, Err: fs.ErrExist}
	}
	parent.names[path.Base(name)] = n
	return nil
}

func (c *crashFS) Create(name string) (shardstore.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := &inode{}
	if err := c.step("create %s", name); err != nil {
		return nil, err
	}
	if err := c.add(name, n); err != nil {
		return nil, err
	}
	return &crashFile{c, n, name}, nil
}

func (c *crashFS) Open(name string) (shardstore.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.find(name)
	if err != nil {
		return nil, err
	}
	return &crashFile{c, n, name}, nil
}

func (c *crashFS) OpenRW(name string) (shardstore.File, error) { return c.Open(name) }

func (c *crashFS) Mkdir(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.find(name); err == nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrExist}
	}
	if err := c.step("mkdir %s", name); err != nil {
		return err
	}
	return c.add(name, newDirNode())
}

func (c *crashFS) Rename(from, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step("rename %s %s", from, to); err != nil {
		return err
	}
	n, err := c.find(from)
	if err != nil {
		return err
	}
	source, _ := c.find(path.Dir(from))
	target, err := c.find(path.Dir(to))
	if err != nil {
		return err
	}
	delete(source.names, path.Base(from))
	target.names[path.Base(to)] = n
	return nil
}

func (c *crashFS) Remove(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.find(name); err != nil {
		return err
	}
	if err := c.step("remove %s", name); err != nil {
		return err
	}
	parent, _ := c.find(path.Dir(name))
	delete(parent.names, path.Base(name))
	return nil
}

func (c *crashFS) ReadDir(name string) ([]fs.DirEntry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.find(name)
	if err != nil {
		return nil, err
	}
	var out []fs.DirEntry
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		out = append(out, fs.FileInfoToDirEntry(crashInfo{name, n.names[name]}))
	}
	return out, nil
}

func (c *crashFS) SyncDir(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.find(name)
	if err != nil {
		return err
	}
	if err := c.step("sync dir %s", name); err != nil {
		return err
	}
	n.kept = maps.Clone(n.names)
	return nil
}

func (c *crashFS) Free() (uint64, error) { return c.free, nil }

func (c *crashFS) Lock(string) (io.Closer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.locked {
		return nil, disk.ErrLocked
	}
	c.locked = true
	return unlock{c}, nil
}

func (c *crashFS) Close() error { return nil }

type unlock struct{ c *crashFS }

func (u unlock) Close() error { u.c.locked = false; return nil }

type crashFile struct {
	c    *crashFS
	n    *inode
	name string
}

func (f *crashFile) Write(p []byte) (int, error) { return f.WriteAt(p, int64(len(f.n.data))) }

// WriteAt leaves half of what it was given when it fails.
func (f *crashFile) WriteAt(p []byte, off int64) (int, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	err := f.c.step("write %s %d+%d", f.name, off, len(p))
	if err != nil {
		p = p[:len(p)/2]
	}
	end := int(off) + len(p)
	f.n.data = append(f.n.data, make([]byte, max(0, end-len(f.n.data)))...)
	copy(f.n.data[off:], p)
	return len(p), err
}

func (f *crashFile) ReadAt(p []byte, off int64) (int, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	return bytes.NewReader(f.n.data).ReadAt(p, off)
}

func (f *crashFile) Sync() error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if err := f.c.step("sync %s", f.name); err != nil {
		return err
	}
	f.n.durable = bytes.Clone(f.n.data)
	return nil
}

func (f *crashFile) Size() (int64, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *crashFile) Close() error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	f.c.log = append(f.c.log, "close "+f.name)
	return nil
}

type crashInfo struct {
	name string
	n    *inode
}

func (i crashInfo) Name() string       { return i.name }
func (i crashInfo) Size() int64        { return int64(len(i.n.data)) }
func (i crashInfo) ModTime() time.Time { return time.Time{} }
func (i crashInfo) IsDir() bool        { return i.n.dir }
func (i crashInfo) Sys() any           { return nil }
func (i crashInfo) Mode() fs.FileMode {
	if i.n.dir {
		return fs.ModeDir
	}
	return 0
}
