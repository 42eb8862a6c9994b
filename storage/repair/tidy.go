package repair

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"gotong/grid"
)

// tidy frees what may be freed and forgets who is no member.
func (r *Repairer) tidy(ctx context.Context, scene Scene) error {
	r.memory.keep(func(peer grid.PeerID) bool { _, member := scene.Peers[peer]; return member })
	freed, err := r.cfg().Store.EmptyTrash(ctx, false)
	errs := []error{err}
	left, err := r.cfg().Store.FreeGivenUp(ctx)
	freed += left
	errs = append(errs, err)
	removed, err := r.cfg().Store.NoteRemoved(removedOwners(r.cfg().Grid.Removed(), scene))
	errs = append(errs, err)
	for owner, since := range removed {
		if since < r.cfg().Retention {
			continue
		}
		dropped, err := r.cfg().Store.DropOwner(ctx, owner)
		if n := dropped.Total(); n > 0 {
			r.cfg().Logger.Info("what was kept for an owner who was removed is freed", "owner", owner, "bytes", n)
			freed += n
		}
		errs = append(errs, err)
	}
	r.mu.Lock()
	r.total.Freed += freed
	r.mu.Unlock()
	return errors.Join(errs...)
}

// removedOwners returns the owners of whom a peer was removed and none is a
// member.
func removedOwners(removed []grid.Peer, scene Scene) []grid.OwnerID {
	owners := map[grid.OwnerID]bool{}
	for _, p := range removed {
		if p.Owner != (grid.OwnerID{}) {
			owners[p.Owner] = true
		}
	}
	for _, p := range scene.Peers {
		delete(owners, p.Owner)
	}
	return slices.SortedFunc(maps.Keys(owners), func(a, b grid.OwnerID) int { return cmp.Compare(a.String(), b.String()) })
}
