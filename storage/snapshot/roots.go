package snapshot

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
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
