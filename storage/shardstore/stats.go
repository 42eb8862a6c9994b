package shardstore

import (
	"math"

	"gotong/grid"
)

// Stats is what a store holds now. Bytes are bytes on disk.
type Stats struct {
	Shards        int
	TrashShards   int                      // deleted, within their floor, or surplus
	TrashBytes    int64                    // of those
	Bad           int                      // set aside
	Bytes         int64                    // of all files, also those in the trash and set aside, of heads and deletions
	ReservedBytes int64                    // for shards being written
	CapacityBytes int64                    // 0: no limit but the disk
	FreeBytes     int64                    // what it would still take
	Suspect       bool                     // a sync failed: nothing is taken until restart
	Owners        map[grid.OwnerID]Holding // for whom
}

// Holding is what a store holds for one owner.
type Holding struct {
	Shards        int
	Bytes         int64 // of the shards
	TrashShards   int   // besides those
	TrashBytes    int64
	JobBytes      int64 // of all these shards, those of jobs
	HeadBytes     int64
	DeletionBytes int64
}

// Total returns the bytes of all that is held.
func (h Holding) Total() int64 { return h.Bytes + h.TrashBytes + h.HeadBytes + h.DeletionBytes }

// Stats returns what the store holds now.
func (s *Store) Stats() Stats {
	free := s.Free()
	c := s.cat
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := Stats{
		Shards: c.shards, TrashShards: c.trashed, Bad: c.badCount, Bytes: c.used, ReservedBytes: c.reserved,
		CapacityBytes: c.capacity, FreeBytes: free, Suspect: s.suspect.Load(),
		Owners: make(map[grid.OwnerID]Holding, len(c.owners)),
	}
	for owner, u := range c.owners {
		out.TrashBytes += u.trash
		if h := u.holding(); h != (Holding{}) {
			out.Owners[owner] = h
		}
	}
	return out
}

func (u *usage) holding() Holding {
	return Holding{Shards: u.shards, Bytes: u.bytes, TrashShards: u.trashed, TrashBytes: u.trash,
		JobBytes: u.jobs, HeadBytes: u.heads, DeletionBytes: u.deletions}
}

// SetCapacity changes the pledge; 0 means no limit but the disk. What is stored
// beyond a smaller one stays until somebody moves it.
func (s *Store) SetCapacity(bytes int64) {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	s.cat.capacity = max(0, bytes)
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
