package node

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"strings"
	"sync/atomic"

	"gotong/grid"
)

// fairShare says how many bytes each owner may keep in the store of this peer.
// What it says follows from the signed records of the members, which all of
// them have, so that everyone can check it alone; summed over the grid it is
// what an owner gives itself, besides the allowances.
type fairShare struct {
	peer  *Peer
	table atomic.Pointer[shareTable]
}

// shareTable is the state of roster and records from which limits follow.
type shareTable struct {
	own    grid.OwnerID
	given  uint64 // by this peer
	all    uint64 // by all members
	owners map[grid.OwnerID]*ownerShare
}

type ownerShare struct {
	gives uint64
	set   *Size // by the donor, who may name an owner's limit
}

// refresh looks at the members anew.
func (f *fairShare) refresh() {
	p := f.peer
	t := &shareTable{owners: map[grid.OwnerID]*ownerShare{}}
	names := map[string]grid.OwnerID{}
	claims := func(name string, owner grid.OwnerID) {
		if other, taken := names[name]; taken && other != owner {
			owner = grid.OwnerID{} // a name that several owners use means none of them
		}
		names[name] = owner
	}
	for _, m := range p.roster.View().Members() {
		record, _, _ := p.records.Get(m.ID)
		if m.ID == p.ID() {
			t.own, t.given = m.Owner, record.PledgeBytes
		}
		share := t.owners[m.Owner]
		if share == nil {
			share = &ownerShare{}
			t.owners[m.Owner] = share
		}
		share.gives = saturated(share.gives, record.PledgeBytes)
		t.all = saturated(t.all, record.PledgeBytes)
		for _, name := range []string{m.Owner.String(), m.ID.String(), strings.ToLower(record.Name)} {
			claims(name, m.Owner)
		}
	}
	for _, limit := range p.cfg().Store.Owners {
		name, size, _ := ParseOwnerLimit(limit) // validated
		if share := t.owners[names[strings.ToLower(name)]]; share != nil {
			share.set = &size
		}
	}
	f.table.Store(t)
}

func saturated(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	if carry > 0 {
		return math.MaxUint64
	}
	return sum
}

// run keeps the table up to date.
func (f *fairShare) run(ctx context.Context) error {
	for {
		members, records, config := f.peer.roster.Changed(), f.peer.records.Changed(), f.peer.live.changed()
		f.refresh()
		select {
		case <-members:
		case <-records:
		case <-config:
		case <-ctx.Done():
			return nil
		}
	}
}

// limit returns how many bytes an owner may keep here. It is quick.
func (f *fairShare) limit(owner grid.OwnerID) int64 {
	t := f.table.Load()
	share := t.owners[owner]
	switch {
	case owner == t.own:
		return math.MaxInt64
	case share == nil:
		return 0
	case share.set != nil:
		return clamp(uint64(*share.set))
	case !f.peer.cfg().Store.FairShare:
		return math.MaxInt64
	}
	return clamp(saturated(uint64(f.peer.cfg().Store.Allowance), t.share(share)))
}

// share is the part of what is given here that goes by what the owner gives.
func (t *shareTable) share(o *ownerShare) uint64 {
	others := t.all - min(t.all, o.gives)
	hi, lo := bits.Mul64(t.given, o.gives)
	if hi >= others { // others is zero, or the quotient does not fit
		return t.given
	}
	share, _ := bits.Div64(hi, lo, others)
	return share
}

func clamp(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// explain says why the limit of an owner is what it is. The owner reads it.
func (f *fairShare) explain(owner grid.OwnerID) string {
	t := f.table.Load()
	share := t.owners[owner]
	switch {
	case share == nil:
		return "the owner is no member any more"
	case share.set != nil:
		return fmt.Sprintf("the donor set this limit to %s", *share.set)
	}
	return fmt.Sprintf("allowed are %s for everybody and a fair share of %s: %s given here × %s that the owner gives ÷ %s that the others give; who gives more may keep more",
		f.peer.cfg().Store.Allowance, Size(t.share(share)), Size(t.given), Size(share.gives), Size(t.all-min(t.all, share.gives)))
}
