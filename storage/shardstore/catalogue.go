package shardstore

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sync"
	"unique"

	"gotong/grid"
	"gotong/storage"
)

// maxWriters bounds the shards being written at once.
const maxWriters = 512

// catalogue knows what is on disk and how much room is left. About 150 bytes
// for each shard.
type catalogue struct {
	capacity   int64 // 0: no limit
	ownerLimit func(grid.OwnerID) int64

	mu       sync.RWMutex
	segments map[storage.SegmentID]*segment
	bad      map[storage.SegmentID][]shard // set aside; counted in used only
	owners   map[grid.OwnerID]*usage
	claims   map[storage.ShardID]chan struct{}
	shards   int   // stored
	badCount int   // set aside
	used     int64 // bytes of all files
	reserved int64 // bytes of the shards being written
	writers  int
	last     generation
}

// generation tells one file stored as a shard from a later one of the same
// name, so that what was found wrong in the old one is not held against the
// new. 0 is none.
type generation uint64

type segment struct {
	vault  unique.Handle[storage.VaultID]
	owner  *usage
	shards []shard // by index
}

type shard struct {
	index int
	bytes int64 // of the file
	gen   generation
}

// usage is what one owner has here.
type usage struct {
	owner    grid.OwnerID
	shards   int
	bytes    int64 // stored
	reserved int64 // being written
	heads    int64 // bytes of head files
}

func newCatalogue(cfg Config) *catalogue {
	return &catalogue{
		capacity:   cfg.CapacityBytes,
		ownerLimit: cfg.OwnerLimit,
		segments:   map[storage.SegmentID]*segment{},
		bad:        map[storage.SegmentID][]shard{},
		owners:     map[grid.OwnerID]*usage{},
		claims:     map[storage.ShardID]chan struct{}{},
	}
}

// usageOf returns the account of an owner; c.mu is held for writing.
func (c *catalogue) usageOf(owner grid.OwnerID) *usage {
	u := c.owners[owner]
	if u == nil {
		u = &usage{owner: owner}
		c.owners[owner] = u
	}
	return u
}

func findShard(shards []shard, index int) (at int, found bool) {
	return slices.BinarySearchFunc(shards, index, func(s shard, index int) int { return cmp.Compare(s.index, index) })
}

// lookup returns the generation of a stored shard and its owner; 0 when there
// is none.
func (c *catalogue) lookup(id storage.ShardID) (generation, grid.OwnerID) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.segments[id.Segment]
	if s == nil {
		return 0, grid.OwnerID{}
	}
	at, found := findShard(s.shards, id.Index)
	if !found {
		return 0, grid.OwnerID{}
	}
	return s.shards[at].gen, s.owner.owner
}

// claim makes the caller the only one who moves or removes the file of a shard,
// until release. It waits for another one to be done.
func (c *catalogue) claim(id storage.ShardID) (release func()) {
	for {
		c.mu.Lock()
		other, busy := c.claims[id]
		if !busy {
			mine := make(chan struct{})
			c.claims[id] = mine
			c.mu.Unlock()
			return func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				delete(c.claims, id)
				close(mine)
			}
		}
		c.mu.Unlock()
		<-other
	}
}

// reserve makes room for a shard, or says why there is none. free is what the
// disk has left beyond what must stay free.
func (c *catalogue) reserve(header storage.SignedHeader, index int, free int64) error {
	// Asked before the lock is taken, because it is someone else's code.
	limit := int64(-1)
	if c.ownerLimit != nil {
		limit = max(0, c.ownerLimit(header.Owner))
	}
	size := fileSize(header.ShardBytes)
	gen, _ := c.lookup(storage.ShardID{Segment: header.ID, Index: index})
	c.mu.Lock()
	defer c.mu.Unlock()
	account := c.usageOf(header.Owner)
	switch {
	case gen != 0:
		return storage.ErrExists
	case limit >= 0 && account.bytes+account.reserved+size > limit:
		return fmt.Errorf("owner %s has %d of %d bytes here: %w", header.Owner.Short(), account.bytes+account.reserved, limit, storage.ErrQuota)
	case c.capacity > 0 && c.used+c.reserved+size > c.capacity:
		return fmt.Errorf("%d of %d pledged bytes are used: %w", c.used+c.reserved, c.capacity, storage.ErrFull)
	case c.reserved+size > free:
		return fmt.Errorf("%d bytes left on the disk: %w", max(0, free-c.reserved), storage.ErrFull)
	case c.writers >= maxWriters:
		return fmt.Errorf("%d shards are being written already: %w", maxWriters, storage.ErrFull)
	}
	account.reserved += size
	c.reserved += size
	c.writers++
	return nil
}

