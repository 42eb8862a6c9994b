package shardstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"
	"time"

	"gotong/grid"
	"gotong/storage"
)

const givenUpName = "givenup"

// errGivenUp is what an owner hears whose shards are not kept here any more.
var errGivenUp = fmt.Errorf("this peer gave up what it kept for you and takes no more: %w", storage.ErrDenied)

// givenUpOwners is for whom this store keeps no shards, and since when.
type givenUpOwners struct {
	mu    sync.RWMutex
	since map[grid.OwnerID]time.Duration // since 1970
}

// GiveUp removes all shards that are kept for an owner, the trash too, takes no
// more of them until TakeAgain, and returns what was removed. Heads and deletions
// stay and are still taken: they are small, no one else makes up for them, and an
// owner who lost everything finds the vault by them. After an error, or a kill,
// some shards may be left; FreeGivenUp removes them.
func (s *Store) GiveUp(ctx context.Context, owner grid.OwnerID) (Holding, error) {
	if err := s.noteGivenUp(func(since map[grid.OwnerID]time.Duration) error {
		if _, known := since[owner]; !known && len(since) >= maxNotedOwners {
			return fmt.Errorf("%d owners are given up already", len(since))
		} else if !known {
			since[owner] = time.Duration(time.Now().Unix()) * time.Second
		}
		return nil
	}); err != nil {
		return Holding{}, fmt.Errorf("give up owner %s: %w", owner.Short(), err)
	}
	before := s.Stats().Owners[owner]
	err := s.dropShards(ctx, owner)
	gone := before.less(s.Stats().Owners[owner])
	gone.HeadBytes, gone.DeletionBytes = 0, 0 // of which some may just have come
	if err != nil {
		return gone, fmt.Errorf("give up owner %s: %w", owner.Short(), err)
	}
	return gone, nil
}

// TakeAgain ends what GiveUp began and reports whether it was so.
func (s *Store) TakeAgain(owner grid.OwnerID) (was bool, err error) {
	err = s.noteGivenUp(func(since map[grid.OwnerID]time.Duration) error {
		_, was = since[owner]
		delete(since, owner)
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("take shards of owner %s again: %w", owner.Short(), err)
	}
	return was, nil
}

// GivenUp returns the owners of whom no shards are taken, and since when.
func (s *Store) GivenUp() map[grid.OwnerID]time.Time {
	s.givenUp.mu.RLock()
	defer s.givenUp.mu.RUnlock()
	out := make(map[grid.OwnerID]time.Time, len(s.givenUp.since))
	for owner, since := range s.givenUp.since {
		out[owner] = time.Unix(int64(since/time.Second), 0)
	}
	return out
}

// Takes reports whether shards of an owner are taken at all.
func (s *Store) Takes(owner grid.OwnerID) bool {
	s.givenUp.mu.RLock()
	defer s.givenUp.mu.RUnlock()
	_, given := s.givenUp.since[owner]
	return !given
}

// FreeGivenUp removes shards of owners who were given up that are still here: a
// GiveUp was interrupted, or one was just being written. It is called from time
// to time.
func (s *Store) FreeGivenUp(ctx context.Context) (freed int64, err error) {
	owners := s.Stats().Owners
	for owner := range s.GivenUp() {
		held := owners[owner]
		if held.Shards+held.TrashShards == 0 {
			continue
		}
		err = errors.Join(err, s.dropShards(ctx, owner))
		gone := held.less(s.Stats().Owners[owner])
		freed += gone.Bytes + gone.TrashBytes
	}
	if err != nil {
		return freed, fmt.Errorf("free what was given up: %w", err)
	}
	return freed, nil
}

// noteGivenUp changes the list, durably before it counts.
func (s *Store) noteGivenUp(change func(map[grid.OwnerID]time.Duration) error) error {
	if err := s.checkWrite(); err != nil {
		return err
	}
	g := &s.givenUp
	g.mu.Lock()
	defer g.mu.Unlock()
	next := map[grid.OwnerID]time.Duration{}
	maps.Copy(next, g.since)
	if err := change(next); err != nil || maps.Equal(next, g.since) {
		return err
	}
	if err := s.writeFile(givenUpName, encodeOwnerTimes(next)); err != nil {
		return ioFailed(err)
	}
	g.since = next
	return nil
}

// loadGivenUp reads the file. With one that is damaged shards are taken again.
func (s *Store) loadGivenUp() error {
	b, err := s.readFile(givenUpName, maxOwnerTimes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.givenUp.since, err = parseOwnerTimes(b); err != nil {
		s.log.Warn("list of owners who were given up is damaged and begins anew", "err", err)
		s.problems.add(Problem{What: "for whom nothing is to be kept here is forgotten; say it again with gotong drop", Why: err.Error()})
	}
	return nil
}
