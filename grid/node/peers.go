package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/invite"
	"gotong/grid/membership"
	"gotong/grid/roster"
	controlv1 "gotong/proto/control/v1"
	gridv1 "gotong/proto/grid/v1"
)

const (
	// infoTimeout bounds the question to a peer for its present load.
	infoTimeout = 2 * time.Second
	// infoParallel bounds how many are asked at once.
	infoParallel = 32
	maxInvite    = 365 * 24 * time.Hour
)

// Peers describes the peers, this one first, removed ones last. With live each
// alive peer is asked for its present load, which takes up to infoTimeout.
func (p *Peer) Peers(ctx context.Context, live bool) []*controlv1.PeerInfo {
	var out []*controlv1.PeerInfo
	var alive []*controlv1.PeerInfo
	var ids []grid.PeerID
	for _, peer := range p.membership.Peers() {
		info := describe(peer)
		info.Audit = p.auditOf(peer.ID)
		out = append(out, info)
		if peer.ID == p.ID() {
			info.UsedBytes = p.heldBytes()
		} else if peer.State == grid.StateAlive {
			alive, ids = append(alive, info), append(ids, peer.ID)
		}
	}
	if live {
		p.askLoad(ctx, ids, alive)
	}
	for _, former := range p.membership.Removed() {
		out = append(out, describe(former))
	}
	return out
}

func describe(peer grid.Peer) *controlv1.PeerInfo {
	info := &controlv1.PeerInfo{
		Id: peer.ID.String(), Name: peer.DisplayName(), Owner: peer.Owner.String(), Site: peer.Site(),
		State: string(peer.State), Version: peer.Record.Version, PledgeBytes: peer.Record.PledgeBytes,
		Slots: uint32(max(peer.Record.Slots, 0)), RttMs: float64(peer.RTT) / float64(time.Millisecond),
		Forked: peer.Forked, Admin: peer.Admin,
	}
	if len(peer.Record.Addresses) > 0 {
		info.Address = peer.Record.Addresses[0]
	}
	if !peer.Since.IsZero() {
		info.SinceUnix = peer.Since.Unix()
	}
	return info
}

// askLoad asks peers for their load and writes it into the descriptions; who
// does not answer in time keeps what its record says.
func (p *Peer) askLoad(ctx context.Context, ids []grid.PeerID, infos []*controlv1.PeerInfo) {
	p.askAll(ctx, ids, func(i int, load membership.Info, err error) {
		if err == nil {
			infos[i].UsedBytes, infos[i].PledgeBytes, infos[i].Slots = load.UsedBytes, load.PledgeBytes, uint32(max(load.Slots, 0))
		}
	})
}

// askAll asks peers for their load, infoParallel at once and for infoTimeout in
// all, and hands over each answer, from several goroutines.
func (p *Peer) askAll(ctx context.Context, ids []grid.PeerID, take func(i int, load membership.Info, err error)) {
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	tickets := make(chan struct{}, infoParallel)
	var wait sync.WaitGroup
	for i, id := range ids {
		tickets <- struct{}{}
		wait.Go(func() {
			defer func() { <-tickets }()
			load, err := p.membership.Info(ctx, id)
			take(i, load, err)
		})
	}
	wait.Wait()
}

func (p *Peer) gridClient(id grid.PeerID) (gridv1.GridClient, error) {
	conn, err := p.clients.Conn(id)
	if err != nil {
		return nil, err
	}
	return gridv1.NewGridClient(conn), nil
}

// Invite makes a code that admits one peer. Admin makes its owner an admin; then
// this peer has to be one.
func (p *Peer) Invite(valid time.Duration, admin bool) (invite.Code, error) {
	if valid <= 0 || valid > maxInvite {
		return invite.Code{}, &Failure{Kind: controlv1.Kind_KIND_USAGE, What: fmt.Sprintf("an invite cannot be valid for %s", valid), Next: "gotong invite --valid 24h"}
	}
	view := p.roster.View()
	if admin && !view.IsAdmin(p.ID()) {
		return invite.Code{}, &Failure{Kind: controlv1.Kind_KIND_REFUSED, What: "only an admin can invite an admin", Next: "gotong invite"}
	}
	record, _, _ := p.records.Get(p.ID())
	return p.invites.Create(invite.CreateParams{
		Grid: view.Grid(), GridName: view.Name(), Inviter: p.ID(), Addresses: record.Addresses,
		Valid: valid, GrantAdmin: admin,
	})
}

