package roster

import (
	"cmp"
	"slices"

	"gotong/grid"
)

// outcome is the evaluated set: who was ever admitted by statements that
// count, and who was removed.
type outcome struct {
	*standing
	removedPeers  map[grid.PeerID]bool
	removedOwners map[grid.OwnerID]bool
	disowns       []*statement // that count
}

// evaluateWith decides who is a member when the disowns of those owners count.
//
// Removals are taken in order of rank. One that shortens what counts of an
// author may take another removal or an admission away, so everything is
// computed again before the next. What was applied stays applied: a removed
// author cannot get back by removing who removed it.
func evaluateWith(x *index, by map[grid.OwnerID]bool) *outcome {
	applied := map[*statement]bool{}
	c := &cuts{peers: map[grid.PeerID]cut{}, owners: map[grid.OwnerID]map[grid.PeerID]cut{}}
	o := &outcome{removedPeers: map[grid.PeerID]bool{}, removedOwners: map[grid.OwnerID]bool{}}
	for owner := range by {
		o.disown(x, c, owner)
	}
	for {
		o.standing = stand(x, c)
		if !o.applyUntilCut(applied) {
			return o
		}
	}
}

// applyUntilCut applies removals in order of rank up to the first that takes
// counted statements away, and reports whether there was one.
func (o *outcome) applyUntilCut(applied map[*statement]bool) bool {
	for _, s := range o.ranked() {
		if applied[s] || !o.authorised(s.author, s.removal) {
			continue
		}
		applied[s] = true
		if o.apply(s.removal) {
			return true
		}
	}
	return false
}

// ranked lists the removals that count, nearest to the genesis first.
func (o *outcome) ranked() []*statement {
	var out []*statement
	for _, p := range o.peers {
		for _, counted := range p.counted {
			for _, s := range counted {
				if s.kind == kindRemove {
					out = append(out, s)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b *statement) int {
		return cmp.Or(
			cmp.Compare(o.peers[a.author].depth, o.peers[b.author].depth),
			a.author.Compare(b.author),
			cmp.Compare(a.link.epoch, b.link.epoch),
			cmp.Compare(a.link.number, b.link.number),
		)
	})
	return out
}

// authorised reports whether author may make that removal.
func (o *outcome) authorised(author grid.PeerID, r *removal) bool {
	by := o.peers[author]
	if r.peer.IsZero() {
		owner := o.owners[r.owner]
		switch {
		case by.owner == r.owner, owner != nil && owner.genesis:
			return false
		default:
			return o.isAdmin(author) || by.admin && owner != nil && owner.inviters[author]
		}
	}
	if author == r.peer {
		return true
	}
	siblings := slices.Contains(o.x.claims[r.peer], by.owner)
	switch {
	case siblings:
		return by.admin && o.epochOf(author, by.owner) >= o.epochOf(r.peer, by.owner)
	case slices.ContainsFunc(o.x.claims[r.peer], o.isGenesisOwner):
		return false
	default:
		target := o.peers[r.peer]
		return o.isAdmin(author) || by.admin && target != nil && target.inviters[author]
	}
}

// epochOf returns the highest epoch of the delegations by an owner to a peer: an
// older word of the owner does not remove what a newer one brought in.
func (o *outcome) epochOf(peer grid.PeerID, owner grid.OwnerID) (highest uint32) {
	p := o.peers[peer]
	if p == nil {
		return 0
	}
	for s := range p.admissions {
		if s.admission.owner == owner {
			highest = max(highest, s.admission.delegation.Epoch)
		}
	}
	return highest
}

func (o *outcome) isGenesisOwner(id grid.OwnerID) bool {
	owner := o.owners[id]
	return owner != nil && owner.genesis
}

// apply notes the removal and reports whether statements that counted do not
// count any more.
func (o *outcome) apply(r *removal) (shortened bool) {
	before := map[grid.PeerID]int{}
	for peer := range o.peers {
		if peer == r.peer || slices.Contains(o.x.claims[peer], r.owner) {
			before[peer] = o.countedOf(peer)
		}
	}
	if r.peer.IsZero() {
		o.removedOwners[r.owner] = true
		o.cuts.lowerOwner(r.owner, r.cuts)
	} else {
		o.removedPeers[r.peer] = true
		o.cuts.lowerPeer(r.peer, r.cuts[r.peer])
	}
	for peer, n := range before {
		left := 0
		for epoch := range o.peers[peer].epochs {
			counted, _ := o.countedChain(peer, epoch)
			left += len(counted)
		}
		shortened = shortened || left != n
	}
	return shortened
}

func (o *outcome) countedOf(peer grid.PeerID) (n int) {
	for _, counted := range o.peers[peer].counted {
		n += len(counted)
	}
	return n
}

func (c *cuts) lowerPeer(peer grid.PeerID, at cut) {
	if old, ok := c.peers[peer]; !ok || at.below(old) {
		c.peers[peer] = at
	}
}

// lowerOwner keeps for each author the lower of both removals; one that either
// does not list has nothing that counts.
func (c *cuts) lowerOwner(owner grid.OwnerID, listed map[grid.PeerID]cut) {
	old, ok := c.owners[owner]
	if !ok {
		c.owners[owner] = listed
		return
	}
	both := map[grid.PeerID]cut{}
	for peer, at := range listed {
		if before, ok := old[peer]; ok {
			if before.below(at) {
				at = before
			}
			both[peer] = at
		}
	}
	c.owners[owner] = both
}

// removed reports whether the peer, or an owner to whom it consented, was
// removed.
func (o *outcome) removed(peer grid.PeerID) bool {
	return o.removedPeers[peer] || slices.ContainsFunc(o.x.claims[peer], func(owner grid.OwnerID) bool {
		return o.removedOwners[owner]
	})
}
