package shardstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"unique"

	"gotong/storage"
)

// Have implements storage.ShardStater.
func (s *Store) Have(ctx context.Context, ids []storage.SegmentID) ([]storage.SegmentAnswer, error) {
	if len(ids) > storage.MaxHave {
		return nil, fmt.Errorf("have: %d segments at once, at most %d", len(ids), storage.MaxHave)
	}
	answers := make([]storage.SegmentAnswer, len(ids))
	for i, id := range ids {
		err := errors.Join(ctx.Err(), s.check())
		if err == nil {
			answers[i], err = s.answer(id)
		}
		if err != nil {
			return nil, fmt.Errorf("have: %w", err)
		}
	}
	return answers, nil
}

func (s *Store) answer(id storage.SegmentID) (storage.SegmentAnswer, error) {
	answer := storage.SegmentAnswer{Segment: id, Shards: s.cat.states(id)}
	_, stored, trash := s.cat.of(id)
	if len(stored) > 0 {
		if err := s.settle(shardDir(id)); err != nil {
			return answer, err
		}
	}
	for _, shard := range slices.Concat(stored, trash) {
		answer.Holders = storage.MergeHolders(answer.Holders, s.holders(shard.path(id)), storage.MaxShards)
	}
	if len(answer.Shards) == 0 && s.deletions.names(id) {
		answer.Shards = []storage.ShardAnswer{{Index: 0, State: storage.ShardDeleted}}
	}
	return answer, nil
}

// holders returns the holder list kept in the file of a shard. It is a hint:
// what cannot be read is empty.
func (s *Store) holders(path string) []storage.Holder {
	f, err := s.fs.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	return readHolders(f)
}

func readHolders(f File) []storage.Holder {
	var page [pageBytes]byte
	if n, _ := f.ReadAt(page[:], pageBytes); n < pageBytes {
		return nil
	}
	return parseHolderPage(page[:])
}

// mergeHolders writes the holder page in place and does not sync it: a list
// that is lost or torn is asked for anew, so it is not worth a wait.
func (s *Store) mergeHolders(id storage.ShardID, holders []storage.Holder) {
	if len(holders) == 0 {
		return
	}
	s.hintMu.Lock()
	defer s.hintMu.Unlock()
	err := s.rewriteHolders(id, holders)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("holder list cannot be written", "segment", id.Segment, "shard", id.Index, "err", err)
	}
}

func (s *Store) rewriteHolders(id storage.ShardID, holders []storage.Holder) (err error) {
	f, err := s.fs.OpenRW(shardPath(id))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	known := readHolders(f)
	merged := storage.MergeHolders(known, holders, storage.MaxShards)
	if slices.Equal(known, merged) {
		return nil
	}
	var page [pageBytes]byte
	putHolderPage(page[:], merged)
	_, err = f.WriteAt(page[:], pageBytes)
	return err
}

// List implements storage.ShardLister.
func (s *Store) List(ctx context.Context, vault storage.VaultID) iter.Seq2[storage.ShardID, error] {
	handle := unique.Make(vault)
	return s.listed(ctx, func() []placed {
		return s.cat.collect(s.cat.segments, func(seg *segment, _ shard) bool { return seg.vault == handle })
	})
}

// All yields every shard that is kept, stored or in the trash, ordered by id.
func (s *Store) All(ctx context.Context) iter.Seq2[storage.ShardID, error] {
	all := func(*segment, shard) bool { return true }
	return s.listed(ctx, func() []placed {
		kept := append(s.cat.collect(s.cat.segments, all), s.cat.collect(s.cat.trash, all)...)
		slices.SortFunc(kept, placed.compare)
		return slices.CompactFunc(kept, func(a, b placed) bool { return a.compare(b) == 0 })
	})
}

func (s *Store) listed(ctx context.Context, collect func() []placed) iter.Seq2[storage.ShardID, error] {
	return func(yield func(storage.ShardID, error) bool) {
		for _, p := range collect() {
			if err := errors.Join(ctx.Err(), s.check()); err != nil {
				yield(storage.ShardID{}, fmt.Errorf("list: %w", err))
				return
			}
			if !yield(storage.ShardID{Segment: p.id, Index: p.shard.index}, nil) {
				return
			}
		}
	}
}

// DeleteShard implements storage.ShardDeleter: a stored shard, or what was set
// aside of one. It is this peer's own decision; nothing goes to the trash and no
// deletion is remembered.
func (s *Store) DeleteShard(_ context.Context, id storage.ShardID) error {
	if err := s.deleteShard(id); err != nil {
		return &storage.Error{Op: "delete", Shard: id, Err: err}
	}
	return nil
}

func (s *Store) deleteShard(id storage.ShardID) error {
	if err := s.checkWrite(); err != nil {
		return err
	}
	release := s.cat.claim(id)
	defer release()
	found, ok := s.cat.lookup(id)
	if !ok {
		if !s.cat.isBad(id) {
			return storage.ErrNotFound
		}
		s.forgetBad(id)
		return nil
	}
	if err := s.fs.Remove(shardPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ioFailed(err)
	}
	s.cat.remove(id.Segment, found)
	if err := s.fs.SyncDir(shardDir(id.Segment)); err != nil {
		return s.syncFailed(err)
	}
	return nil
}
