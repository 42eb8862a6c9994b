package scheduler

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"gotong/grid"
	"gotong/tasks"
)

// How tasks end before their time.
const (
	// percentAfter is how many tasks must have ended before Config.TimeoutPercent
	// means anything.
	percentAfter = 3
	// percentLeast is the least time that a task gets under it.
	percentLeast = time.Second
	// runningMost bounds Summary.Running.
	runningMost = 64
)

// Running is a task that was running when the run was stopped.
type Running struct {
	Index int
	Peer  grid.PeerID
	For   time.Duration // since it was handed out
}

// stoppedWhy is the reason in results of tasks that Config.Halt ended.
const stoppedWhy = "stopped because the run ends early"

// checkHalt ends the job early when its counts say so.
func (l *ledger) checkHalt() {
	if l.halted || !l.halt.Met(l.job.Count, l.sum.Done, l.sum.Failed+l.sum.Limited+l.sum.Lost) {
		return
	}
	l.halted = true
	if l.halt.Now {
		for _, e := range l.active {
			if !e.accepted {
				l.decide(e, tasks.StateCancelled, stoppedWhy)
			}
		}
	}
	l.signal()
}

// decide settles e without a worker's word.
func (l *ledger) decide(e *entry, state tasks.State, why string) {
	a := &Accepted{Result: l.lost(e.index, why), Attempts: e.attempts + len(e.ballots)}
	a.State = state
	if len(e.holders) > 0 {
		a.Peer = e.holders[0].candidate.Peer
		if h := e.holders[0].out[e.index]; h != nil {
			a.Elapsed = time.Since(h.at)
		}
	}
	if state == tasks.StateLimit {
		a.Limit = tasks.LimitWall
	}
	for _, b := range e.ballots {
		l.free(b.result)
	}
	e.ballots = nil
	l.occupy(a, 1)
	l.settle(e, a)
}

// ended reports whether a job that was halted has nothing more to wait for.
func (l *ledger) ended() bool {
	for _, e := range l.active {
		if !e.accepted {
			return false
		}
	}
	return true
}

// overdue ends the tasks that run longer than their share of the median.
func (l *ledger) overdue(now time.Time) {
	if l.timeoutPercent == 0 {
		return
	}
	limit := time.Duration(math.MaxInt64)
	if median, ok := l.runs.median(); ok && len(l.runs.values) >= percentAfter {
		limit = max(percentLeast, time.Duration(float64(median)*float64(l.timeoutPercent)/100))
	}
	for c := range l.claims {
		// The worker runs tasks in the order in which they were sent, so the first
		// of them run, one in each slot.
		slots := c.slots
		for _, h := range c.inOrder() {
			if h.supplying || h.fetching || h.overdue {
				continue
			}
			if h.begun.IsZero() {
				h.begun = now
			}
			if now.Sub(h.begun) > limit && !h.entry.accepted {
				l.runsOver(c, h, limit)
			}
			if slots--; slots <= 0 {
				break
			}
		}
	}
}

// runsOver takes a copy of a task for one that met its time limit.
func (l *ledger) runsOver(c *claim, h *handed, limit time.Duration) {
	e := h.entry
	if !l.mayTryAgain(e) {
		l.decide(e, tasks.StateLimit, fmt.Sprintf("ran longer than %s, which is %d %% of the median",
			limit.Round(time.Millisecond), l.timeoutPercent))
		return
	}
	l.noteFailure(e)
	e.avoid = append(e.avoid, c.candidate.Peer)
	c.cancel(e.index)
	h.overdue = true
	l.release(e, c)
	l.requeue(e)
	l.wakeAll()
}

// mayTryAgain reports whether a task that fails is run once more.
func (l *ledger) mayTryAgain(e *entry) bool {
	return !l.halted && e.tries+1 < l.retries
}

// tryAgain takes in a failure of a task that is run once more, elsewhere if
// there is another peer.
func (l *ledger) tryAgain(c *claim, e *entry, a *Accepted) {
	a.discard()
	l.noteFailure(e)
	e.avoid = append(e.avoid, c.candidate.Peer)
	l.requeue(e)
	l.wakeAll()
}

// agreedFailure begins a task anew on whose failure the sites agree that it
// needs. They may run it again.
func (l *ledger) agreedFailure(e *entry, a *Accepted) {
	l.free(a)
	l.noteFailure(e)
	e.ballots, e.need = nil, 0
	l.requeue(e)
	l.wakeAll()
}

// noteFailure counts a run of a task that failed and is run once more.
func (l *ledger) noteFailure(e *entry) {
	e.tries++
	if l.failed != nil {
		l.failed(e.index, e.tries)
	}
}

// running lists what runs now, longest first, and how many tasks that is.
func (l *ledger) running() (list []Running, count int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, e := range l.active {
		if e.accepted || len(e.holders) == 0 {
			continue
		}
		if h := e.holders[0].out[e.index]; h != nil {
			list = append(list, Running{e.index, e.holders[0].candidate.Peer, now.Sub(h.at)})
		}
	}
	slices.SortFunc(list, func(a, b Running) int { return cmp.Or(cmp.Compare(b.For, a.For), cmp.Compare(a.Index, b.Index)) })
	return list[:min(len(list), runningMost)], len(list)
}