// release gives back what reserve took.
func (c *catalogue) release(header storage.SignedHeader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := fileSize(header.ShardBytes)
	c.usageOf(header.Owner).reserved -= size
	c.reserved -= size
	c.writers--
}

// add enters a stored shard.
func (c *catalogue) add(header storage.SignedHeader, index int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.segments[header.ID]
	if s == nil {
		s = &segment{vault: unique.Make(header.Vault), owner: c.usageOf(header.Owner)}
		c.segments[header.ID] = s
	}
	at, found := findShard(s.shards, index)
	if found {
		return
	}
	size := fileSize(header.ShardBytes)
	c.last++
	s.shards = slices.Insert(s.shards, at, shard{index, size, c.last})
	s.owner.shards++
	s.owner.bytes += size
	c.shards++
	c.used += size
}

// remove takes a stored shard out and returns its size on disk.
func (c *catalogue) remove(id storage.ShardID) (size int64, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.segments[id.Segment]
	if s == nil {
		return 0, false
	}
	at, found := findShard(s.shards, id.Index)
	if !found {
		return 0, false
	}
	size = s.shards[at].bytes
	s.shards = slices.Delete(s.shards, at, at+1)
	if len(s.shards) == 0 {
		delete(c.segments, id.Segment)
	}
	s.owner.shards--
	s.owner.bytes -= size
	c.shards--
	c.used -= size
	return size, true
}

// addBad enters a shard that was set aside. False: there are too many already.
func (c *catalogue) addBad(id storage.ShardID, size int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, found := findShard(c.bad[id.Segment], id.Index)
	switch {
	case found:
		c.used += size - c.bad[id.Segment][at].bytes
		c.bad[id.Segment][at].bytes = size
		return true
	case c.badCount >= maxBad:
		return false
	}
	c.bad[id.Segment] = slices.Insert(c.bad[id.Segment], at, shard{index: id.Index, bytes: size})
	c.used += size
	c.badCount++
	return true
}

// removeBad forgets a shard that was set aside and reports whether there was one.
func (c *catalogue) removeBad(id storage.ShardID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, found := findShard(c.bad[id.Segment], id.Index)
	if !found {
		return false
	}
	c.used -= c.bad[id.Segment][at].bytes
	c.badCount--
	if c.bad[id.Segment] = slices.Delete(c.bad[id.Segment], at, at+1); len(c.bad[id.Segment]) == 0 {
		delete(c.bad, id.Segment)
	}
	return true
}

func (c *catalogue) isBad(id storage.ShardID) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, found := findShard(c.bad[id.Segment], id.Index)
	return found
}

// states returns what is known of the shards of a segment, by index.
func (c *catalogue) states(id storage.SegmentID) []storage.ShardAnswer {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []storage.ShardAnswer
	if s := c.segments[id]; s != nil {
		for _, shard := range s.shards {
			out = append(out, storage.ShardAnswer{Index: shard.index, State: storage.ShardStored})
		}
	}
	for _, shard := range c.bad[id] {
		if at, found := slices.BinarySearchFunc(out, shard.index, func(a storage.ShardAnswer, index int) int {
			return cmp.Compare(a.Index, index)
		}); !found {
			out = slices.Insert(out, at, storage.ShardAnswer{Index: shard.index, State: storage.ShardBad})
		}
	}
	return out
}

// list returns the stored shards for which keep holds, ordered by id.
func (c *catalogue) list(keep func(*segment) bool) []storage.ShardID {
	c.mu.RLock()
	var ids []storage.ShardID
	for id, s := range c.segments {
		if keep(s) {
			for _, shard := range s.shards {
				ids = append(ids, storage.ShardID{Segment: id, Index: shard.index})
			}
		}
	}
	c.mu.RUnlock()
	slices.SortFunc(ids, func(a, b storage.ShardID) int {
		return cmp.Or(bytes.Compare(a.Segment[:], b.Segment[:]), cmp.Compare(a.Index, b.Index))
	})
	return ids
}
