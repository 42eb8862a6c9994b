package mount

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"sort"
	"sync"
	"syscall"
	"time"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/vault"
)

// Source is where trees and contents come from.
type Source interface {
	// Snapshots returns what there is, oldest first.
	Snapshots(ctx context.Context) ([]vault.Snapshot, error)
	// Entries calls fn with each entry of a listing, by rising names.
	Entries(ctx context.Context, listing vault.Ref, fn func(*vaultv1.Node) error) error
	// ReadAt reads a part of an object, as io.ReaderAt does.
	ReadAt(ctx context.Context, object vault.Ref, p []byte, off int64) (int, error)
}

const (
	// refreshAfter is how old the list of snapshots may be when somebody looks.
	refreshAfter = 5 * time.Second
	// maxKept entries of directories are kept, at least those of the last one.
	maxKept = 100_000
)

// Tree is the file system. It is safe for concurrent use.
type Tree struct {
	source Source
	single bool // the root is that of the one snapshot
	seed   maphash.Seed
	began  time.Time

	mu     sync.Mutex
	top    *Node
	loaded time.Time
	dirs   map[vault.Ref]*listing
	kept   int
	uses   uint64
}

// listing is the entries of one directory.
type listing struct {
	nodes   []*vaultv1.Node
	lastUse uint64
}

// NewTree returns a tree of all snapshots of the source, or, with single, of the
// only one.
func NewTree(source Source, single bool) *Tree {
	return &Tree{source: source, single: single, seed: maphash.MakeSeed(), began: time.Now(), dirs: map[vault.Ref]*listing{}}
}

// Node is one entry of the tree: of a snapshot, or one of the directories and
// links around them.
type Node struct {
	tree  *Tree
	name  string
	inode uint64
	group uint64 // what files with several names are told apart by: the snapshot
	entry *vaultv1.Node
	own   bool // around the snapshots: children holds all there is
	// children of a directory around the snapshots, by name.
	children []*Node
}

// Name returns the last element of the path.
func (n *Node) Name() string { return n.name }

// Inode returns a number that all names of one file have in common.
func (n *Node) Inode() uint64 { return n.inode }

// Entry returns what the snapshot says of the node. It is not to be changed.
func (n *Node) Entry() *vaultv1.Node { return n.entry }

// Fixed reports whether the node never changes: it is inside a snapshot.
func (n *Node) Fixed() bool { return !n.own }

// IsDir reports whether the node is a directory.
func (n *Node) IsDir() bool { return n.entry.Type == vaultv1.Node_DIRECTORY }

