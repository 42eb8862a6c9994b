package shardstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// trashDirOf returns the directory in the trash for the shards of a segment.
func trashDirOf(id storage.SegmentID) string { return trashDir + "/" + fanOut(id) }

// trashPath returns the file of a shard that went to the trash at since: the
// name has the time, so that one rename moves the shard and notes when.
func trashPath(id storage.ShardID, since time.Duration) string {
	return trashDirOf(id.Segment) + "/" + timedName(id, since)
}

// timedName returns the name of a file that went where it is at since.
func timedName(id storage.ShardID, since time.Duration) string {
	return id.String() + "." + strconv.FormatInt(int64(since/time.Second), 10)
}

// parseTrashName reads the name of a file in the trash, or of a surplus one.
func parseTrashName(name string) (id storage.ShardID, since time.Duration, err error) {
	at := strings.LastIndexByte(name, '.')
	if at < 0 {
		return id, 0, fmt.Errorf("%q has no time", name)
	}
	if id, err = storage.ParseShardID(name[:at]); err != nil {
		return id, 0, err
	}
	seconds, err := strconv.ParseUint(name[at+1:], 10, 64)
	if err != nil || seconds == 0 || seconds > maxSeconds || strconv.FormatUint(seconds, 10) != name[at+1:] {
		return id, 0, fmt.Errorf("%q has no time", name)
	}
	return id, time.Duration(seconds) * time.Second, nil
}

// scanAway enters the shards that are in the trash, or those that are surplus.
func (s *Store) scanAway(root string) error {
	dirs, err := s.fs.ReadDir(root)
	if err != nil {
		return err
	}
	page := make([]byte, pageBytes)
	for _, dir := range dirs {
		if !dir.IsDir() {
			continue
		}
		path := root + "/" + dir.Name()
		entries, err := s.fs.ReadDir(path)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			id, since, err := parseTrashName(entry.Name())
			if err != nil || fanOut(id.Segment) != dir.Name() || !entry.Type().IsRegular() {
				s.log.Warn("foreign file in "+root, "file", path+"/"+entry.Name())
				continue
			}
			if err := s.scanOneAway(id, since, root == surplusDir, page); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) scanOneAway(id storage.ShardID, since time.Duration, surplus bool, page []byte) error {
	path := shard{index: id.Index, since: since, surplus: surplus}.path(id.Segment)
	f, err := s.fs.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("shard file %s: %w", path, err)
	}
	defer f.Close()
	header, err := readHeader(f, id, page)
	if err != nil {
		size, _ := f.Size() // only for the account
		s.setAside(id, path, grid.OwnerID{}, size, err)
		return nil
	}
	s.clock.note(since)
	if !s.cat.addAway(header, id.Index, since, surplus) {
		return s.fs.Remove(path) // a second name of the same
	}
	return nil
}

// trashDeleted finishes what a process that was killed began: it moves to the
// trash what a known deletion names and is still stored.
func (s *Store) trashDeleted() {
	if len(s.deletions.named) == 0 {
		return
	}
	all := func(*segment, shard) bool { return true }
	for _, p := range append(s.cat.collect(s.cat.segments, all), s.cat.collect(s.cat.surplus, all)...) {
		like, _, _ := s.cat.of(p.id)
		if !s.deletions.deleted(like.owner.owner, like.vault.Value(), p.id) {
			continue
		}
		if err := s.trashOne(storage.ShardID{Segment: p.id, Index: p.shard.index}); err != nil {
			s.log.Error("deleted shard cannot be moved to the trash", "segment", p.id, "shard", p.shard.index, "err", err)
			s.problems.add(Problem{What: "deleted shard cannot be moved to the trash", Why: err.Error(),
				Shard: storage.ShardID{Segment: p.id, Index: p.shard.index}, Owner: like.owner.owner})
		}
	}
}

