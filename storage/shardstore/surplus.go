package shardstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"gotong/storage"
)

// Surplus is a shard that was set aside because another holder has the same. It
// is neither served nor said to be here, so nobody can prove with it that they
// have it; it counts in the quota and the pledge like the trash.
type Surplus struct {
	Index int
	// Left is how much of the floor in the segment's header is left, by running
	// time; 0: it has passed.
	Left time.Duration
}

// surplusPath returns the file of a shard that was set aside at since.
func surplusPath(id storage.ShardID, since time.Duration) string {
	return surplusDir + "/" + fanOut(id.Segment) + "/" + timedName(id, since)
}

// SetAside moves a stored shard of which another holder has the same out of use.
// TakeBack undoes that at any time, Discard ends it. storage.ErrNotFound when it
// is not stored. The move is not synced: after a power cut the shard is in one of
// the two places.
func (s *Store) SetAside(_ context.Context, id storage.ShardID) error {
	if err := s.setSurplus(id); err != nil {
		return &storage.Error{Op: "set aside", Shard: id, Err: err}
	}
	return nil
}

func (s *Store) setSurplus(id storage.ShardID) error {
	if err := s.checkWrite(); err != nil {
		return err
	}
	release := s.cat.claim(id)
	defer release()
	found, ok := s.cat.lookup(id)
	if !ok {
		return storage.ErrNotFound
	}
	if old, twice := s.cat.surplusShard(id); twice { // it came again while it was set aside
		if err := s.fs.Remove(old.path(id.Segment)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return ioFailed(err)
		}
		s.cat.remove(id.Segment, old)
	}
	if err := s.makeDir(surplusDir, fanOut(id.Segment)); err != nil {
		return err
	}
	since := s.clock.stamp()
	if err := s.fs.Rename(shardPath(id), surplusPath(id, since)); err != nil {
		return ioFailed(err)
	}
	s.cat.move(id.Segment, found, since, true)
	return nil
}

// TakeBack makes a shard that was set aside a stored one again, durably;
// storage.ErrNotFound when there is none.
func (s *Store) TakeBack(_ context.Context, id storage.ShardID) error {
	if err := s.takeBack(id); err != nil {
		return &storage.Error{Op: "take back", Shard: id, Err: err}
	}
	return nil
}

func (s *Store) takeBack(id storage.ShardID) error {
	if _, ok := s.cat.surplusShard(id); !ok {
		return storage.ErrNotFound
	}
	if err := s.checkWrite(); err != nil {
		return err
	}
	release := s.cat.claim(id)
	defer release()
	found, ok := s.cat.surplusShard(id)
	if !ok {
		return storage.ErrNotFound
	}
	if _, stored := s.cat.lookup(id); !stored {
		if err := s.makeDir(shardsDir, fanOut(id.Segment)); err != nil {
			return err
		}
		if err := s.fs.Rename(found.path(id.Segment), shardPath(id)); err != nil {
			return ioFailed(err)
		}
		if err := s.fs.SyncDir(shardDir(id.Segment)); err != nil {
			return s.syncFailed(err)
		}
		s.cat.move(id.Segment, found, 0, false)
		return nil
	}
	if err := s.fs.Remove(found.path(id.Segment)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ioFailed(err)
	}
	s.cat.remove(id.Segment, found)
	return nil
}

// Discard removes a shard that was set aside, for good. It refuses while the
// floor has not passed.
func (s *Store) Discard(_ context.Context, id storage.ShardID) (freed int64, err error) {
	if err := s.checkWrite(); err != nil {
		return 0, &storage.Error{Op: "discard", Shard: id, Err: err}
	}
	left := slices.IndexFunc(s.surplus(id.Segment), func(a Surplus) bool { return a.Index == id.Index && a.Left == 0 })
	found, ok := s.cat.surplusShard(id)
	if left < 0 || !ok {
		return 0, &storage.Error{Op: "discard", Shard: id, Err: fmt.Errorf("nothing is set aside whose floor has passed: %w", storage.ErrNotFound)}
	}
	return s.discard(placed{id.Segment, found})
}

// surplus returns what was set aside of a segment, by index.
func (s *Store) surplus(id storage.SegmentID) (out []Surplus) {
	now := s.clock.now()
	s.cat.mu.RLock()
	defer s.cat.mu.RUnlock()
	if seg := s.cat.surplus[id]; seg != nil {
		for _, sh := range seg.shards {
			out = append(out, Surplus{sh.index, max(0, sh.since+seg.floor-now)})
		}
	}
	return out
}

// surplusOf returns the shards of a segment that were set aside.
func (c *catalogue) surplusOf(id storage.SegmentID) []shard {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if s := c.surplus[id]; s != nil {
		return slices.Clone(s.shards)
	}
	return nil
}

// surplusShard returns a shard that was set aside.
func (c *catalogue) surplusShard(id storage.ShardID) (found shard, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	found, _, ok = lookupIn(c.surplus, id)
	return found, ok
}

// has reports whether a shard is still the same in the same place.
func (c *catalogue) has(p placed) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	now, _, ok := lookupIn(*c.place(p.shard), storage.ShardID{Segment: p.id, Index: p.shard.index})
	return ok && now == p.shard
}