// Root returns the top directory.
func (t *Tree) Root(ctx context.Context) (*Node, error) {
	t.mu.Lock()
	top, fresh := t.top, time.Since(t.loaded) < refreshAfter || t.single
	t.mu.Unlock()
	if top != nil && fresh {
		return top, nil
	}
	list, err := t.source.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	if t.single {
		if len(list) != 1 {
			return nil, fmt.Errorf("%d snapshots where one was meant", len(list))
		}
		top = t.rootOf("", 1, list[0])
	} else {
		top = t.arrange(list)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.top, t.loaded = top, time.Now()
	return top, nil
}

// rootOf makes the node of a snapshot's "/".
func (t *Tree) rootOf(name string, inode uint64, s vault.Snapshot) *Node {
	created := s.Created
	return &Node{tree: t, name: name, inode: inode, group: t.hash(0, string(s.ID[:])), entry: &vaultv1.Node{
		Type: vaultv1.Node_DIRECTORY, Mode: 0o755, Mtime: created.Unix(), MtimeNanos: uint32(created.Nanosecond()), Content: s.Root.Proto(),
	}}
}

// hash returns an inode number that nobody else can choose.
func (t *Tree) hash(parent uint64, name string) uint64 {
	var h maphash.Hash
	h.SetSeed(t.seed)
	maphash.WriteComparable(&h, parent)
	_, _ = h.WriteString(name)
	return h.Sum64() | 1<<63 // never that of the root
}

// Children returns what is in a directory, by rising names.
func (n *Node) Children(ctx context.Context) ([]*Node, error) {
	if n.own {
		return n.current(ctx)
	}
	nodes, err := n.tree.list(ctx, n.entry)
	if err != nil {
		return nil, err
	}
	out := make([]*Node, len(nodes))
	for i, entry := range nodes {
		out[i] = n.child(entry)
	}
	return out, nil
}

// current returns the children of a directory around the snapshots as they are
// now: the nodes of an earlier list have the same inode numbers.
func (n *Node) current(ctx context.Context) ([]*Node, error) {
	top, err := n.tree.Root(ctx)
	if err != nil {
		return nil, err
	}
	if n.inode == top.inode {
		return top.children, nil
	}
	if now := findOwn(top, n.inode); now != nil {
		return now.children, nil
	}
	return nil, nil // its last snapshot was forgotten
}

func findOwn(dir *Node, inode uint64) *Node {
	for _, c := range dir.children {
		if c.own && c.inode == inode {
			return c
		}
		if found := findOwn(c, inode); found != nil {
			return found
		}
	}
	return nil
}

// Child returns one entry of a directory. The error is fs.ErrNotExist, or that
// of reading.
func (n *Node) Child(ctx context.Context, name string) (*Node, error) {
	if n.own {
		children, err := n.current(ctx)
		if err != nil {
			return nil, err
		}
		i := sort.Search(len(children), func(i int) bool { return children[i].name >= name })
		if i < len(children) && children[i].name == name {
			return children[i], nil
		}
		return nil, fs.ErrNotExist
	}
	nodes, err := n.tree.list(ctx, n.entry)
	if err != nil {
		return nil, err
	}
	i := sort.Search(len(nodes), func(i int) bool { return string(nodes[i].Name) >= name })
	if i < len(nodes) && string(nodes[i].Name) == name {
		return n.child(nodes[i]), nil
	}
	return nil, fs.ErrNotExist
}

// child makes the node of an entry. All names of a file with several have the
// same inode number.
func (n *Node) child(entry *vaultv1.Node) *Node {
	c := &Node{tree: n.tree, name: string(entry.Name), group: n.group, entry: entry, inode: n.tree.hash(n.inode, string(entry.Name))}
	if l := entry.Link; l != nil {
		c.inode = n.tree.hash(n.group, fmt.Sprintf("%d/%d", l.Device, l.Inode))
	}
	return c
}

// list returns the entries of a directory of a snapshot, in order.
func (t *Tree) list(ctx context.Context, dir *vaultv1.Node) ([]*vaultv1.Node, error) {
	if dir.Type != vaultv1.Node_DIRECTORY {
		return nil, syscall.ENOTDIR
	}
	ref, err := vault.RefOf(dir.Content)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.uses++
	if known := t.dirs[ref]; known != nil {
		known.lastUse = t.uses
		t.mu.Unlock()
		return known.nodes, nil
	}
	t.mu.Unlock()
	var nodes []*vaultv1.Node
	if err := t.source.Entries(ctx, ref, func(n *vaultv1.Node) error {
		nodes = append(nodes, n)
		return nil
	}); err != nil {
		return nil, err
	}
	t.keep(ref, nodes)
	return nodes, nil
}

// keep remembers the entries of a directory and forgets those that were not
// used for longest.
func (t *Tree) keep(ref vault.Ref, nodes []*vaultv1.Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dirs[ref] != nil {
		return
	}
	for t.kept += len(nodes) + 1; t.kept > maxKept && len(t.dirs) > 0; {
		oldest, found := vault.Ref{}, (*listing)(nil)
		for r, l := range t.dirs {
			if found == nil || l.lastUse < found.lastUse {
				oldest, found = r, l
			}
		}
		delete(t.dirs, oldest)
		t.kept -= len(found.nodes) + 1
	}
	t.dirs[ref] = &listing{nodes, t.uses}
}

// ReadAt reads the bytes of a file; holes are zeros. At the end of the file the
// error is io.EOF.
func (n *Node) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	e := n.entry
	if e.Type != vaultv1.Node_FILE {
		return 0, syscall.EISDIR
	}
	if off < 0 || uint64(off) >= e.Size {
		return 0, io.EOF
	}
	content, err := vault.RefOf(e.Content)
	if err != nil {
		return 0, err
	}
	var end error
	if left := e.Size - uint64(off); uint64(len(p)) > left {
		p, end = p[:left], io.EOF
	}
	if !e.Sparse {
		return n.readContent(ctx, content, p, off, end)
	}
	clear(p)
	stored := uint64(0) // where the extent begins in the content
	from, to := uint64(off), uint64(off)+uint64(len(p))
	for _, x := range e.Extents {
		first, last := max(from, x.Offset), min(to, x.Offset+x.Length)
		if first < last {
			if _, err := n.readContent(ctx, content, p[first-from:last-from], int64(stored+first-x.Offset), nil); err != nil {
				return 0, err
			}
		}
		stored += x.Length
	}
	return len(p), end
}

// readContent fills p; a content that ends before is corrupt.
func (n *Node) readContent(ctx context.Context, content vault.Ref, p []byte, off int64, end error) (int, error) {
	got, err := n.tree.source.ReadAt(ctx, content, p, off)
	if got == len(p) {
		return got, end
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %s ends early", storage.ErrCorrupt, n.name)
	}
	return got, err
}