// trashOne moves a shard of a deleted segment, stored or surplus, to the trash.
func (s *Store) trashOne(id storage.ShardID) error {
	release := s.cat.claim(id)
	defer release()
	found, ok := s.cat.lookup(id)
	if !ok {
		found, ok = s.cat.surplusShard(id)
	}
	if !ok {
		return nil
	}
	if err := s.makeDir(trashDir, fanOut(id.Segment)); err != nil {
		return err
	}
	since := s.clock.stamp()
	_, _, trash := s.cat.of(id.Segment)
	if at, twice := findShard(trash, id.Index); twice {
		// After a power cut a file may have both names.
		since = trash[at].since
		s.cat.remove(id.Segment, trash[at])
	}
	if err := s.fs.Rename(found.path(id.Segment), trashPath(id, since)); err != nil {
		return ioFailed(err)
	}
	s.cat.move(id.Segment, found, since, false)
	return nil
}

// Trashed is what the trash has of one owner, and what is surplus.
type Trashed struct {
	Shards int
	Bytes  int64         // on disk
	First  time.Duration // of running time until the first is freed
	Last   time.Duration // until all are
}

// Trash returns what the trash has, by owner, surplus shards included.
func (s *Store) Trash() map[grid.OwnerID]Trashed {
	now, out := s.clock.now(), map[grid.OwnerID]Trashed{}
	s.cat.mu.RLock()
	defer s.cat.mu.RUnlock()
	for _, place := range []map[storage.SegmentID]*segment{s.cat.trash, s.cat.surplus} {
		for _, seg := range place {
			t, known := out[seg.owner.owner]
			for _, sh := range seg.shards {
				left := max(0, sh.since+seg.floor-now)
				t.Shards, t.Bytes, t.Last = t.Shards+1, t.Bytes+sh.bytes, max(t.Last, left)
				if !known || left < t.First {
					t.First, known = left, true
				}
			}
			out[seg.owner.owner] = t
		}
	}
	return out
}

// EmptyTrash frees the shards in the trash whose floor has passed on the running
// clock, or with all, which only the donor decides, every one and what is
// surplus. It also frees
// what has expired and forgets deletions that are too old to be remembered. It
// returns the bytes freed, also beside an error, and is called from time to time.
func (s *Store) EmptyTrash(ctx context.Context, all bool) (freed int64, err error) {
	now := s.clock.now()
	freed, err = s.emptyTrash(ctx, func(seg *segment, sh shard) bool { return all || (!sh.surplus && sh.since+seg.floor <= now) })
	if err != nil {
		return freed, err
	}
	gone, err := s.expire(ctx)
	freed += gone
	if err != nil {
		return freed, err
	}
	if err := s.deletions.expire(now); err != nil {
		return freed, fmt.Errorf("forget old deletions: %w", err)
	}
	s.clock.tick()
	return freed, nil
}

// EmptyTrashOf frees all that the trash has of an owner, within its floor too:
// the donor's decision. It returns the bytes freed, also beside an error.
func (s *Store) EmptyTrashOf(ctx context.Context, owner grid.OwnerID) (freed int64, err error) {
	return s.emptyTrash(ctx, func(seg *segment, _ shard) bool { return seg.owner.owner == owner })
}

func (s *Store) emptyTrash(ctx context.Context, due func(*segment, shard) bool) (freed int64, err error) {
	if err := s.checkWrite(); err != nil {
		return 0, fmt.Errorf("empty the trash: %w", err)
	}
	for _, p := range append(s.cat.collect(s.cat.trash, due), s.cat.collect(s.cat.surplus, due)...) {
		if err := errors.Join(ctx.Err(), s.checkWrite()); err != nil {
			return freed, fmt.Errorf("empty the trash: %w", err)
		}
		n, err := s.discard(p)
		freed += n
		if err != nil {
			return freed, fmt.Errorf("empty the trash: %w", err)
		}
	}
	return freed, nil
}

// discard removes the file of a shard for good. Nobody waits for that to be
// durable: what comes back after a power cut is discarded again.
func (s *Store) discard(p placed) (freed int64, err error) {
	id := storage.ShardID{Segment: p.id, Index: p.shard.index}
	release := s.cat.claim(id)
	defer release()
	if !s.cat.has(p) {
		return 0, nil
	}
	if err := s.fs.Remove(p.shard.path(p.id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, ioFailed(err)
	}
	s.cat.remove(p.id, p.shard)
	return p.shard.bytes, nil
}

// inTrash reports whether the trash has something of a segment.
func (c *catalogue) inTrash(id storage.SegmentID) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.trash[id] != nil
}
