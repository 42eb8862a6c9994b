package roster

import (
	"slices"

	"gotong/grid"
)

// index arranges a set of statements for evaluation. It depends on the set
// only, not on the order in which it was filled.
type index struct {
	genesis  []*statement
	devices  map[grid.OwnerID][]*statement
	chains   map[grid.PeerID]map[uint32]chain // by author and epoch
	claims   map[grid.PeerID][]grid.OwnerID   // owners to whom a peer consented, counted or not
	removals []*statement
	disowns  map[grid.OwnerID][]*statement
}

// chain holds an author's statements of one epoch by number; several under one
// number are a fork.
type chain map[uint32][]*statement

func newIndex(statements []*statement) *index {
	x := &index{
		devices: map[grid.OwnerID][]*statement{},
		chains:  map[grid.PeerID]map[uint32]chain{},
		claims:  map[grid.PeerID][]grid.OwnerID{},
		disowns: map[grid.OwnerID][]*statement{},
	}
	for _, s := range statements {
		x.add(s)
	}
	return x
}

func (x *index) add(s *statement) {
	switch s.kind {
	case kindGenesis:
		x.genesis = append(x.genesis, s)
	case kindDevice:
		x.devices[s.admission.owner] = append(x.devices[s.admission.owner], s)
	case kindRemove:
		x.removals = append(x.removals, s)
	case kindDisown:
		x.disowns[s.disown.owner] = append(x.disowns[s.disown.owner], s)
	}
	if s.admission != nil && !slices.Contains(x.claims[s.admission.peer], s.admission.owner) {
		x.claims[s.admission.peer] = append(x.claims[s.admission.peer], s.admission.owner)
	}
	if s.link.number == 0 {
		return
	}
	epochs := x.chains[s.author]
	if epochs == nil {
		epochs = map[uint32]chain{}
		x.chains[s.author] = epochs
	}
	if epochs[s.link.epoch] == nil {
		epochs[s.link.epoch] = chain{}
	}
	epochs[s.link.epoch][s.link.number] = append(epochs[s.link.epoch][s.link.number], s)
}

// prefix returns the statements of a chain that count: from number 1, without a
// gap, up to max. pins, by number, settle forks. forked reports that the chain
// stopped because its author contradicted itself.
func (c chain) prefix(max uint32, pins map[uint32]Hash) (counted []*statement, forked bool) {
	var previous Hash
	for number := uint32(1); number <= max; number++ {
		candidates := c[number]
		if pin, ok := pins[number]; ok {
			candidates = slices.DeleteFunc(slices.Clone(candidates), func(s *statement) bool { return s.hash != pin })
		}
		switch {
		case len(candidates) == 0:
			return counted, false
		case len(candidates) > 1, candidates[0].link.previous != previous:
			return counted, true
		}
		counted = append(counted, candidates[0])
		previous = candidates[0].hash
	}
	return counted, false
}

// pins walks back from the statement that a cut names and returns the hash that
// each number must have.
func (c chain) pins(at cut) map[uint32]Hash {
	pins := map[uint32]Hash{}
	want := at.hash
	for number := at.number; number > 0; number-- {
		pins[number] = want
		i := slices.IndexFunc(c[number], func(s *statement) bool { return s.hash == want })
		if i < 0 {
			break
		}
		want = c[number][i].link.previous
	}
	return pins
}
