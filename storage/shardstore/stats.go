package shardstore

import (
	"math"

	"gotong/grid"
)

// Stats is what a store holds now. Bytes are bytes on disk.
type Stats struct {
	Shards        int
	Bad           int                      // set aside
	Bytes         int64                    // of all files, those set aside and heads included
	ReservedBytes int64                    // for shards being written
	CapacityBytes int64                    // 0: no limit but the disk
	FreeBytes     int64                    // what it would still take
	Suspect       bool                     // a sync failed: nothing is taken until restart
	Owners        map[grid.OwnerID]Holding // for whom
}

// Holding is what a store holds for one owner.
type Holding struct {
	Shards    int
	Bytes     int64
	HeadBytes int64
}

// Stats returns what the store holds now.
func (s *Store) Stats() Stats {
	free := s.Free()
	c := s.cat
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := Stats{
		Shards: c.shards, Bad: c.badCount, Bytes: c.used, ReservedBytes: c.reserved,
		CapacityBytes: c.capacity, FreeBytes: free, Suspect: s.suspect.Load(),
		Owners: make(map[grid.OwnerID]Holding, len(c.owners)),
	}
	for owner, u := range c.owners {
		if u.shards > 0 || u.heads > 0 {
			out.Owners[owner] = Holding{Shards: u.shards, Bytes: u.bytes, HeadBytes: u.heads}
		}
	}
	return out
}

// Free returns how many bytes the store would still take: what is left of the
// pledge, or of the disk if that is less.
func (s *Store) Free() int64 {
	if s.checkWrite() != nil {
		return 0
	}
	disk := s.diskFree()
	c := s.cat
	c.mu.RLock()
	defer c.mu.RUnlock()
	left := int64(math.MaxInt64)
	if c.capacity > 0 {
		left = c.capacity - c.used - c.reserved
	}
	return max(0, min(left, disk-c.reserved))
}
