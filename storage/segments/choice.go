package segments

import (
	"gotong/grid"
	"gotong/storage"
	"gotong/storage/placement"
)

// choice knows who may take shards of one segment, and who comes next.
type choice struct {
	s          *Segments
	header     storage.SignedHeader
	plan       *placement.Plan
	candidates []placement.Candidate
	used       map[grid.PeerID]bool // a shard was sent there
	bad        map[grid.PeerID]bool // and failed
	liars      map[grid.PeerID]bool // and was acknowledged, yet is not there
}

func newChoice(s *Segments, header storage.SignedHeader, plan *placement.Plan, candidates []placement.Candidate) *choice {
	return &choice{s: s, header: header, plan: plan, candidates: candidates,
		used: map[grid.PeerID]bool{}, bad: map[grid.PeerID]bool{}, liars: map[grid.PeerID]bool{}}
}

func (c *choice) use(peer grid.PeerID) { c.used[peer] = true }

func (c *choice) site(peer grid.PeerID) string {
	for _, candidate := range c.candidates {
		if candidate.Peer == peer {
			return candidate.Site
		}
	}
	return ""
}

// next returns the best peer for one more shard: one that was not tried, on a
// site below its limit if possible. In need, which means that the commit rule
// will not hold otherwise, also one that failed a moment ago with another
// segment, and then one that took a shard of this segment already.
func (c *choice) next(shards []upShard, need bool) (grid.PeerID, bool) {
	onSite, onPeer := c.load(shards)
	fresh := func(k placement.Candidate) bool { return !c.used[k.Peer] && c.s.peers.skip(k.Peer, toPut) == nil }
	within := func(k placement.Candidate) bool { return onSite[k.Site] < c.plan.Redundancy.PerSite() }
	for _, fits := range []func(placement.Candidate) bool{
		func(k placement.Candidate) bool { return fresh(k) && within(k) },
		fresh,
		func(k placement.Candidate) bool { return need && !c.used[k.Peer] && within(k) },
		func(k placement.Candidate) bool { return need && !c.used[k.Peer] },
	} {
		if peer, ok := c.best(fits); ok {
			return peer, true
		}
	}
	if !need {
		return grid.PeerID{}, false
	}
	return c.double(shards, onPeer)
}

// best returns the highest ranked candidate that fits.
func (c *choice) best(fits func(placement.Candidate) bool) (grid.PeerID, bool) {
	var some []placement.Candidate
	for _, candidate := range c.candidates {
		if fits(candidate) {
			some = append(some, candidate)
		}
	}
	if len(some) == 0 {
		return grid.PeerID{}, false
	}
	plan, err := placement.Choose(c.header.ID, storage.Redundancy{K: 1, N: 1}, c.header.ShardBytes, some)
	if err != nil {
		return grid.PeerID{}, false // none of them has room
	}
	return plan.Peers[0], true
}

// double returns the peer with the fewest shards of those that took one.
func (c *choice) double(shards []upShard, onPeer map[grid.PeerID]int) (best grid.PeerID, ok bool) {
	for i := range shards {
		peer := shards[i].holder
		if peer.IsZero() || c.bad[peer] || !c.room(peer, onPeer[peer]+1) {
			continue
		}
		if !ok || onPeer[peer] < onPeer[best] {
			best, ok = peer, true
		}
	}
	return best, ok
}

func (c *choice) room(peer grid.PeerID, shards int) bool {
	for _, candidate := range c.candidates {
		if candidate.Peer == peer {
			return candidate.Free/uint64(shards) >= uint64(c.header.ShardBytes)
		}
	}
	return false
}

// load counts the shards that each site and each peer has or is getting.
func (c *choice) load(shards []upShard) (onSite map[string]int, onPeer map[grid.PeerID]int) {
	onSite, onPeer = map[string]int{}, map[grid.PeerID]int{}
	count := func(peer grid.PeerID) {
		onSite[c.site(peer)]++
		onPeer[peer]++
	}
	for i := range shards {
		if !shards[i].holder.IsZero() {
			count(shards[i].holder)
		}
		for _, a := range shards[i].running {
			count(a.peer)
		}
	}
	return onSite, onPeer
}