// Remove takes a peer, or its whole owner, out of the grid for good.
func (p *Peer) Remove(_ context.Context, r *controlv1.RemoveRequest) ([]*controlv1.PeerInfo, error) {
	target, err := p.findPeer(r.Peer)
	if err != nil {
		return nil, err
	}
	if target.ID == p.ID() {
		return nil, &Failure{Kind: controlv1.Kind_KIND_USAGE, What: "that is this peer itself", Meaning: "nothing was changed", Next: "gotong leave"}
	}
	if self, _ := p.roster.View().Member(p.ID()); r.Owner && target.Owner == self.Owner {
		return nil, &Failure{Kind: controlv1.Kind_KIND_REFUSED, What: "an owner is not removed by its own peers", Meaning: "nothing was changed",
			Next: "gotong remove PEER for each device, and gotong leave on this one"}
	}
	params := roster.RemoveParams{Peer: target.ID}
	affected := []grid.Peer{target}
	if r.Owner {
		params = roster.RemoveParams{Owner: target.Owner}
		affected = p.peersOf(target.Owner)
	}
	if r.DryRun {
		err = p.removeFailure(p.roster.CheckRemove(p.ID(), params))
	} else {
		err = p.remove(params)
	}
	if err != nil {
		return nil, err
	}
	var out []*controlv1.PeerInfo
	for _, peer := range affected {
		peer.State = grid.StateRemoved
		out = append(out, describe(peer))
	}
	return out, nil
}

// RemovePeer takes one peer out of the grid for good.
func (p *Peer) RemovePeer(id grid.PeerID) error { return p.remove(roster.RemoveParams{Peer: id}) }

func (p *Peer) remove(params roster.RemoveParams) error {
	if err := p.roster.Remove(p.node, params); err != nil {
		return p.removeFailure(err)
	}
	p.membership.AnnounceRoster()
	return nil
}

// removeFailure says why somebody cannot be removed.
func (p *Peer) removeFailure(err error) error {
	if err == nil {
		return nil
	}
	f := &Failure{Kind: controlv1.Kind_KIND_REFUSED, What: "cannot remove", Meaning: "nothing was changed", Next: "gotong peers", Err: err}
	if errors.Is(err, roster.ErrNotAdmin) && p.roster.View().IsAdmin(p.ID()) {
		f.What, f.Err = "the founder of the grid can only leave by itself", nil
	}
	return f
}

func (p *Peer) peersOf(owner grid.OwnerID) []grid.Peer {
	var out []grid.Peer
	for _, peer := range p.membership.Peers() {
		if peer.Owner == owner {
			out = append(out, peer)
		}
	}
	return out
}

// minIDPrefix is how much of an id stands for it, as the list of peers shows it:
// a typing error must not mean somebody.
const minIDPrefix = 8

// findPeer reads what a user calls a peer: its id, the start of one, or its
// name. It must mean one peer.
func (p *Peer) findPeer(text string) (grid.Peer, error) {
	var found []grid.Peer
	for _, peer := range p.membership.Peers() {
		if peer.ID.String() == text {
			return peer, nil
		}
		if calls(text, peer) {
			found = append(found, peer)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		for _, gone := range p.membership.Removed() {
			if calls(text, gone) {
				return grid.Peer{}, &Failure{Kind: controlv1.Kind_KIND_REFUSED, What: fmt.Sprintf("%s is no member any more", gone.DisplayName()), Meaning: "nothing was changed", Next: "gotong peers"}
			}
		}
		return grid.Peer{}, &Failure{Kind: controlv1.Kind_KIND_USAGE, What: fmt.Sprintf("no peer is called %q", text), Meaning: "nothing was changed", Next: "gotong peers"}
	}
	return grid.Peer{}, &Failure{Kind: controlv1.Kind_KIND_USAGE, What: fmt.Sprintf("%d peers are called %q", len(found), text), Meaning: "nothing was changed", Next: "gotong peers, then the id"}
}

// calls reports whether a text may mean a peer.
func calls(text string, peer grid.Peer) bool {
	byID := len(text) >= minIDPrefix && strings.HasPrefix(peer.ID.String(), text)
	return byID || text != "" && peer.Record.Name == text
}

// Leave takes this peer out of the grid for good and stops it.
func (p *Peer) Leave(context.Context) error {
	if err := p.RemovePeer(p.ID()); err != nil {
		return err
	}
	p.leaveOnce.Do(func() { close(p.leave) })
	return nil
}
