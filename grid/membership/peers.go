package membership

import (
	"slices"
	"time"

	"gotong/grid"
	"gotong/grid/roster"
)

// Peers returns all members of the roster, this peer first, the others by
// PeerID. The roster alone decides who is in the list.
func (m *Membership) Peers() []grid.Peer {
	members := m.cfg.Roster.View().Members()
	peers := make([]grid.Peer, 0, len(members))
	for _, member := range members {
		peers = append(peers, m.describe(member))
	}
	slices.SortFunc(peers, func(a, b grid.Peer) int {
		switch m.self {
		case a.ID:
			return -1
		case b.ID:
			return 1
		}
		return a.ID.Compare(b.ID)
	})
	return peers
}

// Removed returns the peers that were removed, or left by removing themselves,
// by PeerID. They are never in Peers.
func (m *Membership) Removed() []grid.Peer {
	view := m.cfg.Roster.View()
	var peers []grid.Peer
	for _, id := range view.Removed() {
		p := grid.Peer{ID: id, State: grid.StateRemoved}
		if view.Left(id) {
			p.State = grid.StateLeft
		}
		p.Owner, _ = view.OwnerOf(id)
		p.Record, _, _ = m.cfg.Records.Get(id)
		p.Since, _ = m.seen.last(id)
		peers = append(peers, p)
	}
	return peers
}

// Peer returns one member; false when the roster does not list it now.
func (m *Membership) Peer(id grid.PeerID) (grid.Peer, bool) {
	member, ok := m.cfg.Roster.View().Member(id)
	if !ok {
		return grid.Peer{}, false
	}
	return m.describe(member), true
}

// describe joins roster, record and gossip.
func (m *Membership) describe(member roster.Member) grid.Peer {
	p := grid.Peer{ID: member.ID, Owner: member.Owner, Admin: member.Admin, Forked: member.Forked}
	p.Record, _, _ = m.cfg.Records.Get(member.ID)
	if member.ID == m.self {
		p.State, p.Since, p.Seen = grid.StateAlive, m.started, time.Now()
		return p
	}
	m.mu.Lock()
	o, known := m.opinions[member.ID]
	s := m.serf
	m.mu.Unlock()
	if known {
		p.State, p.Since = o.state, o.since
	} else {
		p.State, p.Since = grid.StateAway, m.started
	}
	p.Seen, _ = m.seen.last(member.ID)
	if p.State == grid.StateAway && !p.Seen.IsZero() && p.Seen.Before(p.Since) {
		p.Since = p.Seen
	}
	if p.State == grid.StateAlive {
		p.RTT = roundTrip(s, member.ID)
	}
	return p
}
