package snapshot

import (
	"context"
	"fmt"
	"path"
	"time"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/vault"
)

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

// List calls fn with what is at a path of a snapshot: the entries of a
// directory, with all below when recursive, or the one entry. Names come by
// rising bytes, a directory before what is in it.
func List(ctx context.Context, v *vault.Vault, name, at string, recursive bool, fn func(Entry) error) error {
	snapshot, err := v.Find(ctx, name)
	if err != nil {
		return err
	}
	reader, err := v.NewReader(ctx)
	if err != nil {
		return err
	}
	defer reader.Close()
	node, err := find(reader, snapshot.Root, at)
	if err != nil {
		return err
	}
	full := path.Clean("/" + at)
	if node.Type != vaultv1.Node_DIRECTORY {
		return fn(entryOf(full, node))
	}
	return listDir(reader, node, full, recursive, 0, fn)
}

func listDir(reader *vault.Reader, dir *vaultv1.Node, at string, recursive bool, depth int, fn func(Entry) error) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: more than %d directories inside each other", at, maxDepth)
	}
	listing, err := vault.RefOf(dir.Content)
	if err != nil {
		return err
	}
	return forEachNode(reader, listing, func(n *vaultv1.Node) error {
		below := path.Join(at, string(n.Name))
		if err := fn(entryOf(below, n)); err != nil {
			return err
		}
		if recursive && n.Type == vaultv1.Node_DIRECTORY {
			return listDir(reader, n, below, true, depth+1, fn)
		}
		return nil
	})
}

func entryOf(at string, n *vaultv1.Node) Entry {
	return Entry{Path: at, Type: typeNames[n.Type], Mode: n.Mode, UID: n.Uid, GID: n.Gid,
		Size: n.Size, ModTime: modTime(n), Target: string(n.Target)}
}
