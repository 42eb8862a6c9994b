package snapshot

import (
	"context"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/vault"
)

// frame is a directory whose listing is being written.
type frame struct {
	node    *vaultv1.Node // nil for "/"
	listing vault.Listing
	lacks   bool // an entry could not be read
}

// assembler writes listings from the items of the walk.
type assembler struct {
	b     *backup
	w     *vault.Writer
	stack []*frame
}

// assemble takes all items in order and returns the listing of "/".
func (b *backup) assemble() (vault.Ref, error) {
	w, err := b.s.NewWriter()
	if err != nil {
		return vault.Ref{}, err
	}
	a := &assembler{b: b, w: w, stack: []*frame{{}}}
	for it := range b.items {
		if err := a.take(it); err != nil {
			return vault.Ref{}, err
		}
	}
	if b.ctx.Err() != nil {
		return vault.Ref{}, context.Cause(b.ctx)
	}
	return w.Finish(&a.stack[0].listing)
}

func (a *assembler) take(it *item) error {
	switch it.step {
	case stepEnter:
		a.stack = append(a.stack, &frame{node: it.encode})
		return nil
	case stepLeave:
		return a.leave(it.whole)
	case stepFinish:
		a.finish(it.state)
		return nil
	}
	if it.ready != nil {
		select {
		case <-it.ready:
		case <-a.b.ctx.Done():
			return context.Cause(a.b.ctx)
		}
	}
	if it.node == nil {
		a.stack[len(a.stack)-1].lacks = true
		return nil
	}
	if it.known && it.state != nil {
		it.state.add(&stateRecord{it.key, stateOf(it.meta), it.node, it.blobs})
	}
	return a.append(it.node)
}

func (a *assembler) append(node []byte) error {
	return a.w.Append(&a.stack[len(a.stack)-1].listing, node)
}

// leave ends the listing of the innermost directory.
func (a *assembler) leave(whole bool) error {
	done := a.stack[len(a.stack)-1]
	a.stack = a.stack[:len(a.stack)-1]
	ref, err := a.w.Finish(&done.listing)
	if err != nil {
		return err
	}
	done.node.Content = ref.Proto()
	done.node.Whole = whole && !done.lacks
	node, err := encodeNode(nil, done.node)
	if err != nil { // too many attributes
		a.b.skip(string(done.node.Name), err)
		done.node.Xattrs = nil
		if node, err = encodeNode(nil, done.node); err != nil {
			return err
		}
	}
	return a.append(node)
}

// finish keeps the state of a path that was walked to its end.
func (a *assembler) finish(st *state) {
	if err := st.finish(a.b.ctx.Err() == nil); err != nil {
		a.b.log.Warn("the next backup will read all files again", "err", err)
	}
}
