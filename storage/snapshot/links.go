package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	vaultv1 "gotong/proto/vault/v1"
)

// linkKey names the file that several names are.
type linkKey struct {
	device uint32
	inode  uint64
}

func keyOf(l *vaultv1.HardLink) linkKey { return linkKey{l.Device, l.Inode} }

// linkGroup is a file with several names. The first name in the order of the
// snapshot is written; the others are linked to it once it is there. Groups
// whose names were all met are forgotten, so memory is that of the files with
// names still to come.
type linkGroup struct {
	path string // of the first name, below the target
	left uint64 // names to come; the walk's

	mu      sync.Mutex
	over    bool
	err     error
	waiting []linkName
}

type linkName struct {
	dir   *destDir
	node  *vaultv1.Node
	there bool // something has the name
}

// link restores a further name of a file. It reports false when the file has to
// be written, which makes its group when it has more names. there tells whether
// something has the name.
func (r *restore) link(dir *destDir, node *vaultv1.Node, there bool) bool {
	if node.Link == nil {
		return false
	}
	key := keyOf(node.Link)
	group := r.links[key]
	if group == nil {
		r.links[key] = &linkGroup{path: dir.join(node), left: node.Link.Names - 1}
		return false
	}
	if group.left--; group.left == 0 {
		delete(r.links, key)
	}
	dir.pending.Add(1)
	group.add(r, linkName{dir, node, there})
	return true
}

// add links a name now, or when the file is there.
func (g *linkGroup) add(r *restore, name linkName) {
	g.mu.Lock()
	if !g.over {
		g.waiting = append(g.waiting, name)
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	g.make(r, name)
}

// finish tells the group how its file ended.
func (g *linkGroup) finish(r *restore, err error) {
	g.mu.Lock()
	g.over, g.err = true, err
	waiting := g.waiting
	g.waiting = nil
	g.mu.Unlock()
	for _, name := range waiting {
		g.make(r, name)
	}
}

func (g *linkGroup) make(r *restore, name linkName) {
	defer name.dir.done()
	path := name.dir.join(name.node)
	err := g.err
	action := ActionNew
	if name.there {
		action = ActionReplaced
	}
	switch {
	case err != nil:
	case name.there && isLinked(r, g.path, name.dir, string(name.node.Name)):
		action = ActionUnchanged
	case !r.options.DryRun:
		err = replaceLink(r, g.path, name.dir, string(name.node.Name))
	}
	if err != nil {
		r.leaveOut(path, fmt.Errorf("hard link to %s: %w", g.path, err))
		return
	}
	r.files.Add(1)
	r.bytes.Add(name.node.Size)
	r.did(action, path)
}

// isLinked reports whether a name is the file already.
func isLinked(r *restore, file string, dir *destDir, name string) bool {
	a, err := r.top.Lstat(file)
	if err != nil {
		return false
	}
	b, err := dir.root.Lstat(name)
	return err == nil && os.SameFile(a, b)
}

// replaceLink links a name to a file that was restored before. What is there
// already is replaced, unless it is a directory.
func replaceLink(r *restore, file string, dir *destDir, name string) error {
	path := dir.join(&vaultv1.Node{Name: []byte(name)})
	err := r.top.Link(file, path)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	temporary := dir.temporary()
	if err := r.top.Link(file, dir.join(&vaultv1.Node{Name: []byte(temporary)})); err != nil {
		return err
	}
	// When both names are the same file already, a rename does nothing and
	// leaves the temporary one.
	err = dir.root.Rename(temporary, name)
	if rest := dir.root.Remove(temporary); rest != nil && !errors.Is(rest, fs.ErrNotExist) {
		err = errors.Join(err, rest)
	}
	return err
}
