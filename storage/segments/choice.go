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
	planned    []grid.PeerID // by shard; nil: nothing was planned
	candidates []placement.Candidate
	used       map[grid.PeerID]bool // has a shard, or one was sent there
	bad        map[grid.PeerID]bool // and failed
	liars      map[grid.PeerID]bool // and was acknowledged, yet is not there
}

func newChoice(s *Segments, header storage.SignedHeader, candidates []placement.Candidate) *choice {
	return &choice{s: s, header: header, candidates: candidates,
		used: map[grid.PeerID]bool{}, bad: map[grid.PeerID]bool{}, liars: map[grid.PeerID]bool{}}
}

func (c *choice) use(peer grid.PeerID) { c.used[peer] = true }

// site returns the failure domain of a peer, candidate or not.
func (c *choice) site(peer grid.PeerID) string {
	if candidate, ok := c.candidate(peer); ok {
		return candidate.Site
	}
	return c.s.cfg.Holders.Site(peer)
}

func (c *choice) candidate(peer grid.PeerID) (placement.Candidate, bool) {
	for _, candidate := range c.candidates {
		if candidate.Peer == peer {
			return candidate, true
		}
	}
	return placement.Candidate{}, false
}

// need says how badly a shard needs a place.
type need int

const (
	needBetter  need = iota // only on a peer that has none, on a site below its limit
	needSpread              // on a peer that has none
	needPlace               // wherever there is room, once all have one or refused
	needCommit              // else the commit rule will not hold
	needRestore             // else the segment cannot be read
)

// next returns the best peer for one more shard: one that was not tried, on a
// site below its limit if possible. For the commit rule also one that failed a
// moment ago with another segment, and then one that has a shard of this
// segment already. While friends are away on whose sites there is place, no
// site gets more than its limit, unless the segment cannot be read without.
func (c *choice) next(shards []upShard, n need) (grid.PeerID, bool) {
	load := c.load(shards)
	here := func(k placement.Candidate) bool { return !c.used[k.Peer] && !k.Away }
	fresh := func(k placement.Candidate) bool { return here(k) && c.s.peers.skip(k.Peer, toPut) == nil }
	within := func(k placement.Candidate) bool { return load.onSite[k.Site] < c.header.Redundancy.PerSite() }
	waiting := c.fits(func(k placement.Candidate) bool { return k.Away && !c.used[k.Peer] && within(k) })
	crowd := n == needRestore || !waiting
	again := func(k placement.Candidate) bool { return here(k) && (n == needRestore || !c.hung(k.Peer)) }
	for _, step := range []struct {
		when bool
		fits func(placement.Candidate) bool
	}{
		{true, func(k placement.Candidate) bool { return fresh(k) && within(k) }},
		{n >= needSpread && crowd, fresh},
		{n >= needCommit, func(k placement.Candidate) bool { return again(k) && within(k) }},
		{n >= needCommit && crowd, again},
	} {
		if !step.when {
			continue
		}
		if peer, ok := c.best(step.fits); ok {
			return peer, true
		}
	}
	if n < needPlace || (n == needPlace && c.fits(func(k placement.Candidate) bool { return !c.used[k.Peer] && !c.refuses(k.Peer) })) {
		return grid.PeerID{}, false
	}
	return c.double(load, crowd)
}

// hung reports whether a peer failed a moment ago in a way that cost time.
func (c *choice) hung(peer grid.PeerID) bool {
	return is(c.s.peers.skip(peer, toPut), ErrTimeout, errStraggler)
}

// refuses reports whether a peer failed a moment ago in a way that will not
// pass by itself.
func (c *choice) refuses(peer grid.PeerID) bool {
	return is(c.s.peers.skip(peer, toPut), storage.ErrQuota, storage.ErrFull, storage.ErrDenied, storage.ErrDisk, errLied)
}

// fits reports whether there is a candidate with room that fits.
func (c *choice) fits(fits func(placement.Candidate) bool) bool {
	_, ok := c.best(fits)
	return ok
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

// double returns a peer for one more shard beside one that it has: on the site
// that is least above its limit, then with the fewest shards. Unless crowd, no
// site gets more than its limit.
func (c *choice) double(load load, crowd bool) (best grid.PeerID, ok bool) {
	limit := c.header.Redundancy.PerSite()
	bestOver := 0
	for _, k := range c.candidates {
		shards := load.onPeer[k.Peer]
		if !load.proven[k.Peer] || k.Away || c.bad[k.Peer] || k.Pledge == 0 || k.Free/uint64(load.coming[k.Peer]+1) < uint64(c.header.ShardBytes) {
			continue
		}
		over := max(0, load.onSite[k.Site]+1-limit)
		if over > 0 && !crowd {
			continue
		}
		if !ok || over < bestOver || (over == bestOver && shards < load.onPeer[best]) {
			best, bestOver, ok = k.Peer, over, true
		}
	}
	return best, ok
}

// load counts the shards that each site and each peer has or is getting.
type load struct {
	onSite map[string]int
	onPeer map[grid.PeerID]int
	coming map[grid.PeerID]int  // that were or are sent now
	proven map[grid.PeerID]bool // who has one
}

func (c *choice) load(shards []upShard) load {
	l := load{map[string]int{}, map[grid.PeerID]int{}, map[grid.PeerID]int{}, map[grid.PeerID]bool{}}
	count := func(peer grid.PeerID) {
		l.onSite[c.site(peer)]++
		l.onPeer[peer]++
	}
	for i := range shards {
		if s := &shards[i]; !s.holder.IsZero() {
			count(s.holder)
			l.proven[s.holder] = true
			if !s.found {
				l.coming[s.holder]++
			}
		}
		for _, a := range shards[i].running {
			count(a.peer)
			l.coming[a.peer]++
		}
	}
	return l
}
