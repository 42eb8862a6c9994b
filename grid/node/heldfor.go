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
		PledgeBytes: uint64(p.cfg.Give), HeldBytes: uint64(max(stats.Bytes, 0)), TrashBytes: uint64(max(stats.TrashBytes, 0)),
		Slots: uint32(p.cfg.Slots), SlotsBusy: uint32(max(p.cfg.Slots-p.work.slotsFree(), 0)),
	}
	up, down := p.cfg.Network.At(time.Now())
	g.UpLimit, g.DownLimit = uint64(up), uint64(down)
	for owner, held := range stats.Owners {
		g.HeldFor = append(g.HeldFor, p.heldFor(owner, held))
	}
	slices.SortFunc(g.HeldFor, func(a, b *controlv1.HeldFor) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Owner, b.Owner))
	})
	return g
}

func (p *Peer) heldFor(owner grid.OwnerID, held shardstore.Holding) *controlv1.HeldFor {
	out := &controlv1.HeldFor{
		Owner: owner.String(), Names: p.namesOfOwner(owner), Bytes: uint64(max(held.Total(), 0)), TrashBytes: uint64(max(held.TrashBytes, 0)),
		Shards: uint64(held.Shards + held.TrashShards),
	}
	if limit := p.fair.limit(owner); limit < math.MaxInt64 {
		out.Limited, out.LimitBytes = true, uint64(limit)
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

// DropOwner gives up all that this peer keeps for an owner: an id, the start of
// one, or what one of the owner's peers is called.
func (p *Peer) DropOwner(ctx context.Context, r *controlv1.DropOwnerRequest) (*controlv1.HeldFor, error) {
	owner, err := p.findOwner(r.Owner)
	if err != nil {
		return nil, err
	}
	held, ok := p.store.Stats().Owners[owner]
	if !ok {
		return nil, &Failure{Kind: controlv1.Kind_KIND_FAILED, What: fmt.Sprintf("nothing is kept here for %s", r.Owner), Meaning: "nothing was changed", Next: "gotong status"}
	}
	dropped := p.heldFor(owner, held)
	if r.DryRun {
		return dropped, nil
	}
	gone, err := p.store.DropOwner(ctx, owner)
	if err != nil {
		return nil, &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "not all of it could be removed", Meaning: "what was removed is gone, the rest is kept",
			Next: "gotong status, then gotong drop " + r.Owner + " again", Err: err}
	}
	names := dropped.Names
	dropped = p.heldFor(owner, gone)
	dropped.Names = names
	return dropped, nil
}

// findOwner reads what a user calls an owner.
func (p *Peer) findOwner(text string) (grid.OwnerID, error) {
	var found []grid.OwnerID
	for owner := range p.store.Stats().Owners {
		if id := owner.String(); id == text || len(text) >= minIDPrefix && strings.HasPrefix(id, text) {
			found = append(found, owner)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	peer, err := p.findPeer(text)
	if err != nil {
		return grid.OwnerID{}, usage(fmt.Sprintf("%q means no owner for whom this peer keeps something", text), "gotong status")
	}
	return peer.Owner, nil
}
