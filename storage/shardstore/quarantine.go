package shardstore

import (
	"errors"
	"io/fs"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// maxProblems bounds the list of problems; the oldest go first.
const maxProblems = 64

// Problem is something that a person should know about this store.
type Problem struct {
	What  string
	Why   string
	Shard storage.ShardID // zero: not about one shard
	Owner grid.OwnerID    // zero: not known
	Since time.Time
}

type problemList struct {
	mu   sync.Mutex
	list []Problem
}

func (p *problemList) add(problem Problem) {
	problem.Since = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.list) >= maxProblems {
		p.list = slices.Delete(p.list, 0, 1)
	}
	p.list = append(p.list, problem)
}

// Problems returns what went wrong since the store was opened, oldest first.
func (s *Store) Problems() []Problem {
	s.problems.mu.Lock()
	defer s.problems.mu.Unlock()
	return slices.Clone(s.problems.list)
}

// quarantine takes a shard that turned out to be bad out of the catalogue, if
// it is still the one in which the fault was found, and sets its file aside. A
// shard whose file was missing only because it was just being moved is not bad;
// then, and when somebody else noticed too, the result is false.
func (s *Store) quarantine(id storage.ShardID, gen generation, cause error) bool {
	release := s.cat.claim(id)
	defer release()
	now, owner, ok := s.cat.find(id)
	if !ok || now.gen != gen {
		return false
	}
	if errors.Is(cause, fs.ErrNotExist) && s.exists(now.path(id.Segment)) {
		return false
	}
	s.cat.remove(id.Segment, now)
	s.setAside(id, now.path(id.Segment), owner, now.bytes, cause)
	return true
}

// exists reports whether a file is there, as far as that can be told.
func (s *Store) exists(name string) bool {
	f, err := s.fs.Open(name)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	_ = f.Close() // only opened
	return true
}

// setAside moves the file of a bad shard to bad/, where a person can look at
// it, or deletes it when too many are there. If even that fails the fault is
// found again at the next Open.
func (s *Store) setAside(id storage.ShardID, path string, owner grid.OwnerID, size int64, cause error) {
	s.log.Error("bad shard set aside", "segment", id.Segment, "shard", id.Index, "owner", owner, "err", cause)
	s.problems.add(Problem{What: "stored shard is bad", Why: cause.Error(), Shard: id, Owner: owner})
	var err error
	if s.cat.addBad(id, size) {
		err = s.fs.Rename(path, badPath(id))
	} else {
		err = s.fs.Remove(path)
	}
	if err != nil {
		s.log.Error("bad shard cannot be moved", "segment", id.Segment, "shard", id.Index, "err", err)
	}
}

// forgetBad removes what was set aside of a shard that is stored again. It is
// only an old file, so a failure is not worth more than a line in the log.
func (s *Store) forgetBad(id storage.ShardID) {
	if !s.cat.removeBad(id) {
		return
	}
	if err := s.fs.Remove(badPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("old bad shard cannot be removed", "segment", id.Segment, "shard", id.Index, "err", err)
	}
}
