package snapshot

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"

	"google.golang.org/protobuf/proto"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/vault"
)

// Kinds of a Change.
const (
	Added           = "added"
	Removed         = "removed"
	ContentChanged  = "content"  // of a file, or where a link leads to
	MetadataChanged = "metadata" // mode, owner, time, attributes
	TypeChanged     = "type"     // a file became a directory, or the like
)

// Change is one difference of two trees.
type Change struct {
	Kind     string
	Path     string // below the compared directories, from "/"
	Old, New *Entry // nil when there is none
}

// DiffSummary counts the changes. Bytes are those of files.
type DiffSummary struct {
	Added, Removed, Content, Metadata, Types uint64
	AddedBytes, RemovedBytes                 uint64 // a file with other content is in both
}

// Diff compares a with b, each SNAPSHOT[:PATH], and calls fn with each change in
// the order of the paths. Directories that are the same to the last byte are not
// read. When both paths are no directories, the two entries are compared.
// Errors: ErrNoPath, those of the vault, that of fn.
func Diff(ctx context.Context, v *vault.Vault, a, b string, fn func(Change) error) (DiffSummary, error) {
	d := &differ{ctx: ctx, fn: fn}
	var nodes [2]*vaultv1.Node
	for i, text := range []string{a, b} {
		name, at := SplitName(text)
		t, err := openTree(ctx, v, name)
		if err != nil {
			return DiffSummary{}, err
		}
		defer t.reader.Close()
		if nodes[i], _, err = t.find(at); err != nil {
			return DiffSummary{}, err
		}
		d.readers[i] = t.reader
	}
	for _, n := range nodes {
		n.Name = nil
	}
	if isDir(nodes[0]) && isDir(nodes[1]) {
		err := d.dirs(nodes[0], nodes[1], "/", 0)
		return d.sum, err
	}
	err := d.both(nodes[0], nodes[1], "/", 0)
	return d.sum, err
}

type differ struct {
	ctx     context.Context
	readers [2]*vault.Reader
	fn      func(Change) error
	sum     DiffSummary
}

func isDir(n *vaultv1.Node) bool { return n.Type == vaultv1.Node_DIRECTORY }

// errEnough ends the reading of a listing of which no more is wanted.
var errEnough = errors.New("enough")

// listingOf gives the entries of a directory one by one.
func listingOf(reader *vault.Reader, dir *vaultv1.Node) iter.Seq2[*vaultv1.Node, error] {
	return func(yield func(*vaultv1.Node, error) bool) {
		err := Entries(reader, dir, func(n *vaultv1.Node) error {
			if !yield(n, nil) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(nil, err)
		}
	}
}

// dirs merges two listings.
func (d *differ) dirs(a, b *vaultv1.Node, at string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: more than %d directories inside each other", at, maxDepth)
	}
	if proto.Equal(a.Content, b.Content) {
		return nil
	}
	var nodes [2]*vaultv1.Node
	var next [2]func() error
	for i, dir := range []*vaultv1.Node{a, b} {
		pull, stop := iter.Pull2(listingOf(d.readers[i], dir))
		defer stop()
		next[i] = func() (err error) {
			nodes[i], err, _ = pull()
			return err
		}
		if err := next[i](); err != nil {
			return err
		}
	}
	for nodes[0] != nil || nodes[1] != nil {
		if d.ctx.Err() != nil {
			return context.Cause(d.ctx)
		}
		order := 0
		switch {
		case nodes[0] == nil:
			order = 1
		case nodes[1] == nil:
			order = -1
		default:
			order = slices.Compare(nodes[0].Name, nodes[1].Name)
		}
		var err error
		switch {
		case order < 0:
			err = d.one(0, nodes[0], path.Join(at, string(nodes[0].Name)))
		case order > 0:
			err = d.one(1, nodes[1], path.Join(at, string(nodes[1].Name)))
		default:
			err = d.both(nodes[0], nodes[1], path.Join(at, string(nodes[0].Name)), depth)
		}
		if err == nil && order <= 0 {
			err = next[0]()
		}
		if err == nil && order >= 0 {
			err = next[1]()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// one reports an entry that only one side has, with all below.
func (d *differ) one(side int, n *vaultv1.Node, at string) error {
	report := func(at string, n *vaultv1.Node) error {
		e := entryOf(at, n)
		if side == 0 {
			d.sum.Removed++
			d.sum.RemovedBytes += n.Size
			return d.fn(Change{Kind: Removed, Path: at, Old: &e})
		}
		d.sum.Added++
		d.sum.AddedBytes += n.Size
		return d.fn(Change{Kind: Added, Path: at, New: &e})
	}
	if err := report(at, n); err != nil || !isDir(n) {
		return err
	}
	return walkNodes(d.readers[side], n, at, report)
}

// both reports how an entry that both sides have differs.
func (d *differ) both(a, b *vaultv1.Node, at string, depth int) error {
	old, now := entryOf(at, a), entryOf(at, b)
	kind := ""
	switch {
	case a.Type != b.Type:
		kind = TypeChanged
		d.sum.Types++
	case !isDir(a) && !sameContent(a, b):
		kind = ContentChanged
		d.sum.Content++
		d.sum.RemovedBytes += a.Size
		d.sum.AddedBytes += b.Size
	case !sameMetadata(a, b):
		kind = MetadataChanged
		d.sum.Metadata++
	}
	if kind != "" {
		if err := d.fn(Change{kind, at, &old, &now}); err != nil {
			return err
		}
	}
	switch {
	case isDir(a) && isDir(b):
		return d.dirs(a, b, at, depth+1)
	case isDir(a):
		return walkNodes(d.readers[0], a, at, func(at string, n *vaultv1.Node) error { return d.oneOf(0, n, at) })
	case isDir(b):
		return walkNodes(d.readers[1], b, at, func(at string, n *vaultv1.Node) error { return d.oneOf(1, n, at) })
	}
	return nil
}

// oneOf reports an entry without what is below.
func (d *differ) oneOf(side int, n *vaultv1.Node, at string) error {
	shallow := proto.CloneOf(n)
	if isDir(n) {
		shallow.Content = nil
	}
	return d.one(side, shallow, at)
}

// sameContent compares bytes, holes included, and where links and devices lead.
func sameContent(a, b *vaultv1.Node) bool {
	return a.Size == b.Size && proto.Equal(a.Content, b.Content) && a.Sparse == b.Sparse && string(a.Target) == string(b.Target) &&
		a.DeviceMajor == b.DeviceMajor && a.DeviceMinor == b.DeviceMinor &&
		slices.EqualFunc(a.Extents, b.Extents, func(x, y *vaultv1.Extent) bool { return proto.Equal(x, y) })
}

func sameMetadata(a, b *vaultv1.Node) bool {
	return a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid && a.Mtime == b.Mtime && a.MtimeNanos == b.MtimeNanos && sameXattrs(a.Xattrs, b.Xattrs)
}

func sameXattrs(a, b []*vaultv1.Xattr) bool {
	return slices.EqualFunc(a, b, func(x, y *vaultv1.Xattr) bool {
		return string(x.Name) == string(y.Name) && string(x.Value) == string(y.Value)
	})
}
