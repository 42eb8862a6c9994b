package segments

import (
	"context"
	"slices"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// answersWanted is how many peers must have answered before anybody is called
// slow: a head counts as published when two others have it.
const answersWanted = 2

const (
	gatherMin = 2  // times HedgeMin that a peer has at least for its answer
	doubtful  = 10 // part of it that a peer has that failed a moment ago
)

// gather puts one question to all of the given peers and calls each with the
// answers until all are there, each within limit, or each returns an error. Once
// enough have answered it does not wait for peers that take much longer, and
// hardly for those that failed a moment ago.
func gather[T any](ctx context.Context, s *Segments, peers []grid.PeerID, limit time.Duration,
	question func(context.Context, storage.RemoteShards) (T, error), each func(found[T]) error) error {
	p := patience{s: s, began: time.Now(), all: len(peers), waiting: slices.Clone(peers)}
	answers := ask(ctx, s, peers, limit, question)
	alarm := newAlarm()
	defer alarm.at(time.Time{})
	for {
		select {
		case a, ok := <-answers:
			if !ok {
				return nil
			}
			p.answered(a.peer, a.err)
			if err := each(a); err != nil {
				return err
			}
		case <-alarm.at(p.until()):
			p.giveUp()
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// patience decides how long gather waits for the last answers.
type patience struct {
	s       *Segments
	began   time.Time
	all     int
	waiting []grid.PeerID
	good    int           // answers
	slowest time.Duration // of the answers
}

func (p *patience) answered(peer grid.PeerID, err error) {
	p.waiting = slices.DeleteFunc(p.waiting, func(other grid.PeerID) bool { return other == peer })
	if err != nil {
		p.s.peers.failed(peer, err, toGet)
		return
	}
	p.good++
	p.slowest = time.Since(p.began)
}

// until returns when to stop waiting; the zero time means not yet known.
func (p *patience) until() time.Time {
	done := p.all - len(p.waiting)
	if p.good < answersWanted || 2*done < p.all {
		return time.Time{}
	}
	least := gatherMin * p.s.cfg.HedgeMin
	if !slices.ContainsFunc(p.waiting, p.trusted) {
		least /= doubtful
	}
	return p.began.Add(max(least, time.Duration(p.s.cfg.HedgeFactor*float64(p.slowest))))
}

func (p *patience) trusted(peer grid.PeerID) bool { return p.s.peers.skip(peer, toGet) == nil }

// giveUp remembers who did not answer in time.
func (p *patience) giveUp() {
	for _, peer := range p.waiting {
		if p.trusted(peer) {
			p.s.peers.failed(peer, ErrTimeout, toGet)
		}
	}
}
