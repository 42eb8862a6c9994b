package shardstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// Held is a segment of which shards are stored here.
type Held struct {
	ID     storage.SegmentID
	Vault  storage.VaultID
	Owner  grid.OwnerID
	Job    bool  // of a job: its vault is the job's id, and nobody deletes it
	Shards []int // rising; those in the trash are not among them
	// Surplus are shards that were set aside because another holder has them.
	Surplus []Surplus
}

// Segments yields the segments of which shards are stored or surplus, ordered by
// id, or one error last. It reads no file. What is stored meanwhile may be missing; what
// has expired is left out, because nobody wants it repaired.
func (s *Store) Segments(ctx context.Context) iter.Seq2[Held, error] {
	return func(yield func(Held, error) bool) {
		for _, id := range s.cat.ids() {
			if err := errors.Join(ctx.Err(), s.check()); err != nil {
				yield(Held{}, fmt.Errorf("list segments: %w", err))
				return
			}
			like, stored, _ := s.cat.of(id)
			surplus := s.surplus(id)
			if len(stored)+len(surplus) == 0 || like.expired(time.Now().Unix()) {
				continue // gone meanwhile, or soon
			}
			held := Held{ID: id, Vault: like.vault.Value(), Owner: like.owner.owner, Job: like.job > 0,
				Shards: make([]int, len(stored)), Surplus: surplus}
			for i, shard := range stored {
				held.Shards[i] = shard.index
			}
			if !yield(held, nil) {
				return
			}
		}
	}
}

// ids returns the segments of which shards are stored or surplus, in order.
func (c *catalogue) ids() []storage.SegmentID {
	c.mu.RLock()
	ids := make([]storage.SegmentID, 0, len(c.segments))
	for id := range c.segments {
		ids = append(ids, id)
	}
	for id := range c.surplus {
		if c.segments[id] == nil {
			ids = append(ids, id)
		}
	}
	c.mu.RUnlock()
	slices.SortFunc(ids, func(a, b storage.SegmentID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

// Header returns the header of a segment of which this store has a shard, stored,
// in the trash or surplus, and the holder lists kept beside its shards, merged.
// storage.ErrNotFound when there is none, storage.ErrCorrupt when all turned out
// to be bad.
func (s *Store) Header(ctx context.Context, id storage.SegmentID) (storage.SignedHeader, []storage.Holder, error) {
	if err := errors.Join(ctx.Err(), s.check()); err != nil {
		return storage.SignedHeader{}, nil, fmt.Errorf("header of segment %s: %w", id.Short(), err)
	}
	var header storage.SignedHeader
	var holders []storage.Holder
	err := storage.ErrNotFound
	_, stored, trash := s.cat.of(id)
	for _, shard := range slices.Concat(stored, trash, s.cat.surplusOf(id)) {
		shardID := storage.ShardID{Segment: id, Index: shard.index}
		file, found, openErr := s.openPath(shardID, shard)
		if openErr != nil && !shard.surplus {
			file, found, _, openErr = s.openFile(shardID) // it moved, or is bad
		}
		if openErr != nil {
			err = openErr
			continue
		}
		header = found
		holders = storage.MergeHolders(holders, readHolders(file), header.Redundancy.N)
		_ = file.Close() // only read
	}
	if header.IsZero() {
		return header, nil, fmt.Errorf("header of segment %s: %w", id.Short(), err)
	}
	return header, holders, nil
}

// HeldVault is a vault of which this store keeps something.
type HeldVault struct {
	Owner     grid.OwnerID
	Vault     storage.VaultID
	Segments  int    // of which shards are stored
	Deletions uint64 // all deletions up to this number are known
}

// Vaults returns the vaults of which shards are stored, in the trash or surplus, or
// were deleted, ordered by owner and id. Jobs are not among them.
func (s *Store) Vaults() []HeldVault {
	all := map[vaultKey]*HeldVault{}
	of := func(key vaultKey) *HeldVault {
		if all[key] == nil {
			all[key] = &HeldVault{Owner: key.owner, Vault: key.vault}
		}
		return all[key]
	}
	s.cat.mu.RLock()
	for _, seg := range s.cat.segments {
		if seg.job == 0 {
			of(vaultKey{seg.owner.owner, seg.vault.Value()}).Segments++
		}
	}
	for _, away := range []map[storage.SegmentID]*segment{s.cat.trash, s.cat.surplus} {
		for _, seg := range away {
			if seg.job == 0 {
				of(vaultKey{seg.owner.owner, seg.vault.Value()})
			}
		}
	}
	s.cat.mu.RUnlock()
	s.deletions.mu.RLock()
	for key, v := range s.deletions.vaults {
		of(key).Deletions = v.upTo()
	}
	s.deletions.mu.RUnlock()
	out := make([]HeldVault, 0, len(all))
	for _, v := range all {
		out = append(out, *v)
	}
	slices.SortFunc(out, func(a, b HeldVault) int {
		return cmp.Or(bytes.Compare(a.Owner[:], b.Owner[:]), bytes.Compare(a.Vault[:], b.Vault[:]))
	})
	return out
}
