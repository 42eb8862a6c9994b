package node

import (
	"math"
	"testing"

	"gotong/grid"
)

// TestShares: the sum over all holders is what the owner gives.
func TestShares(t *testing.T) {
	o := &ownerShare{gives: 10e9}
	table := shareTable{all: 110e9}
	var sum uint64
	for _, given := range []uint64{50e9, 30e9, 20e9} {
		table.given = given
		sum += table.share(o)
	}
	if sum != 10e9 {
		t.Errorf("shares sum to %d", sum)
	}
	for _, test := range []struct{ given, all, gives, want uint64 }{
		{50e9, 50e9, 0, 0},
		{0, 100e9, 10e9, 0},
		{50e9, 10e9, 10e9, 50e9}, // nobody else gives
		{50e9, 60e9, 50e9, 250e9},
		{1 << 62, 1<<62 + 1, 1 << 62, 1 << 62}, // does not fit: what is given here
		{math.MaxUint64, math.MaxUint64, 5, 5},
	} {
		table := shareTable{given: test.given, all: test.all}
		if got := table.share(&ownerShare{gives: test.gives}); got != test.want {
			t.Errorf("%+v: %d", test, got)
		}
	}
}

// TestLimits: oneself has none, strangers nothing, and what the donor set wins.
func TestLimits(t *testing.T) {
	own, friend, named, stranger := grid.OwnerID{1}, grid.OwnerID{2}, grid.OwnerID{3}, grid.OwnerID{4}
	five := Size(5)
	c := Config{Store: StoreConfig{FairShare: true, Allowance: 7}}
	f := &fairShare{peer: &Peer{live: newLiveConfig(c)}}
	f.table.Store(&shareTable{own: own, given: 100, all: 300, owners: map[grid.OwnerID]*ownerShare{
		own: {gives: 100}, friend: {gives: 100}, named: {gives: 100, set: &five},
	}})
	want := map[grid.OwnerID]int64{own: math.MaxInt64, friend: 57, named: 5, stranger: 0}
	for owner, bytes := range want {
		if got := f.limit(owner); got != bytes {
			t.Errorf("%s: %d, want %d", owner.Short(), got, bytes)
		}
	}
	c.Store.FairShare = false
	f.peer.live.set(&c)
	if got := f.limit(friend); got != math.MaxInt64 {
		t.Errorf("switched off: %d", got)
	}
}
