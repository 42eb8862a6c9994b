package roster

import (
	"slices"

	"gotong/grid"
)

// evaluate decides who is a member. It is a pure function of the set of
// statements.
//
// The disowns of all owners are tried. An owner who is no member in the outcome
// cannot say so: whoever removed that owner stands without what the owner takes
// back. Of several such owners the one farthest from the genesis, then the one
// with the highest id, is left out first, because the word of a junior must not
// decide about a senior; then all is computed again.
func evaluate(x *index) *outcome {
	by := map[grid.OwnerID]bool{}
	for owner := range x.disowns {
		by[owner] = true
	}
	for {
		o := evaluateWith(x, by)
		void, found := o.lastVoid(by)
		if !found {
			return o
		}
		delete(by, void)
	}
}

// lastVoid returns, of those owners, the one of the lowest rank who is no member.
func (o *outcome) lastVoid(by map[grid.OwnerID]bool) (last grid.OwnerID, found bool) {
	for owner := range by {
		if o.owners[owner] != nil && !o.removedOwners[owner] {
			continue
		}
		if !found || o.junior(owner, last) {
			last, found = owner, true
		}
	}
	return last, found
}

// junior reports whether a ranks below b; whom nothing admits ranks below all.
func (o *outcome) junior(a, b grid.OwnerID) bool {
	da, db := o.depthOf(a), o.depthOf(b)
	return da > db || da == db && a.Compare(b) > 0
}

func (o *outcome) depthOf(owner grid.OwnerID) int {
	if s := o.owners[owner]; s != nil {
		return s.depth
	}
	return MaxStatements
}

// disown takes back what the owner says that their peers did not write, and
// those peers with it.
func (o *outcome) disown(x *index, c *cuts, owner grid.OwnerID) {
	for _, s := range x.disowns[owner] {
		o.disowns = append(o.disowns, s)
		for peer, at := range s.disown.cuts {
			if slices.Contains(x.claims[peer], owner) {
				o.removedPeers[peer] = true
				c.lowerPeer(peer, at)
			}
		}
	}
}
