package node

import (
	"cmp"
	"context"
	"slices"

	"gotong/grid"
	"gotong/grid/invite"
	controlv1 "gotong/proto/control/v1"
)

// Self says who this peer is, and names members through whom its owner can come
// back.
func (s *service) Self(context.Context, *controlv1.SelfRequest) (*controlv1.SelfResponse, error) {
	p, view := s.peer, s.peer.roster.View()
	self, ok := view.Member(p.ID())
	if !ok {
		return nil, grid.ErrRemoved
	}
	out := &controlv1.SelfResponse{
		Peer: p.ID().String(), Owner: self.Owner.String(), Grid: view.Grid().String(), GridName: view.Name(),
		Vault: p.vault.ID().String(), WriteOnly: !p.vault.CanRead(),
	}
	for _, peer := range p.sheetMembers(self.Owner) {
		addresses := peer.Record.Addresses[:min(len(peer.Record.Addresses), invite.MaxSheetAddresses)]
		out.Members = append(out.Members, &controlv1.SheetMember{Peer: peer.ID.String(), Name: validText(peer.DisplayName()), Site: validText(peer.Site()), Addresses: addresses})
	}
	return out, nil
}

// sheetMembers returns the members for a recovery sheet: peers of other owners
// that can be dialled and are here now first, one of each site before a second
// one of any; the owner's own peers last.
func (p *Peer) sheetMembers(owner grid.OwnerID) []grid.Peer {
	var usable []grid.Peer
	for _, peer := range p.membership.Peers()[1:] { // the first is this one
		if len(peer.Record.Addresses) > 0 {
			usable = append(usable, peer)
		}
	}
	rank := func(peer grid.Peer) (r int) {
		if peer.Owner == owner {
			r += 4
		}
		if peer.State != grid.StateAlive {
			r += 2
		}
		if p.net.Linked(peer.ID) {
			r++
		}
		return r
	}
	slices.SortStableFunc(usable, func(a, b grid.Peer) int { return cmp.Compare(rank(a), rank(b)) })
	var first, second []grid.Peer
	sites := map[string]bool{}
	for _, peer := range usable {
		if sites[peer.Site()] {
			second = append(second, peer)
			continue
		}
		sites[peer.Site()] = true
		first = append(first, peer)
	}
	all := append(first, second...)
	return all[:min(len(all), invite.MaxSheetMembers)]
}
