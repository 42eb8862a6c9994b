package node

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"gotong/grid"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage/shardstore"
)

// giving says what this peer gives, and to whom.
func (p *Peer) giving() *controlv1.Giving {
	stats := p.store.Stats()
	g := &controlv1.Giving{
		PledgeBytes: uint64(p.cfg().Give), HeldBytes: uint64(max(stats.Bytes, 0)), TrashBytes: uint64(max(stats.TrashBytes, 0)),
		Slots: uint32(p.cfg().Slots), SlotsBusy: uint32(p.work.worker.Status().Busy),
	}
	up, down := p.cfg().Network.At(time.Now())
	g.UpLimit, g.DownLimit = uint64(up), uint64(down)
	kept := p.keeping.keeper.Kept()
	owners := map[grid.OwnerID]bool{}
	for owner := range stats.Owners {
		owners[owner] = true
	}
	for owner := range p.store.GivenUp() {
		owners[owner] = true
	}
	for owner := range kept {
		owners[owner] = true
	}
	for owner := range owners {
		held := p.heldFor(owner, stats.Owners[owner])
		held.KeptJobs, held.KeptBytes = uint64(kept[owner].Jobs), uint64(kept[owner].Bytes)
		g.HeldFor = append(g.HeldFor, held)
	}
	slices.SortFunc(g.HeldFor, func(a, b *controlv1.HeldFor) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Owner, b.Owner))
	})
	return g
}

func (p *Peer) heldFor(owner grid.OwnerID, held shardstore.Holding) *controlv1.HeldFor {
	out := &controlv1.HeldFor{
		Owner: owner.String(), Names: p.namesOfOwner(owner), Bytes: uint64(max(held.Total(), 0)), TrashBytes: uint64(max(held.TrashBytes, 0)),
		Shards: uint64(held.Shards + held.TrashShards), JobBytes: uint64(max(held.JobBytes, 0)),
	}
	if limit := p.fair.limit(owner); limit < math.MaxInt64 {
		out.Limited, out.LimitBytes = true, uint64(limit)
	}
	if since, given := p.store.GivenUp()[owner]; given {
		out.GivenUpUnix, out.Limited, out.LimitBytes = since.Unix(), true, 0
	}
	return out
}

// namesOfOwner returns what the peers of an owner call themselves, at most
// maxNamed, sorted.
func (p *Peer) namesOfOwner(owner grid.OwnerID) []string {
	var names []string
	for _, peer := range p.peersOf(owner) {
		names = append(names, peer.DisplayName())
	}
	slices.Sort(names)
	return names[:min(len(names), maxNamed)]
}

// DropOwner gives up the shards that this peer keeps for an owner and takes no
// more of them, or with undo takes them again. It returns what was removed. The
// owner is an id, the start of one, or what one of the owner's peers is called.
func (p *Peer) DropOwner(ctx context.Context, r *controlv1.DropOwnerRequest) (*controlv1.HeldFor, error) {
	owner, err := p.findOwner(r.Owner)
	switch {
	case err != nil:
		return nil, err
	case r.Undo:
		return p.takeAgain(owner, r)
	case owner == p.owner():
		return nil, usage(fmt.Sprintf("%s is the owner of this peer too: what is kept for them are backups of their other devices", r.Owner),
			"on the device that made them: gotong forget, then gotong prune")
	}
	would := p.store.Stats().Owners[owner]
	would.HeadBytes, would.DeletionBytes = 0, 0 // these stay
	dropped := p.heldFor(owner, would)
	if r.DryRun {
		return dropped, nil
	}
	gone, err := p.store.GiveUp(ctx, owner)
	if err != nil {
		return nil, &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "not all of it could be removed", Meaning: "what was removed is gone, the rest is kept",
			Next: "gotong status, then gotong drop " + r.Owner + " again", Err: err}
	}
	names := dropped.Names
	dropped = p.heldFor(owner, gone)
	dropped.Names = names
	p.logger.Info("what was kept for an owner is given up", "owner", owner, "bytes", dropped.Bytes)
	return dropped, nil
}

func (p *Peer) takeAgain(owner grid.OwnerID, r *controlv1.DropOwnerRequest) (*controlv1.HeldFor, error) {
	if p.store.Takes(owner) {
		return nil, &Failure{Kind: controlv1.Kind_KIND_FAILED, What: r.Owner + " was not dropped here", Meaning: "nothing was changed", Next: "gotong status"}
	}
	if !r.DryRun {
		if _, err := p.store.TakeAgain(owner); err != nil {
			return nil, &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "it could not be noted", Meaning: "their shards are still refused",
				Next: "gotong status", Err: err}
		}
	}
	return p.heldFor(owner, p.store.Stats().Owners[owner]), nil
}

// findOwner reads what a user calls an owner.
func (p *Peer) findOwner(text string) (grid.OwnerID, error) {
	known := map[grid.OwnerID]bool{}
	for owner := range p.store.Stats().Owners {
		known[owner] = true
	}
	for owner := range p.store.GivenUp() {
		known[owner] = true
	}
	var found []grid.OwnerID
	for owner := range known {
		if id := owner.String(); id == text || len(text) >= minIDPrefix && strings.HasPrefix(id, text) {
			found = append(found, owner)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	peer, err := p.findPeer(text)
	if err != nil {
		return grid.OwnerID{}, usage(fmt.Sprintf("%q means no owner for whom this peer keeps something, and no peer", text), "gotong status; gotong peers")
	}
	return peer.Owner, nil
}
