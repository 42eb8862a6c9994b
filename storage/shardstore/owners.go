package shardstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/storage"
)

// DropOwner removes all that is kept for an owner, the trash, heads and
// deletions too, and returns what that was. It is the donor's decision, or that
// of the grid about an owner who was removed; others repair what is missing then.
// After an error some of it is left.
func (s *Store) DropOwner(ctx context.Context, owner grid.OwnerID) (Holding, error) {
	dropped, err := s.dropOwner(ctx, owner)
	if err != nil {
		return dropped, fmt.Errorf("drop owner %s: %w", owner.Short(), err)
	}
	return dropped, nil
}

func (s *Store) dropOwner(ctx context.Context, owner grid.OwnerID) (dropped Holding, err error) {
	before := s.Stats().Owners[owner]
	defer func() { dropped = before.less(s.Stats().Owners[owner]) }()
	if err := s.dropShards(ctx, owner); err != nil {
		return dropped, err
	}
	if err := s.heads.forget(owner); err != nil {
		return dropped, err
	}
	return dropped, s.deletions.forget(owner)
}

// dropShards removes the shards of an owner, stored, in the trash or surplus.
func (s *Store) dropShards(ctx context.Context, owner grid.OwnerID) error {
	dirs := map[string]bool{} // in which names went away
	// The trash first and deletions last: what was deleted must not come back.
	for _, place := range []map[storage.SegmentID]*segment{s.cat.trash, s.cat.surplus, s.cat.segments} {
		for _, p := range s.cat.collect(place, func(seg *segment, _ shard) bool { return seg.owner.owner == owner }) {
			if err := errors.Join(ctx.Err(), s.checkWrite()); err != nil {
				return err
			}
			if _, err := s.discard(p); err != nil {
				return err
			}
			dirs[path.Dir(p.shard.path(p.id))] = true
		}
	}
	for dir := range dirs {
		if err := s.fs.SyncDir(dir); err != nil {
			return s.syncFailed(err)
		}
	}
	return nil
}

// less returns h without what other has.
func (h Holding) less(other Holding) Holding {
	return Holding{
		Shards: h.Shards - other.Shards, Bytes: h.Bytes - other.Bytes,
		TrashShards: h.TrashShards - other.TrashShards, TrashBytes: h.TrashBytes - other.TrashBytes,
		JobBytes: h.JobBytes - other.JobBytes, HeadBytes: h.HeadBytes - other.HeadBytes, DeletionBytes: h.DeletionBytes - other.DeletionBytes,
	}
}

const (
	removedName    = "removed"
	ownerTime      = 32 + 8 // owner, seconds
	maxNotedOwners = 4096   // in one file
	maxOwnerTimes  = 32 + maxNotedOwners*ownerTime + 1
)

// removedOwners is since when owners are known to be removed from the grid.
type removedOwners struct {
	mu    sync.Mutex
	since map[grid.OwnerID]time.Duration
}

// NoteRemoved says which of the owners for whom something is kept are removed
// from the grid at present, and returns for how long that was said of each, by
// running time, restarts included. An owner that is not among them is forgotten.
// The caller drops an owner for whom that is long enough.
func (s *Store) NoteRemoved(owners []grid.OwnerID) (map[grid.OwnerID]time.Duration, error) {
	if err := s.checkWrite(); err != nil {
		return nil, fmt.Errorf("note removed owners: %w", err)
	}
	if len(owners) > maxNotedOwners {
		owners = owners[:maxNotedOwners]
	}
	r := &s.removed
	r.mu.Lock()
	defer r.mu.Unlock()
	now := s.clock.stamp()
	next := make(map[grid.OwnerID]time.Duration, len(owners))
	for _, owner := range owners {
		since, known := r.since[owner]
		if !known {
			since = now
		}
		next[owner] = since
	}
	if !maps.Equal(next, r.since) {
		if err := s.writeFile(removedName, encodeOwnerTimes(next)); err != nil {
			return nil, fmt.Errorf("note removed owners: %w", ioFailed(err))
		}
		r.since = next
	}
	out := make(map[grid.OwnerID]time.Duration, len(next))
	for owner, since := range next {
		out[owner] = max(0, now-since)
	}
	s.clock.tick()
	return out, nil
}

// encodeOwnerTimes writes a time for each of some owners, and BLAKE3 of it all.
func encodeOwnerTimes(since map[grid.OwnerID]time.Duration) []byte {
	var b []byte
	for _, owner := range slices.SortedFunc(maps.Keys(since), func(a, b grid.OwnerID) int { return bytes.Compare(a[:], b[:]) }) {
		b = append(b, owner[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(since[owner]/time.Second))
	}
	sum := blake3.Sum256(b)
	return append(b, sum[:]...)
}

// parseOwnerTimes reads what encodeOwnerTimes wrote.
func parseOwnerTimes(b []byte) (map[grid.OwnerID]time.Duration, error) {
	end := len(b) - 32
	if end < 0 || end%ownerTime != 0 || end > maxNotedOwners*ownerTime || blake3.Sum256(b[:end]) != [32]byte(b[end:]) {
		return nil, fmt.Errorf("%w: list of owners of %d bytes", storage.ErrCorrupt, len(b))
	}
	out := map[grid.OwnerID]time.Duration{}
	for ; end > 0; end -= ownerTime {
		seconds := binary.BigEndian.Uint64(b[32:])
		if seconds > maxSeconds {
			return nil, fmt.Errorf("%w: list of owners", storage.ErrCorrupt)
		}
		out[grid.OwnerID(b)] = time.Duration(seconds) * time.Second
		b = b[ownerTime:]
	}
	return out, nil
}

// loadRemoved reads the file. One that is damaged makes owners stay longer.
func (s *Store) loadRemoved() error {
	b, err := s.readFile(removedName, maxOwnerTimes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.removed.since, err = parseOwnerTimes(b); err != nil {
		s.log.Warn("list of removed owners is damaged and begins anew", "err", err)
		s.problems.add(Problem{What: "list of removed owners begins anew", Why: err.Error()})
	}
	return nil
}
