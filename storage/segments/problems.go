package segments

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// maxProblems bounds the list of problems; the oldest go first.
const maxProblems = 64

// Problem is bytes of a peer that did not verify: its disk or the peer lies.
type Problem struct {
	Peer  grid.PeerID
	Shard storage.ShardID // index −1 when it was about no single shard
	What  string          // in words
	Seen  time.Time       // last
	Count int             // how often
}

// problems collects what status shows. The zero value is empty.
type problems struct {
	mu   sync.Mutex
	list []Problem
}

func (p *problems) add(peer grid.PeerID, shard storage.ShardID, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	count := 1
	p.list = slices.DeleteFunc(p.list, func(known Problem) bool {
		same := known.Peer == peer && known.Shard == shard
		if same {
			count += known.Count
		}
		return same
	})
	if len(p.list) == maxProblems {
		p.list = p.list[1:]
	}
	p.list = append(p.list, Problem{peer, shard, what, time.Now(), count})
}

// Problems returns the shards that peers delivered wrong, the latest last.
func (s *Segments) Problems() []Problem {
	s.problems.mu.Lock()
	defer s.problems.mu.Unlock()
	return slices.Clone(s.problems.list)
}

// lied notes that a peer delivered bytes that do not verify.
func (s *Segments) lied(peer grid.PeerID, shard storage.ShardID, err error) {
	s.cfg.Logger.Warn("peer delivered a bad shard", "peer", peer, "segment", shard.Segment, "shard", shard.Index, "err", err)
	s.problems.add(peer, shard, bare(err).Error())
}

// judge returns why an attempt failed, and notes it when the peer lied.
func (s *Segments) judge(a *attempt, shard storage.ShardID, err error) error {
	if err == nil {
		return nil
	}
	ended := context.Cause(a.ctx) // by whoever waits, perhaps for bad data elsewhere
	if errors.Is(err, storage.ErrCorrupt) && (ended == nil || !errors.Is(err, ended)) {
		s.lied(a.peer, shard, err)
	}
	return cause(a.ctx, err)
}
