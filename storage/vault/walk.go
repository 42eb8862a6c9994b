package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"slices"

	"google.golang.org/protobuf/proto"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
)

// Bounds of what a walk believes of a listing; part of the format.
const (
	maxNodeBytes = 1 << 20
	maxTreeDepth = 8192
)

// walk goes through snapshots and finds all that they refer to. What snapshots
// share is looked at once. In memory it has four bytes for each blob.
type walk struct {
	v   *Vault
	ctx context.Context
	r   *Reader

	live    blobMarks                     // all blobs that were met
	walked  [2][maxRefDepth + 1]blobMarks // objects whose blobs were all met: files, listings
	bytes   map[uint32]uint64             // sealed bytes of what was met, for each segment
	trees   map[uint32]uint64             // of those, lists and listings
	listed  *numberSet                    // what the catalogue says that the snapshot needs
	extra   numberSet                     // segments that were met and are not listed
	missing uint64                        // blobs of files that are in no segment that is known
	blobs   uint64
	users   *users                        // nil: it does not matter which snapshot refers to what
	met     func(h [32]byte, at location) // is called with each blob once
	problem func(where string, err error)
}

const (
	asFile = iota
	asListing
)

func (v *Vault) newWalk(ctx context.Context) (*walk, error) {
	r, err := v.NewReader(ctx)
	if err != nil {
		return nil, err
	}
	r.onlyPresent = true
	return &walk{v: v, ctx: ctx, r: r, bytes: map[uint32]uint64{}, trees: map[uint32]uint64{},
		met: func([32]byte, location) {}, problem: func(string, error) {}}, nil
}

func (w *walk) close() { w.r.Close() }

// snapshot goes through one snapshot. The error says what of its lists and
// listings cannot be read; a file without its content is only counted.
func (w *walk) snapshot(root Ref, listed *numberSet) error {
	w.listed = listed
	return w.object(root, asListing, "/", 0)
}

// object marks all blobs of an object, and what a listing refers to.
func (w *walk) object(ref Ref, as int, where string, depth int) error {
	if ref.Size == 0 {
		return nil
	}
	if err := w.ctx.Err(); err != nil {
		return context.Cause(w.ctx)
	}
	at, err := w.mark(ref.Hash, ref.Depth > 0 || as == asListing)
	if errors.Is(err, ErrMissing) && ref.Depth == 0 && as == asFile {
		w.missing++
		w.problem(where, err)
		return nil
	}
	if err != nil || ref.Depth == 0 && as == asFile {
		return err
	}
	if !w.enter(as, int(ref.Depth), at) {
		return nil
	}
	if as == asListing && depth > maxTreeDepth {
		return fmt.Errorf("%w: %s: more than %d directories inside each other", storage.ErrCorrupt, where, maxTreeDepth)
	}
	if as == asListing {
		return w.listing(ref, where, depth)
	}
	return w.list(ref, where)
}

// enter reports whether what an object refers to is still to be met.
func (w *walk) enter(as, depth int, at location) bool {
	if w.users != nil {
		return w.users.enter(as, depth, at)
	}
	return w.walked[as][depth].add(at.segment, at.offset)
}

// list marks the blobs of a file by its lists.
func (w *walk) list(ref Ref, where string) error {
	children, err := w.children(ref)
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := w.object(child, asFile, where, 0); err != nil {
			return err
		}
	}
	return nil
}

// children returns what a list names.
func (w *walk) children(ref Ref) ([]Ref, error) {
	plain, err := w.r.blob(ref.Hash, 0)
	if err != nil {
		return nil, err
	}
	return parseList(plain, ref.Depth, ref.Size)
}

// listing marks the blobs of a listing, and goes on with its entries.
func (w *walk) listing(ref Ref, where string, depth int) error {
	if err := w.marks(ref); err != nil {
		return err
	}
	var below []*vaultv1.Node
	cut := nodeCutter{fn: func(n *vaultv1.Node) error {
		if n.Type == vaultv1.Node_DIRECTORY {
			below = append(below, &vaultv1.Node{Name: n.Name, Content: n.Content})
			return nil
		}
		content, err := RefOf(n.Content)
		if err != nil {
			return err
		}
		return w.object(content, asFile, path.Join(where, string(n.Name)), depth+1)
	}}
	if err := w.r.WriteObject(&cut, ref); err != nil {
		return err
	}
	if len(cut.buf) > 0 {
		return fmt.Errorf("%w: listing ends inside an entry", storage.ErrCorrupt)
	}
	for _, n := range below {
		content, err := RefOf(n.Content)
		if err != nil {
			return err
		}
		at := path.Join(where, string(n.Name))
		if err := w.object(content, asListing, at, depth+1); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	return nil
}

// marks marks all blobs of a listing, lists included.
func (w *walk) marks(ref Ref) error {
	if _, err := w.mark(ref.Hash, true); err != nil || ref.Depth == 0 {
		return err
	}
	children, err := w.children(ref)
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := w.marks(child); err != nil {
			return err
		}
	}
	return nil
}

// mark notes that a blob is referred to, and returns where it is.
func (w *walk) mark(h [32]byte, tree bool) (location, error) {
	at, err := w.r.locate(h)
	if err != nil {
		return location{}, err
	}
	if w.users != nil {
		w.users.met(at)
		return at, nil
	}
	if w.live.add(at.segment, at.offset) {
		w.blobs++
		w.met(h, at)
		w.bytes[at.segment] += uint64(at.sealed)
		if tree {
			w.trees[at.segment] += uint64(at.sealed)
		}
	}
	if !w.listed.has(at.segment) {
		w.extra.add(at.segment)
	}
	return at, nil
}

// nodeCutter cuts a listing into nodes as it is written. It only looks at what
// refers to other objects; storage/snapshot judges the rest.
type nodeCutter struct {
	fn  func(*vaultv1.Node) error
	buf []byte
}

// Write implements io.Writer.
func (c *nodeCutter) Write(p []byte) (int, error) {
	rest := p
	if len(c.buf) > 0 {
		c.buf = append(c.buf, p...)
		rest = c.buf
	}
	for {
		size, n := binary.Uvarint(rest)
		if n < 0 || n > 0 && size > maxNodeBytes {
			return 0, fmt.Errorf("%w: listing", storage.ErrCorrupt)
		}
		if n == 0 || uint64(len(rest)-n) < size {
			c.buf = append(c.buf[:0], rest...)
			return len(p), nil
		}
		var node vaultv1.Node
		if err := proto.Unmarshal(rest[n:n+int(size)], &node); err != nil {
			return 0, fmt.Errorf("%w: node: %w", storage.ErrCorrupt, err)
		}
		rest = rest[n+int(size):]
		if err := c.fn(&node); err != nil {
			return 0, err
		}
	}
}

// blobMarks is a set of blobs by where they are: four bytes for each.
type blobMarks map[uint32][]uint32

// add reports whether the blob was not in the set.
func (m *blobMarks) add(segment, offset uint32) bool {
	if *m == nil {
		*m = blobMarks{}
	}
	offsets := (*m)[segment]
	at, found := slices.BinarySearch(offsets, offset)
	if found {
		return false
	}
	(*m)[segment] = slices.Insert(offsets, at, offset)
	return true
}

func (m blobMarks) has(segment, offset uint32) bool {
	_, found := slices.BinarySearch(m[segment], offset)
	return found
}
