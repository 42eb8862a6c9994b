package shardstore

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
	"unique"

	"gotong/grid"
	"gotong/storage"
)

// maxWriters bounds the shards being written at once.
const maxWriters = 512

// catalogue knows what is on disk and how much room is left. About 150 bytes
// for each shard.
type catalogue struct {
	ownerLimit func(grid.OwnerID) int64
	whyLimit   func(grid.OwnerID) string // may be nil

	mu       sync.RWMutex
	capacity int64 // 0: no limit
	segments map[storage.SegmentID]*segment
	trash    map[storage.SegmentID]*segment // deleted, within their floor
	surplus  map[storage.SegmentID]*segment // set aside, because another holder has the same
	bad      map[storage.SegmentID][]shard  // set aside; counted in used only
	owners   map[grid.OwnerID]*usage
	jobs     jobBook
	claims   map[storage.ShardID]chan struct{}
	shards   int   // stored
	trashed  int   // in the trash or surplus
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
	vault   unique.Handle[storage.VaultID]
	owner   *usage
	floor   time.Duration
	expires int64   // in Unix seconds; 0: never
	job     int64   // of a job: bytes of the segment, padded to whole shards; else 0
	shards  []shard // by index
}

type shard struct {
	index int
	bytes int64 // of the file
	gen   generation
	since time.Duration // when it went to the trash or aside, on the running clock; 0: it is stored
	// surplus says that it was set aside because another holder has the same.
	surplus bool
}

// path returns the file of a shard.
func (s shard) path(id storage.SegmentID) string {
	switch {
	case s.since == 0:
		return shardPath(storage.ShardID{Segment: id, Index: s.index})
	case s.surplus:
		return surplusPath(storage.ShardID{Segment: id, Index: s.index}, s.since)
	}
	return trashPath(storage.ShardID{Segment: id, Index: s.index}, s.since)
}

// usage is what one owner has here.
type usage struct {
	owner     grid.OwnerID
	shards    int
	trashed   int   // shards in the trash or surplus
	bytes     int64 // stored
	trash     int64 // in the trash or surplus
	reserved  int64 // being written
	jobs      int64 // of all these, of jobs
	heads     int64 // bytes of head files
	deletions int64 // bytes of files of deletions
}

// total returns the bytes that count in the quota.
func (u *usage) total() int64 { return u.bytes + u.trash + u.reserved }

