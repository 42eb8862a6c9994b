package membership

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"gotong/grid"

	"github.com/hashicorp/serf/serf"
)

const (
	// rejoinParallel members are tried at once.
	rejoinParallel = 4
	// rejoinIdle is how long the loop waits when nobody is to be tried.
	rejoinIdle = time.Minute
)

// attempt is what is remembered of tries to reach one member.
type attempt struct {
	next   time.Time
	wait   time.Duration
	record uint64 // number of the record that was tried; a newer one is tried at once
}

// rejoinLoop tries members whom gossip does not call alive, at random, with
// growing waits. It is how a restarted peer finds the grid (no member is
// special), how the halves of a partition meet again, and how a member that was
// away for weeks is found: Serf itself forgets it after a day.
func (m *Membership) rejoinLoop(ctx context.Context) {
	attempts := make(map[grid.PeerID]*attempt)
	for ctx.Err() == nil {
		due, wait := m.dueForRejoin(attempts, time.Now())
		m.tryAll(ctx, due, attempts)
		if len(due) > 0 {
			continue // the next ones, without waiting
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-m.rejoinKick:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// dueForRejoin returns up to rejoinParallel random members to try now, else how
// long to wait. Of whom nothing says where it is, the others are asked: news of
// a new member reach everyone only nearly always.
func (m *Membership) dueForRejoin(attempts map[grid.PeerID]*attempt, now time.Time) (due []grid.PeerID, wait time.Duration) {
	away := m.awayMembers()
	for peer := range attempts {
		if _, ok := away[peer]; !ok {
			delete(attempts, peer)
		}
	}
	wait = rejoinIdle
	for peer, record := range away {
		a := attempts[peer]
		if a == nil && len(m.addressesOf(peer)) == 0 {
			m.wantRecord(peer, record+1)
		}
		if a == nil || record > a.record {
			a = &attempt{next: now, record: record}
			attempts[peer] = a
		}
		if until := a.next.Sub(now); until > 0 {
			wait = min(wait, until)
		} else {
			due = append(due, peer)
		}
	}
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	return due[:min(len(due), rejoinParallel)], wait
}

// awayMembers returns the members whom gossip does not call alive, with the
// numbers of their records.
func (m *Membership) awayMembers() map[grid.PeerID]uint64 {
	away := make(map[grid.PeerID]uint64)
	for _, p := range m.Peers() {
		if p.ID != m.self && p.State != grid.StateAlive {
			away[p.ID] = p.Record.Number
		}
	}
	return away
}

func (m *Membership) tryAll(ctx context.Context, peers []grid.PeerID, attempts map[grid.PeerID]*attempt) {
	failed := make([]error, len(peers))
	var wg sync.WaitGroup
	for i, peer := range peers {
		wg.Go(func() { failed[i] = m.rejoin(ctx, peer) })
	}
	wg.Wait()
	now := time.Now()
	for i, peer := range peers {
		a := attempts[peer]
		if failed[i] != nil {
			m.cfg.Logger.Debug("member is not reached", "peer", peer, "err", failed[i])
		}
		// A success is waited for too: gossip needs a moment to see it.
		a.wait = min(max(2*a.wait, m.cfg.Timers.RejoinMin), m.cfg.Timers.RejoinMax)
		a.next = now.Add(a.wait/2 + rand.N(a.wait/2+1))
	}
}

// rejoin connects to a member, exchanges gossip state with it, and then roster
// and records: whoever was away tells its new address and learns what it missed.
func (m *Membership) rejoin(ctx context.Context, peer grid.PeerID) error {
	s, t, ok := m.running()
	if !ok {
		return ErrRunning
	}
	if err := t.connect(ctx, peer); err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	if err := m.join(s, peer); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	kick(m.dirty)
	return m.syncWith(ctx, peer)
}

// join exchanges gossip state with a peer. Serf takes one at a time.
func (m *Membership) join(s *serf.Serf, peer grid.PeerID) error {
	m.joining.take()
	defer m.joining.give()
	_, err := s.Join([]string{joinName(peer)}, true)
	return err
}
