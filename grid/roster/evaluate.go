package roster

import (
	"maps"

	"gotong/grid"
)

// cuts are the removals applied so far: what still counts of each removed
// author.
type cuts struct {
	peers  map[grid.PeerID]cut
	owners map[grid.OwnerID]map[grid.PeerID]cut
}

// of returns the lowest cut of an author. An author of a removed owner whom the
// removal does not list has nothing that counts.
func (c *cuts) of(x *index, author grid.PeerID) (lowest cut, found bool) {
	lowest, found = c.peers[author]
	for _, owner := range x.claims[author] {
		listed, removed := c.owners[owner]
		if !removed {
			continue
		}
		if at := listed[author]; !found || at.below(lowest) { // zero when not listed
			lowest, found = at, true
		}
	}
	return lowest, found
}

// peerStanding is what the counted statements say of one peer.
type peerStanding struct {
	depth      int                     // hops from the genesis; ranks removals
	epochs     map[uint32]bool         // in which its statements count
	admissions map[*statement]bool     // that count
	inviters   map[grid.PeerID]bool    // that it consented to and that admitted it
	counted    map[uint32][]*statement // its own chain, by epoch
	forked     map[uint32]bool         // by epoch
	owner      grid.OwnerID            // of the admissions' owners, the one nearest to the genesis
	admin      bool                    // some delegation gives it the admin capability
}

type ownerStanding struct {
	depth    int
	admin    bool
	inviters map[grid.PeerID]bool
	genesis  bool
}

// standing is the result of one pass over the admissions with fixed cuts.
type standing struct {
	x      *index
	cuts   *cuts
	peers  map[grid.PeerID]*peerStanding
	owners map[grid.OwnerID]*ownerStanding
	queue  []grid.PeerID // whose chains have to be looked at (again)
}

// stand finds who is admitted when the given cuts apply: the least set that
// holds the genesis and whatever the members' counted statements admit. It is
// monotone, so the order of the steps does not matter.
func stand(x *index, c *cuts) *standing {
	st := &standing{x: x, cuts: c, peers: map[grid.PeerID]*peerStanding{}, owners: map[grid.OwnerID]*ownerStanding{}}
	for _, s := range x.genesis {
		st.admitted(s, 0)
		st.owners[s.admission.owner].genesis = true
		st.owners[s.admission.owner].admin = true
	}
	for len(st.queue) > 0 {
		author := st.queue[0]
		st.queue = st.queue[1:]
		st.follow(author)
	}
	st.settleOwners()
	st.settleAdmins()
	return st
}

// follow applies the counted admissions of one author.
func (st *standing) follow(author grid.PeerID) {
	p := st.peers[author]
	for epoch := range p.epochs {
		if _, done := p.counted[epoch]; !done {
			p.counted[epoch], p.forked[epoch] = st.countedChain(author, epoch)
		}
		for _, s := range p.counted[epoch] {
			if s.kind == kindAdmit {
				st.admitted(s, p.depth+1)
			}
		}
	}
}

func (st *standing) countedChain(author grid.PeerID, epoch uint32) ([]*statement, bool) {
	c := st.x.chains[author][epoch]
	at, removed := st.cuts.of(st.x, author)
	switch {
	case !removed || epoch < at.epoch:
		return c.prefix(MaxChain, nil)
	case epoch > at.epoch:
		return nil, false
	default:
		return c.prefix(at.number, c.pins(at))
	}
}

// admitted notes that s counts and was reached at depth. Whoever changed by it
// is looked at again.
func (st *standing) admitted(s *statement, depth int) {
	a := s.admission
	p := st.peers[a.peer]
	if p == nil {
		p = &peerStanding{
			depth: depth, epochs: map[uint32]bool{}, admissions: map[*statement]bool{}, inviters: map[grid.PeerID]bool{},
			counted: map[uint32][]*statement{}, forked: map[uint32]bool{},
		}
		st.peers[a.peer] = p
	}
	p.admissions[s] = true
	if s.kind == kindAdmit && a.inviter == s.author {
		p.inviters[s.author] = true
	}
	if !p.epochs[s.authorEpoch] || depth < p.depth {
		p.epochs[s.authorEpoch] = true
		p.depth = min(p.depth, depth)
		st.queue = append(st.queue, a.peer)
	}
	if s.kind != kindDevice {
		st.joined(s, depth)
	}
}

// joined notes an owner's membership and applies the device statements that
// it makes valid.
func (st *standing) joined(s *statement, depth int) {
	id := s.admission.owner
	o := st.owners[id]
	if o == nil {
		o = &ownerStanding{depth: depth + 1, inviters: map[grid.PeerID]bool{}}
		st.owners[id] = o
	}
	if s.kind == kindAdmit && s.admission.inviter == s.author {
		o.inviters[s.author] = true
	}
	if depth >= o.depth {
		return
	}
	o.depth = depth
	for _, device := range st.x.devices[id] {
		st.admitted(device, depth)
	}
}

// settleOwners gives each peer the owner nearest to the genesis, should it have
// consented to several.
func (st *standing) settleOwners() {
	for _, p := range st.peers {
		first := true
		for s := range p.admissions {
			id := s.admission.owner
			if first || st.nearer(id, p.owner) {
				p.owner, first = id, false
			}
		}
		for s := range p.admissions {
			if s.admission.owner == p.owner && s.admission.delegation.Capabilities.Has(grid.CapAdmin) {
				p.admin = true
			}
		}
	}
}

func (st *standing) nearer(a, b grid.OwnerID) bool {
	da, db := st.owners[a].depth, st.owners[b].depth
	return da < db || (da == db && a.Compare(b) < 0)
}

// settleAdmins spreads admin rights along the admits of admins until nothing
// changes.
func (st *standing) settleAdmins() {
	grants := map[*statement]bool{}
	for _, p := range st.peers {
		for s := range p.admissions {
			if s.grantAdmin {
				grants[s] = true
			}
		}
	}
	for changed := true; changed; {
		changed = false
		for s := range maps.Keys(grants) {
			if st.isAdmin(s.author) && !st.owners[s.admission.owner].admin {
				st.owners[s.admission.owner].admin = true
				changed = true
			}
		}
	}
}

// isAdmin reports whether a peer acts for an owner who is an admin and has the
// admin capability.
func (st *standing) isAdmin(peer grid.PeerID) bool {
	p := st.peers[peer]
	return p != nil && p.admin && st.owners[p.owner].admin
}