func newCatalogue(cfg Config) *catalogue {
	return &catalogue{
		capacity:   cfg.CapacityBytes,
		ownerLimit: cfg.OwnerLimit,
		whyLimit:   cfg.ExplainLimit,
		segments:   map[storage.SegmentID]*segment{},
		trash:      map[storage.SegmentID]*segment{},
		surplus:    map[storage.SegmentID]*segment{},
		bad:        map[storage.SegmentID][]shard{},
		owners:     map[grid.OwnerID]*usage{},
		jobs:       newJobBook(),
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

// grow enters that a file of an owner grew; part says what it counts as.
func (c *catalogue) grow(owner grid.OwnerID, part func(*usage) *int64, grown int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*part(c.usageOf(owner)) += grown
	c.used += grown
}

func findShard(shards []shard, index int) (at int, found bool) {
	return slices.BinarySearchFunc(shards, index, func(s shard, index int) int { return cmp.Compare(s.index, index) })
}

// lookup returns a shard that is stored.
func (c *catalogue) lookup(id storage.ShardID) (found shard, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	found, _, ok = lookupIn(c.segments, id)
	return found, ok
}

// find returns a shard that is stored or in the trash, and its owner.
func (c *catalogue) find(id storage.ShardID) (found shard, owner grid.OwnerID, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if found, owner, ok = lookupIn(c.segments, id); ok {
		return found, owner, true
	}
	return lookupIn(c.trash, id)
}

func lookupIn(segments map[storage.SegmentID]*segment, id storage.ShardID) (shard, grid.OwnerID, bool) {
	s := segments[id.Segment]
	if s == nil {
		return shard{}, grid.OwnerID{}, false
	}
	at, found := findShard(s.shards, id.Index)
	if !found {
		return shard{}, grid.OwnerID{}, false
	}
	return s.shards[at], s.owner.owner, true
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
	_, stored := c.lookup(storage.ShardID{Segment: header.ID, Index: index})
	c.mu.Lock()
	defer c.mu.Unlock()
	account := c.usageOf(header.Owner)
	switch {
	case stored:
		return storage.ErrExists
	case limit >= 0 && account.total()+size > limit:
		return fmt.Errorf("owner %s has %d of %d bytes here, %d of them in the trash%s: %w", header.Owner.Short(), account.total(), limit, account.trash, c.explain(header.Owner), storage.ErrQuota)
	}
	if err := c.mayStoreForJob(header, account, size, limit); err != nil {
		return err
	}
	switch {
	case c.capacity > 0 && c.used+c.reserved+size > c.capacity:
		return fmt.Errorf("%d of %d pledged bytes are used: %w", c.used+c.reserved, c.capacity, storage.ErrFull)
	case c.reserved+size > free:
		return fmt.Errorf("%d bytes left on the disk: %w", max(0, free-c.reserved), storage.ErrFull)
	case c.writers >= maxWriters:
		return fmt.Errorf("%d shards are being written already: %w", maxWriters, storage.ErrFull)
	}
	c.book(header, account, 1)
	return nil
}

// book counts a shard that is being written in, with sign 1, or out, with −1.
func (c *catalogue) book(header storage.SignedHeader, account *usage, sign int) {
	size := int64(sign) * fileSize(header.ShardBytes)
	account.reserved += size
	c.reserved += size
	c.writers += sign
	if header.Kind == storage.GrantJob {
		account.jobs += size
		c.jobs.account(vaultKey{header.Owner, header.Vault}, header.ID, paddedBytes(header), sign)
	}
}

// explain says why an owner's limit is what it is.
func (c *catalogue) explain(owner grid.OwnerID) string {
	if c.whyLimit == nil {
		return ""
	}
	return "; " + c.whyLimit(owner)
}

// release gives back what reserve took.
func (c *catalogue) release(header storage.SignedHeader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.book(header, c.usageOf(header.Owner), -1)
}

// add enters a stored shard.
func (c *catalogue) add(header storage.SignedHeader, index int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	c.insert(c.segments, header.ID, c.describe(header), shard{index: index, bytes: fileSize(header.ShardBytes), gen: c.last})
}

// addAway enters a shard that was found in the trash, or set aside as surplus.
// False: it is there already, or is stored although it was set aside.
func (c *catalogue) addAway(header storage.SignedHeader, index int, since time.Duration, surplus bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, _, stored := lookupIn(c.segments, storage.ShardID{Segment: header.ID, Index: index}); stored && surplus {
		return false
	}
	c.last++
	sh := shard{index: index, bytes: fileSize(header.ShardBytes), gen: c.last, since: since, surplus: surplus}
	return c.insert(*c.place(sh), header.ID, c.describe(header), sh)
}

// place returns the map in which a shard is.
func (c *catalogue) place(sh shard) *map[storage.SegmentID]*segment {
	switch {
	case sh.since == 0:
		return &c.segments
	case sh.surplus:
		return &c.surplus
	}
	return &c.trash
}

func (c *catalogue) describe(header storage.SignedHeader) segment {
	like := segment{vault: unique.Make(header.Vault), owner: c.usageOf(header.Owner), floor: header.Floor}
	if header.Kind == storage.GrantJob {
		like.job = paddedBytes(header)
	}
	if !header.Expires.IsZero() {
		like.expires = header.Expires.Unix()
	}
	return like
}

// insert enters a shard of a segment that is like of; c.mu is held for writing.
func (c *catalogue) insert(into map[storage.SegmentID]*segment, id storage.SegmentID, like segment, sh shard) bool {
	s := into[id]
	if s == nil {
		s = &segment{}
		*s = like
		s.shards = nil
		into[id] = s
	}
	at, found := findShard(s.shards, sh.index)
	if found {
		return false
	}
	s.shards = slices.Insert(s.shards, at, sh)
	c.account(id, s, sh, 1)
	return true
}

// account counts a shard in, with sign 1, or out, with −1.
func (c *catalogue) account(id storage.SegmentID, s *segment, sh shard, sign int) {
	u, size := s.owner, int64(sign)*sh.bytes
	c.used += size
	if s.job > 0 {
		u.jobs += size
		c.jobs.account(vaultKey{u.owner, s.vault.Value()}, id, s.job, sign)
	}
	if sh.since == 0 {
		u.shards, u.bytes, c.shards = u.shards+sign, u.bytes+size, c.shards+sign
	} else {
		u.trashed, u.trash, c.trashed = u.trashed+sign, u.trash+size, c.trashed+sign
	}
}

// remove takes a shard out of where it is, if it is
// still the same in the same place.
func (c *catalogue) remove(id storage.SegmentID, sh shard) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.take(id, sh)
	return ok
}

// take is remove with c.mu held; it returns the segment.
func (c *catalogue) take(id storage.SegmentID, sh shard) (*segment, bool) {
	from := *c.place(sh)
	s := from[id]
	if s == nil {
		return nil, false
	}
	at, found := findShard(s.shards, sh.index)
	if !found || s.shards[at] != sh {
		return nil, false
	}
	s.shards = slices.Delete(s.shards, at, at+1)
	if len(s.shards) == 0 {
		delete(from, id)
	}
	c.account(id, s, sh, -1)
	return s, true
}

// move enters that a shard is in another place now: since says from when on, 0
// that it is stored. It stays the same generation.
func (c *catalogue) move(id storage.SegmentID, sh shard, since time.Duration, surplus bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.take(id, sh)
	if !ok {
		return
	}
	sh.since, sh.surplus = since, surplus
	c.insert(*c.place(sh), id, *s, sh)
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
	enter := func(shards []shard, state storage.ShardState) {
		for _, shard := range shards {
			if at, found := slices.BinarySearchFunc(out, shard.index, func(a storage.ShardAnswer, index int) int {
				return cmp.Compare(a.Index, index)
			}); !found {
				out = slices.Insert(out, at, storage.ShardAnswer{Index: shard.index, State: state})
			}
		}
	}
	if s := c.segments[id]; s != nil {
		enter(s.shards, storage.ShardStored)
	}
	if s := c.trash[id]; s != nil {
		enter(s.shards, storage.ShardTrash)
	}
	enter(c.bad[id], storage.ShardBad)
	return out
}

// of returns the shards of a segment, those stored and those in the trash, with
// what is known of it, also when all are surplus; the zero segment when there
// are none.
func (c *catalogue) of(id storage.SegmentID) (like segment, stored, trash []shard) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if s := c.surplus[id]; s != nil {
		like = *s
	}
	if s := c.trash[id]; s != nil {
		like, trash = *s, slices.Clone(s.shards)
	}
	if s := c.segments[id]; s != nil {
		like, stored = *s, slices.Clone(s.shards)
	}
	like.shards = nil
	return like, stored, trash
}

// placed is one shard with its segment.
type placed struct {
	id    storage.SegmentID
	shard shard
}

// compare orders shards by segment and index.
func (p placed) compare(other placed) int {
	return cmp.Or(bytes.Compare(p.id[:], other.id[:]), cmp.Compare(p.shard.index, other.shard.index))
}

// collect returns the shards in one of the maps for which keep holds, by rising
// id.
func (c *catalogue) collect(from map[storage.SegmentID]*segment, keep func(*segment, shard) bool) []placed {
	c.mu.RLock()
	var out []placed
	for id, s := range from {
		for _, shard := range s.shards {
			if keep(s, shard) {
				out = append(out, placed{id, shard})
			}
		}
	}
	c.mu.RUnlock()
	slices.SortFunc(out, placed.compare)
	return out
}
