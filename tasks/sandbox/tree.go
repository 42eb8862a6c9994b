package sandbox

import (
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero/experimental/sys"
	wsys "github.com/tetratelabs/wazero/sys"

	"gotong/tasks"
)

// Bounds of one guest's file system.
const (
	maxOpenFiles = 128 // handles that a guest may hold at once
	nameCost     = 64  // what an entry costs beside its name, against tasks.MaxOutputNames
)

// tree is the file system that a guest sees: /in, read-only, and /out. The
// names live here and nowhere else; a path of the guest is only ever looked up
// in these maps.
type tree struct {
	sys.UnimplementedFS
	store *fileStore
	clock *clock

	root   *node
	out    *node
	inputs []tasks.Input // what in was built from
	inos   uint64
	open   int
	nodes  int // entries below out
	names  int // their cost against tasks.MaxOutputNames
}

// node is a file or directory of the tree.
type node struct {
	children map[string]*node // a directory's; nil for a file
	content  content          // a file's
	writable bool
	linked   bool // has a name
	handles  int
	ino      uint64
	mtime    int64
}

func (n *node) isDir() bool { return n.children != nil }

func newTree(store *fileStore, clock *clock) *tree {
	t := &tree{store: store, clock: clock}
	t.reset(nil)
	return t
}

// reset makes the tree fresh for the next guest.
func (t *tree) reset(inputs []tasks.Input) {
	t.open, t.nodes, t.names = 0, 0, 0
	if t.root == nil || !slices.Equal(inputs, t.inputs) {
		t.build(inputs)
		return
	}
	if len(t.out.children) > 0 {
		clear(t.out.children)
	}
	t.inos = t.out.ino
	t.out.mtime = clockStart
}

// build lays out root, /in with all inputs, and /out. Numbers are given in
// order, so that they are the same everywhere; /out comes last so that reset
// can go back to it.
func (t *tree) build(inputs []tasks.Input) {
	t.inos, t.inputs = 0, slices.Clone(inputs)
	t.root = t.newDir(false)
	in := t.newDir(false)
	t.root.children["in"] = in
	for _, input := range inputs {
		dir := in
		parts := strings.Split(input.Name, "/")
		for _, part := range parts[:len(parts)-1] {
			if dir.children[part] == nil {
				dir.children[part] = t.newDir(false)
			}
			dir = dir.children[part]
		}
		file := t.newNode(false)
		file.content = &inputFile{store: t.store, id: input.Content, bytes: input.Size}
		dir.children[parts[len(parts)-1]] = file
	}
	t.out = t.newDir(true)
	t.root.children["out"] = t.out
}

func (t *tree) newNode(writable bool) *node {
	t.inos++
	return &node{ino: t.inos, writable: writable, linked: true, mtime: t.clock.now()}
}

func (t *tree) newDir(writable bool) *node {
	n := t.newNode(writable)
	n.children = make(map[string]*node)
	return n
}

// place is where a path leads: the entry name in dir, and what is there now.
type place struct {
	dir      *node
	name     string
	path     string // slash-separated from the root, clean
	node     *node  // nil: nothing there
	mustDir  bool   // the path ended in a slash
	topLevel bool   // the root itself, /in or /out: cannot be changed
}

// walk looks path up. Only the last part may be missing.
func (t *tree) walk(path string) (place, sys.Errno) {
	if len(path) > tasks.MaxNameBytes+len("/out/") {
		return place{}, sys.ENAMETOOLONG
	}
	p := place{node: t.root, topLevel: true, mustDir: strings.HasSuffix(path, "/")}
	parts := make([]string, 0, 8)
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." {
			continue
		}
		if part == ".." {
			return place{}, sys.EPERM
		}
		if p.node == nil {
			return place{}, sys.ENOENT
		}
		if !p.node.isDir() {
			return place{}, sys.ENOTDIR
		}
		parts = append(parts, part)
		p.dir, p.name = p.node, part
		p.node = p.dir.children[part]
		p.topLevel = len(parts) == 1
	}
	p.path = strings.Join(parts, "/")
	if p.mustDir && p.node != nil && !p.node.isDir() {
		return place{}, sys.ENOTDIR
	}
	return p, 0
}

// find looks up what must exist.
func (t *tree) find(path string) (place, sys.Errno) {
	p, errno := t.walk(path)
	if errno == 0 && p.node == nil {
		errno = sys.ENOENT
	}
	return p, errno
}

// below is the path of p below /out.
func (p place) below() string { return strings.TrimPrefix(p.path, "out/") }

// changeable reports whether the entry of p may be removed.
func (p place) changeable() sys.Errno {
	switch {
	case p.topLevel:
		return sys.EPERM
	case !p.dir.writable:
		return sys.EROFS
	}
	return 0
}

// linkable reports whether the entry of p may be made.
func (p place) linkable() sys.Errno {
	if errno := p.changeable(); errno != 0 {
		return errno
	}
	if !tasks.ValidName(p.below()) {
		return sys.EINVAL
	}
	return 0
}

// link gives n the place p, within the bounds of the tree.
func (t *tree) link(p place, n *node) sys.Errno {
	if errno := p.linkable(); errno != 0 {
		return errno
	}
	t.nodes++
	t.names += len(p.below()) + nameCost
	if t.nodes > t.store.limits.OutputFiles {
		stop(tasks.LimitOutput, "made more than %d files below /out", t.store.limits.OutputFiles)
	}
	if t.names > tasks.MaxOutputNames {
		stop(tasks.LimitOutput, "file names below /out are longer than %d bytes together", tasks.MaxOutputNames)
	}
	n.linked = true
	p.dir.children[p.name] = n
	p.dir.mtime = t.clock.now()
	return 0
}

// unlink takes the entry of p away. Its content goes with the last handle.
func (t *tree) unlink(p place) {
	delete(p.dir.children, p.name)
	p.dir.mtime = t.clock.now()
	p.node.linked = false
	t.nodes--
	t.names -= len(p.below()) + nameCost
	p.node.dropUnused()
}

// dropUnused frees the content of a node without name and handle.
func (n *node) dropUnused() {
	if !n.linked && n.handles == 0 && n.content != nil {
		n.content.drop()
	}
}

func (n *node) stat() wsys.Stat_t {
	st := wsys.Stat_t{Ino: n.ino, Nlink: 1, Atim: n.mtime, Mtim: n.mtime, Ctim: n.mtime}
	switch {
	case n.isDir() && n.writable:
		st.Mode = fs.ModeDir | 0o755
	case n.isDir():
		st.Mode = fs.ModeDir | 0o555
	case n.writable:
		st.Mode, st.Size = 0o644, n.content.size()
	default:
		st.Mode, st.Size = 0o444, n.content.size()
	}
	return st
}

// sorted returns the names in n, sorted.
func (n *node) sorted() []string { return slices.Sorted(maps.Keys(n.children)) }

// files lists every file below /out, sorted by name.
func (t *tree) files() []File {
	var files []File
	var walk func(prefix string, dir *node)
	walk = func(prefix string, dir *node) {
		for name, child := range dir.children {
			if child.isDir() {
				walk(prefix+name+"/", child)
			} else {
				files = append(files, child.content.(*outputFile).file(prefix+name))
			}
		}
	}
	walk("", t.out)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return files
}

// discard removes the content of every file below /out.
func (t *tree) discard() {
	var walk func(dir *node)
	walk = func(dir *node) {
		for _, child := range dir.children {
			if child.isDir() {
				walk(child)
			} else {
				child.linked = false
				child.dropUnused()
			}
		}
	}
	walk(t.out)
}
