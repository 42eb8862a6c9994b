package scheduler

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"gotong/tasks"
)

// How workers that have tasks of a former driver are looked for.
const (
	// reclaimMost is how long nothing else is begun meanwhile: a worker notices
	// within LeaseTTL that its caller is silent.
	reclaimMost = LeaseTTL + 5*time.Second
	// reclaimAgain is how long a worker is left alone that another caller has.
	reclaimAgain = time.Second
)

// reclaim asks all candidates whether they have tasks of the job and claims those
// that do. It returns when all of these have said which, or after reclaimMost.
func (m *matchmaker) reclaim(ctx context.Context) {
	asking, stop := context.WithTimeout(ctx, reclaimMost)
	defer stop()
	m.mu.Lock()
	candidates := m.free(time.Now())
	for _, c := range candidates {
		m.standing(c.Peer).engaged = true
	}
	m.mu.Unlock()
	places := make(chan struct{}, attemptsAtOnce)
	var asked sync.WaitGroup
	for _, c := range candidates {
		asked.Add(1)
		m.wg.Go(func() { m.reclaimFrom(ctx, asking, c, places, sync.OnceFunc(asked.Done)) })
	}
	all := make(chan struct{})
	go func() {
		asked.Wait()
		close(all)
	}()
	select {
	case <-all:
	case <-asking.Done():
	}
	m.ledger.reclaimed()
}

// reclaimFrom works with one candidate if it has tasks of the job. It calls known
// once that, and which, is known.
func (m *matchmaker) reclaimFrom(ctx, asking context.Context, c Candidate, places chan struct{}, known func()) {
	defer known()
	for {
		select {
		case places <- struct{}{}:
		case <-asking.Done():
			m.letGo(c.Peer, nil)
			return
		}
		offering, cancel := context.WithTimeout(asking, offerTimeout)
		a := ask(offering, m.cfg.Pool, m.ledger.job.Header, c)
		cancel()
		<-places
		if asking.Err() != nil || a.err != nil || a.offer.Left == 0 || !m.mayClaim() {
			m.letGo(c.Peer, unlessOver(asking, a.err))
			return
		}
		err := m.work(ctx, a, known)
		if !errors.Is(err, tasks.ErrBusy) || asking.Err() != nil {
			m.letGo(c.Peer, unlessOver(ctx, err))
			return
		}
		select { // the silent caller has it still
		case <-time.After(reclaimAgain):
		case <-asking.Done():
		}
	}
}

// mayClaim takes an attempt if there may be one more claim.
func (m *matchmaker) mayClaim() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.attempts+m.claims >= m.cfg.Peers {
		return false
	}
	m.attempts++
	return true
}

// reclaimed lets claims have tasks that nobody has begun.
func (l *ledger) reclaimed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reclaiming = false
	l.wakeAll()
}

// takeLeft hands the tasks to c that its worker says to have, as soon as anybody
// might have them and however many they are: most have ended. Those of which
// nothing is wanted any more are ended.
func (l *ledger) takeLeft(c *claim, now time.Time) {
	if len(c.left) == 0 {
		return
	}
	c.left = slices.DeleteFunc(c.left, func(index int) bool {
		e, wanted := l.wantsLeft(c, index)
		if e != nil {
			if order, ok := l.hand(c, e, now); ok && !c.out[index].supplying {
				c.supplied = append(c.supplied, order)
			}
			return true
		}
		if !wanted {
			c.cancels = append(c.cancels, index)
		}
		return !wanted
	})
	c.wakeUp()
}

// takeAllLeft is takeLeft for all claims, since more tasks may be handed out.
func (l *ledger) takeAllLeft() {
	if l.left >= min(l.looked, l.delivered+l.window) {
		return
	}
	l.left = noLeft
	for c := range l.claims {
		l.takeLeft(c, time.Now())
		for _, index := range c.left {
			l.left = min(l.left, index)
		}
	}
}

// noLeft is ledger.left when no claim has any.
const noLeft = math.MaxInt

// wantsLeft takes a task off its queue that the worker of c has left. It returns
// nil when it may not have it now, and false when it never will.
func (l *ledger) wantsLeft(c *claim, index int) (e *entry, wanted bool) {
	l.skipKnown()
	e = l.active[index]
	switch {
	case index < 0 || index >= l.job.Count || l.gaveUp != "" || l.halted:
		return nil, false
	case e != nil:
		return l.continues(c, e)
	case index < l.next || l.knownAhead[index]:
		return nil, false // it has its result
	case index >= min(l.looked, l.delivered+l.window) || !l.fits(index):
		return nil, true
	}
	l.knownAhead[index] = true
	l.skipKnown()
	e = l.newEntry(index)
	l.active[index] = e
	return e, true
}

// continues takes a task that was handed out off its queue for the worker of c,
// which has it still. That was no failed attempt then. A copy that was begun
// meanwhile may run beside it.
func (l *ledger) continues(c *claim, e *entry) (*entry, bool) {
	if e.accepted || !l.mayVote(e, c) || !l.spares(e) {
		return nil, false
	}
	if i := slices.Index(e.avoid, c.candidate.Peer); i >= 0 {
		e.avoid = slices.Delete(e.avoid, i, i+1)
		e.attempts = max(0, e.attempts-1)
	}
	l.unqueue(e)
	return e, true
}
