package snapshot

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"gotong/storage/vault"
)

// rootTree is the paths to back up, as the tree that they make from "/" down.
type rootTree struct {
	name     string
	path     string // on this machine
	backUp   bool   // all below is wanted; there are no children then
	children []*rootTree
}

// newRootTree sorts paths into a tree. A path below another one adds nothing.
func newRootTree(paths []string) (*rootTree, error) {
	top := &rootTree{path: string(filepath.Separator)}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%w: no path given", ErrNothing)
	}
	for _, path := range paths {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("path %q is not absolute", path)
		}
		top.add(filepath.Clean(path))
	}
	return top, nil
}

func (t *rootTree) add(path string) {
	at := filepath.VolumeName(path)
	rest := strings.Trim(path[len(at):], string(filepath.Separator))
	node := t
	if runtime.GOOS == "windows" && len(t.children) == 0 {
		t.path = at + t.path
	}
	for name := range strings.SplitSeq(rest, string(filepath.Separator)) {
		if node.backUp {
			return
		}
		if name == "" {
			break // the path is "/"
		}
		at += string(filepath.Separator) + name
		node = node.child(name, at)
	}
	node.backUp, node.children = true, nil
}

func (t *rootTree) child(name, path string) *rootTree {
	i, found := slices.BinarySearchFunc(t.children, name, func(c *rootTree, name string) int { return strings.Compare(c.name, name) })
	if !found {
		t.children = slices.Insert(t.children, i, &rootTree{name: name, path: path})
	}
	return t.children[i]
}

// addSlashed adds a path of the snapshot that is nowhere on this machine.
func (t *rootTree) addSlashed(path string) {
	for name := range strings.SplitSeq(path[1:], "/") {
		t = t.child(name, "")
	}
	t.backUp = true
}

// count returns how many paths there are to back up.
func (t *rootTree) count() (n int) {
	if t.backUp {
		return 1
	}
	for _, child := range t.children {
		n += child.count()
	}
	return n
}

// summary returns the paths as the snapshot tells them: as they were given, or
// the directory in which all are when there are too many.
func (t *rootTree) summary(paths []string) []string {
	if len(paths) <= vault.MaxSnapshotPaths {
		return paths
	}
	for !t.backUp && len(t.children) == 1 {
		t = t.children[0]
	}
	return []string{t.path}
}
