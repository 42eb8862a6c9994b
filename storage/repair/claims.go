package repair

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"gotong/grid"
	"gotong/storage"
)

// claimsKept bounds the shards of one peer from which audits choose.
const claimsKept = 64

// claims is a random sample of what each other peer says that it has, so that
// audits need no list of all.
type claims struct {
	mu   sync.Mutex
	now  map[grid.PeerID]*reservoir // of the last sweep over all segments
	next map[grid.PeerID]*reservoir // of the one that goes on
}

// reservoir keeps each of the shards that it was offered with equal chance.
type reservoir struct {
	seen  int
	items []storage.ShardID
}

func newClaims() *claims {
	return &claims{now: map[grid.PeerID]*reservoir{}, next: map[grid.PeerID]*reservoir{}}
}

// offer takes in what others answered about one segment.
func (c *claims) offer(e Evidence, self grid.PeerID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for shard, copies := range e.Copies {
		for _, one := range copies {
			if one.State == storage.ShardStored && one.Peer != self {
				c.add(one.Peer, storage.ShardID{Segment: e.ID, Index: shard})
			}
		}
	}
}

func (c *claims) add(peer grid.PeerID, shard storage.ShardID) {
	r := c.next[peer]
	if r == nil {
		if len(c.next) >= maxStandings {
			return
		}
		r = &reservoir{}
		c.next[peer] = r
	}
	r.seen++
	if len(r.items) < claimsKept {
		r.items = append(r.items, shard)
	} else if i := rand.IntN(r.seen); i < claimsKept {
		r.items[i] = shard
	}
}

// turn ends a sweep: what it saw is what audits choose from.
func (c *claims) turn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.next = c.next, map[grid.PeerID]*reservoir{}
}

// peers returns who claims to have something.
func (c *claims) peers() []grid.PeerID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Keys(c.now), grid.PeerID.Compare)
}

// pick returns a random shard that a peer claims to have.
func (c *claims) pick(peer grid.PeerID) (storage.ShardID, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.now[peer]
	if r == nil || len(r.items) == 0 {
		return storage.ShardID{}, false
	}
	return r.items[rand.IntN(len(r.items))], true
}

// drop forgets a claim that turned out to be void.
func (c *claims) drop(peer grid.PeerID, shard storage.ShardID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.now[peer]; r != nil {
		r.items = slices.DeleteFunc(r.items, func(s storage.ShardID) bool { return s == shard })
	}
}
