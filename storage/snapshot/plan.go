package snapshot

import (
	"errors"
	"fmt"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/vault"
)

// plan walks from the node that was asked for: the entries of a directory, or
// the one entry, go into the target.
func (r *restore) plan(node *vaultv1.Node, made bool) {
	top := newTopDir(r, r.top)
	defer top.done()
	if node.Type != vaultv1.Node_DIRECTORY {
		r.entry(top, node, 0)
		return
	}
	if len(node.Name) > 0 && made {
		top.node = node // the target was made for it, so it gets its mode and times
	}
	r.directory(top, node, 0)
}

// directory plans all entries of a listing.
func (r *restore) directory(dir *destDir, node *vaultv1.Node, depth int) {
	listing, err := vault.RefOf(node.Content)
	if err == nil && depth > maxDepth {
		err = fmt.Errorf("more than %d directories inside each other", maxDepth)
	}
	if err == nil {
		err = forEachNode(r.reader, listing, func(n *vaultv1.Node) error {
			if r.ctx.Err() != nil {
				return r.ctx.Err()
			}
			r.entry(dir, n, depth)
			return nil
		})
	}
	if err != nil {
		r.skip(dir.path, fmt.Errorf("listing: %w", err))
	}
}

func (r *restore) entry(dir *destDir, node *vaultv1.Node, depth int) {
	if err := checkLocalName(string(node.Name)); err != nil {
		r.skip(dir.path, err)
		return
	}
	var err error
	switch node.Type {
	case vaultv1.Node_DIRECTORY:
		var child *destDir
		if child, err = dir.child(node); err == nil {
			r.directory(child, node, depth+1)
			child.done()
		}
	case vaultv1.Node_FILE:
		if !r.link(dir, node) {
			r.file(dir, node)
		}
	case vaultv1.Node_SYMLINK, vaultv1.Node_FIFO, vaultv1.Node_CHARACTER_DEVICE, vaultv1.Node_BLOCK_DEVICE:
		err = dir.special(node)
	default:
		err = fmt.Errorf("entry of unknown type %d", node.Type)
	}
	if err != nil {
		r.skip(dir.join(node), err)
	}
}

// piece is one blob of a file on its way to the disk. A file without content is
// one piece without a lease.
type piece struct {
	file   *destFile
	lease  *vault.Lease
	size   uint64
	offset uint64 // in the content
}

// file plans the pieces of a file.
func (r *restore) file(dir *destDir, node *vaultv1.Node) {
	f := newDestFile(r, dir, node)
	defer f.done()
	ref, err := vault.RefOf(node.Content)
	if err == nil && ref.Size == 0 {
		err = r.send(piece{file: f})
	} else if err == nil {
		offset := uint64(0)
		err = r.reader.Leaves(ref, func(leaf vault.Ref) error {
			if f.failed() {
				return errGivenUp
			}
			lease, err := r.reader.Lease(leaf.Hash)
			if err != nil {
				return err
			}
			p := piece{f, lease, leaf.Size, offset}
			offset += leaf.Size
			return r.send(p)
		})
	}
	if err != nil {
		f.fail(err)
	}
}

// errGivenUp stops the planning of a file that failed while it was written.
var errGivenUp = errors.New("given up")

// send hands a piece to the writers.
func (r *restore) send(p piece) error {
	p.file.pending.Add(1)
	select {
	case r.pieces <- p:
		return nil
	case <-r.ctx.Done():
		p.drop()
		return r.ctx.Err()
	}
}

// drop gives up a piece that was not written.
func (p piece) drop() {
	if p.lease != nil {
		p.lease.Release()
	}
	p.file.done()
}

// write writes pieces until the plan ends.
func (r *restore) write() {
	var plain, buf []byte
	for p := range r.pieces {
		if r.ctx.Err() != nil {
			p.file.fail(r.ctx.Err())
		}
		if !p.file.failed() {
			var err error
			if plain, buf, err = r.writePiece(p, plain, buf); err != nil {
				p.file.fail(err)
			}
		}
		p.drop()
	}
}

func (r *restore) writePiece(p piece, plain, buf []byte) ([]byte, []byte, error) {
	out, err := p.file.open()
	if err != nil || p.lease == nil {
		return plain, buf, err
	}
	got, buf, err := p.lease.Read(plain[:0], buf)
	if err != nil {
		return plain, buf, err
	}
	if uint64(len(got)) != p.size {
		return got, buf, fmt.Errorf("%w: blob of %d bytes, not %d", storage.ErrCorrupt, len(got), p.size)
	}
	if err := p.file.writeAt(out, got, p.offset); err != nil {
		return got, buf, err
	}
	r.written.Add(uint64(len(got)))
	return got, buf, nil
}
