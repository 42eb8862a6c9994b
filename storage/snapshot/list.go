package snapshot

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/vault"
)

// ErrNoPath says that the snapshot has no such path.
var ErrNoPath = errors.New("not in the snapshot")

// Entry is one line of a listing.
type Entry struct {
	Path     string // from "/", any bytes but NUL
	Type     string // file, dir, symlink, fifo, chardev, blockdev
	Mode     uint32 // permission, setuid, setgid and sticky bits
	UID, GID uint32
	Size     uint64 // of a file
	ModTime  time.Time
	Target   string // of a symlink
}

var typeNames = map[vaultv1.Node_Type]string{
	vaultv1.Node_FILE: "file", vaultv1.Node_DIRECTORY: "dir", vaultv1.Node_SYMLINK: "symlink",
	vaultv1.Node_FIFO: "fifo", vaultv1.Node_CHARACTER_DEVICE: "chardev", vaultv1.Node_BLOCK_DEVICE: "blockdev",
}

func entryOf(at string, n *vaultv1.Node) Entry {
	return Entry{Path: at, Type: typeNames[n.Type], Mode: n.Mode, UID: n.Uid, GID: n.Gid,
		Size: n.Size, ModTime: modTime(n), Target: string(n.Target)}
}

// SplitName splits SNAPSHOT[:PATH]; at is "" when no path is given.
func SplitName(text string) (name, at string) {
	name, at, _ = strings.Cut(text, ":")
	return name, at
}

// tree is an open snapshot.
type tree struct {
	snapshot vault.Snapshot
	reader   *vault.Reader
}

// openTree opens the snapshot that name means. The caller closes the reader.
func openTree(ctx context.Context, v *vault.Vault, name string) (*tree, error) {
	snapshot, err := v.Find(ctx, name)
	if err != nil {
		return nil, err
	}
	reader, err := v.NewReader(ctx)
	if err != nil {
		return nil, err
	}
	return &tree{snapshot, reader}, nil
}

// find returns the node at a path and the path, clean.
func (t *tree) find(at string) (*vaultv1.Node, string, error) {
	node, err := Lookup(t.reader, t.snapshot.Root, at)
	return node, path.Clean("/" + filepath.ToSlash(at)), err
}

// Lookup returns the node at a path of the tree whose "/" has the listing root;
// the node of "/" has no name. The error is ErrNoPath, or that of reading.
func Lookup(reader *vault.Reader, root vault.Ref, at string) (*vaultv1.Node, error) {
	node := &vaultv1.Node{Type: vaultv1.Node_DIRECTORY, Content: root.Proto()}
	for name := range strings.SplitSeq(path.Clean("/" + filepath.ToSlash(at))[1:], "/") {
		if name == "" {
			break
		}
		child, err := findEntry(reader, node, name)
		if err != nil {
			return nil, err
		}
		if child == nil {
			return nil, fmt.Errorf("%w: %q", ErrNoPath, at)
		}
		node = child
	}
	return node, nil
}

// errFound ends a search.
var errFound = errors.New("found")

func findEntry(reader *vault.Reader, dir *vaultv1.Node, name string) (found *vaultv1.Node, err error) {
	if dir.Type != vaultv1.Node_DIRECTORY {
		return nil, nil
	}
	err = Entries(reader, dir, func(n *vaultv1.Node) error {
		if string(n.Name) == name {
			found = n
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return found, err
}

// Entries calls fn with each entry of a directory, by rising bytes of the names.
// The node is fn's to keep. An error of fn ends it and is returned.
func Entries(reader *vault.Reader, dir *vaultv1.Node, fn func(*vaultv1.Node) error) error {
	listing, err := vault.RefOf(dir.Content)
	if err != nil {
		return err
	}
	return forEachNode(reader, listing, fn)
}

// errNotBelow, from the function that walkNodes calls with a directory, passes
// over what is in it.
var errNotBelow = errors.New("not below")

// walkNodes calls fn with all that is below a directory, a directory before
// what is in it.
func walkNodes(reader *vault.Reader, dir *vaultv1.Node, at string, fn func(at string, n *vaultv1.Node) error) error {
	return walkBelow(reader, dir, at, 0, fn)
}

func walkBelow(reader *vault.Reader, dir *vaultv1.Node, at string, depth int, fn func(at string, n *vaultv1.Node) error) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: more than %d directories inside each other", at, maxDepth)
	}
	return Entries(reader, dir, func(n *vaultv1.Node) error {
		below := path.Join(at, string(n.Name))
		err := fn(below, n)
		if errors.Is(err, errNotBelow) {
			return nil
		}
		if err != nil || n.Type != vaultv1.Node_DIRECTORY {
			return err
		}
		return walkBelow(reader, n, below, depth+1, fn)
	})
}

// List calls fn with what is at a path of a snapshot: the entries of a
// directory, with all below when recursive, or the one entry. Names come by
// rising bytes, a directory before what is in it.
func List(ctx context.Context, v *vault.Vault, name, at string, recursive bool, fn func(Entry) error) error {
	t, err := openTree(ctx, v, name)
	if err != nil {
		return err
	}
	defer t.reader.Close()
	node, full, err := t.find(at)
	if err != nil {
		return err
	}
	each := func(at string, n *vaultv1.Node) error { return fn(entryOf(at, n)) }
	switch {
	case node.Type != vaultv1.Node_DIRECTORY:
		return each(full, node)
	case recursive:
		return walkNodes(t.reader, node, full, each)
	}
	return Entries(t.reader, node, func(n *vaultv1.Node) error { return each(path.Join(full, string(n.Name)), n) })
}
