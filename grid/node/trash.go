package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"gotong/grid"
	controlv1 "gotong/proto/control/v1"
)

// Trash says what owners deleted and this peer still keeps, and for how long.
func (p *Peer) Trash() *controlv1.TrashResponse { return p.trashOf(nil) }

// trashOf is the trash of all owners, or of one.
func (p *Peer) trashOf(only *grid.OwnerID) *controlv1.TrashResponse {
	out := &controlv1.TrashResponse{}
	for owner, trash := range p.store.Trash() {
		if only != nil && *only != owner {
			continue
		}
		out.Bytes += uint64(trash.Bytes)
		out.Owners = append(out.Owners, &controlv1.TrashOf{
			Owner: owner.String(), Names: p.namesOfOwner(owner), Shards: uint64(trash.Shards), Bytes: uint64(trash.Bytes),
			FirstSeconds: int64(trash.First / time.Second), LastSeconds: int64(trash.Last / time.Second),
		})
	}
	slices.SortFunc(out.Owners, func(a, b *controlv1.TrashOf) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Owner, b.Owner))
	})
	return out
}

// EmptyTrash frees at once what owners deleted, or one of them, and returns what
// that was.
func (p *Peer) EmptyTrash(ctx context.Context, r *controlv1.EmptyTrashRequest) (*controlv1.TrashResponse, error) {
	var only *grid.OwnerID
	if r.Owner != "" {
		owner, err := p.findOwner(r.Owner)
		if err != nil {
			return nil, err
		}
		only = &owner
	}
	out := p.trashOf(only)
	if r.DryRun {
		return out, nil
	}
	var freed int64
	var err error
	if only != nil {
		freed, err = p.store.EmptyTrashOf(ctx, *only)
	} else {
		freed, err = p.store.EmptyTrash(ctx, true)
	}
	if err != nil {
		return nil, &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "not all of the trash could be removed", Err: err,
			Meaning: fmt.Sprintf("%s are gone, the rest is kept; backups that are not deleted are untouched", Size(freed)), Next: "gotong trash"}
	}
	out.Bytes = uint64(freed)
	return out, nil
}
