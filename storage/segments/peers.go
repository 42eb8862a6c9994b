package segments

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// How long a peer that failed is left alone, doubled with each failure in a
// row.
const (
	backoffMin    = 5 * time.Second
	backoffMax    = 2 * time.Minute
	backoffHung   = 10 * time.Minute // the most for one whose failures cost time
	backoffLying  = 10 * time.Minute
	maxDoublings  = 10
	maxKnownPeers = 4096 // peers remembered; beyond it those in good standing are forgotten
	rateSmoothing = 0.3  // weight of the newest transfer
)

// use is what a peer is wanted for.
type use int

const (
	toPut use = iota
	toGet
	uses
)

// standing is what this side has seen of a peer.
type standing struct {
	failures int
	until    [uses]time.Time // left alone before, for each use
	why      error           // of the latest failure
	rate     float64         // bytes a second, smoothed; 0: not known
	rhythm   *rhythm
}

// peers remembers how each peer did, so that one that hangs costs its wait once
// and not with every segment. The zero value knows nobody.
type peers struct {
	mu    sync.Mutex
	known map[grid.PeerID]*standing
}

func (p *peers) get(peer grid.PeerID) *standing {
	if s, ok := p.known[peer]; ok {
		return s
	}
	if p.known == nil || len(p.known) >= maxKnownPeers {
		kept := map[grid.PeerID]*standing{}
		for id, s := range p.known {
			if s.failures > 0 {
				kept[id] = s
			}
		}
		if len(kept) >= maxKnownPeers {
			clear(kept)
		}
		p.known = kept
	}
	s := &standing{rhythm: new(rhythm)}
	p.known[peer] = s
	return s
}

// rhythmOf returns where transfers with a peer note that something moved.
func (p *peers) rhythmOf(peer grid.PeerID) *rhythm {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.get(peer).rhythm
}

// worked notes a transfer that went well.
func (p *peers) worked(peer grid.PeerID, size int, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.get(peer)
	s.failures, s.until, s.why = 0, [uses]time.Time{}, nil
	s.rhythm.forget()
	rate := float64(size) / max(took.Seconds(), 1e-6)
	if s.rate == 0 {
		s.rate = rate
	}
	s.rate += rateSmoothing * (rate - s.rate)
}

// failed notes a transfer that did not. What concerns only one segment says
// nothing of the peer; a peer that refuses shards may well give some, and one
// that gave a bad one may well take others.
func (p *peers) failed(peer grid.PeerID, err error, what use) {
	pause, affected := backoffMin, []use{toPut, toGet}
	switch {
	case is(err, errLied):
		pause = backoffLying
	case is(err, storage.ErrNotFound, storage.ErrDeleted, errSkipped, errEnough):
		return
	case is(err, storage.ErrCorrupt) && what == toGet:
		pause, affected = backoffLying, []use{toGet}
	case is(err, storage.ErrQuota, storage.ErrFull, storage.ErrDenied, storage.ErrDisk, errStraggler):
		affected = []use{what}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.get(peer).leaveAlone(pause, affected, err)
}

// leaveAlone begins a pause. What fails during one was begun before it or is a
// last resort, and says nothing new: a hundred transfers that break with one
// connection are one failure.
func (s *standing) leaveAlone(pause time.Duration, affected []use, err error) {
	now, news := time.Now(), false
	for _, u := range affected {
		news = news || !now.Before(s.until[u])
	}
	if !news && pause != backoffLying {
		return
	}
	if pause != backoffLying {
		most := backoffMax
		if is(err, ErrTimeout, errStraggler) {
			most = backoffHung
		}
		pause = min(pause<<min(s.failures, maxDoublings), most)
	}
	for _, u := range affected {
		if until := now.Add(pause); until.After(s.until[u]) {
			s.until[u] = until
		}
	}
	s.failures++
	s.why = err
}

// forgive ends a pause that is not for a lie.
func (p *peers) forgive(peer grid.PeerID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.known[peer]; ok && !is(s.why, errLied, storage.ErrCorrupt) {
		s.failures, s.until, s.why = 0, [uses]time.Time{}, nil
	}
}

func is(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// skip returns why the peer is better left alone for now; nil: it is not.
func (p *peers) skip(peer grid.PeerID, what use) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.known[peer]
	if !ok || !time.Now().Before(s.until[what]) {
		return nil
	}
	return fmt.Errorf("%w: %w", errSkipped, s.why)
}

// rate returns the speed of a peer in bytes a second; 0 when it is not known.
func (p *peers) rate(peer grid.PeerID) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.known[peer]; ok {
		return s.rate
	}
	return 0
}
