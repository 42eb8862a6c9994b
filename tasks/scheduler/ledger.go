package scheduler

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/tasks"
)

// ledger is the state of a job: which task waits, runs, is accepted, is
// delivered. It starts no goroutine and does no I/O; claims and the matchmaker
// act on what it answers. Every task that was handed out and is not yet
// delivered has an index below delivered+window, so the ledger's size does not
// grow with the job.
type ledger struct {
	job         Job
	window      int
	bufferBytes int64
	ordered     bool
	deliverable chan struct{} // 1 token: something became ready
	room        chan struct{} // 1 token: lookUp may go on

	mu         sync.Mutex
	next       int            // lowest index never handed out
	looked     int            // tasks below were looked up by lookUp
	knownAhead map[int]bool   // of those, not below next: need not run
	active     map[int]*entry // handed out or waiting in retry, not settled
	retry      []*entry       // to be handed out again, by index
	claims     map[*claim]struct{}
	waiting    map[int]*Accepted // accepted, out of order
	ready      []*Accepted       // to be delivered, in this order
	low        int               // ordered: lowest index without an accepted result
	delivered  int
	buffered   int64 // bytes in waiting, ready and the receiver's hands
	staged     int64 // bytes of their outputs in the stage
	gaveUp     string
	copies     int           // at workers
	mean       time.Duration // of all tasks' run time
	meanBytes  int           // of all results' size
	times      sample        // from hand-out to result
	sum        Summary
	workers    map[grid.PeerID]bool
}

// entry is a task that was handed out at least once.
type entry struct {
	index    int
	attempts int
	holders  []*claim // that have it now, at most MaxCopies
	avoid    []grid.PeerID
	why      string    // of the last failed attempt
	since    time.Time // when the oldest of the present copies was handed out
	queued   time.Time // when it went to retry
	accepted bool
}

func newLedger(job Job, cfg Config) *ledger {
	l := &ledger{
		job:         job,
		window:      cfg.Window,
		bufferBytes: cfg.BufferBytes,
		ordered:     !cfg.AsTheyCome,
		deliverable: make(chan struct{}, 1),
		room:        make(chan struct{}, 1),
		knownAhead:  map[int]bool{},
		active:      map[int]*entry{},
		claims:      map[*claim]struct{}{},
		waiting:     map[int]*Accepted{},
		workers:     map[grid.PeerID]bool{},
		sum:         Summary{Tasks: job.Count},
	}
	if cfg.Known == nil {
		l.looked = job.Count
	}
	return l
}

// join adds a claim.
func (l *ledger) join(c *claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims[c] = struct{}{}
}

// claimed reports whether any worker is claimed.
func (l *ledger) claimed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.claims) > 0
}

// leave takes a claim out; what it held runs elsewhere.
func (l *ledger) leave(c *claim, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.claims, c)
	held := c.inOrder()
	c.out, c.supplies, c.supplied = nil, nil, nil
	l.copies -= len(held)
	// The worker starts tasks in the order in which they were sent, so only
	// the first of them can have been running: the others lost no attempt.
	sent := 0
	for _, h := range held {
		if !h.supplying {
			sent++
		}
		l.release(h.entry, c)
		if !h.entry.accepted {
			l.again(h.entry, c.candidate.Peer, why, h.fetching || (!h.supplying && sent <= c.slots))
		}
	}
	l.wakeAll()
}

// release takes the claim's copy of e away, and forgets e once it is settled
// everywhere.
func (l *ledger) release(e *entry, c *claim) {
	e.holders = slices.DeleteFunc(e.holders, func(h *claim) bool { return h == c })
	if e.accepted && len(e.holders) == 0 {
		delete(l.active, e.index)
	}
}

// again queues e for another run, unless another copy still runs or it has had
// its attempts.
func (l *ledger) again(e *entry, peer grid.PeerID, why string, attempted bool) {
	if attempted {
		e.attempts++
		e.why = fmt.Sprintf("%s: %s", peer.Short(), why)
		e.avoid = append(e.avoid, peer)
	}
	switch {
	case len(e.holders) > 0:
		e.since = time.Now() // the copy that is left is the only one now
	case e.attempts >= MaxAttempts:
		l.settle(e, &Accepted{Result: l.lost(e.index,
			fmt.Sprintf("given up after %d attempts; the last on %s", e.attempts, e.why))})
		delete(l.active, e.index)
	default:
		e.queued = time.Now()
		i, _ := slices.BinarySearchFunc(l.retry, e.index, func(r *entry, index int) int { return r.index - index })
		l.retry = slices.Insert(l.retry, i, e)
	}
}

func (l *ledger) lost(index int, why string) tasks.Result {
	return tasks.Result{
		Task:     tasks.TaskID{Job: l.job.Job, Index: index},
		State:    tasks.StateLost,
		ExitCode: tasks.NoExitCode,
		Why:      clip(why, tasks.MaxWhyBytes),
	}
}

// clip cuts s to at most limit bytes.
func clip(s string, limit int) string {
	if len(s) > limit {
		return s[:limit]
	}
	return s
}

// settle accepts the one result of e and makes it ready for delivery.
func (l *ledger) settle(e *entry, a *Accepted) {
	e.accepted = true
	a.Attempts = e.attempts
	for _, holder := range e.holders {
		holder.cancel(e.index)
	}
	l.count(a)
	l.occupy(a, 1)
	if !l.ordered {
		l.ready = append(l.ready, a)
		l.signal()
		return
	}
	l.waiting[e.index] = a
	for a, ok := l.waiting[l.low]; ok; a, ok = l.waiting[l.low] {
		delete(l.waiting, l.low)
		l.ready = append(l.ready, a)
		l.low++
		l.signal()
	}
}

// occupy adds what a occupies to the sums, or takes it away with sign -1.
func (l *ledger) occupy(a *Accepted, sign int64) {
	memory, staged := a.bytes()
	l.buffered += sign * memory
	l.staged += sign * staged
}

func (l *ledger) count(a *Accepted) {
	switch a.State {
	case tasks.StateDone:
		l.sum.Done++
	case tasks.StateFailed:
		l.sum.Failed++
	case tasks.StateLimit:
		l.sum.Limited++
	default:
		l.sum.Lost++
	}
}

func (l *ledger) signal() {
	select {
	case l.deliverable <- struct{}{}:
	default:
	}
}

func (l *ledger) wakeAll() {
	for c := range l.claims {
		c.wakeUp()
	}
}

// pop returns the next result to deliver, nil when there is none yet, and
// whether all have been delivered.
func (l *ledger) pop() (a *Accepted, finished bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loseRest()
	if len(l.ready) == 0 {
		return nil, l.delivered == l.job.Count
	}
	a = l.ready[0]
	l.ready[0] = nil
	l.ready = l.ready[1:]
	return a, false
}

// done says that a popped result was taken; that makes room for others.
func (l *ledger) done(a *Accepted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delivered++
	l.occupy(a, -1)
	l.signalRoom()
	l.wakeStarved()
}

// wakeStarved wakes the claims that found nothing to do.
func (l *ledger) wakeStarved() {
	for c := range l.claims {
		if c.starved {
			c.starved = false
			c.wakeUp()
		}
	}
}

// giveUp ends every task that no worker has as lost. It does nothing while a
// claim is open.
func (l *ledger) giveUp(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.claims) == 0 && l.gaveUp == "" {
		l.gaveUp = why
		l.signal()
	}
}

// loseRest settles what giveUp left, no further than the window reaches.
func (l *ledger) loseRest() {
	if l.gaveUp == "" {
		return
	}
	for _, e := range l.retry {
		l.settle(e, &Accepted{Result: l.lost(e.index, l.gaveUp)})
		delete(l.active, e.index)
	}
	l.retry = nil
	l.skipKnown()
	for l.next < l.looked && l.next < l.delivered+l.window {
		l.settle(&entry{index: l.next}, &Accepted{Result: l.lost(l.next, l.gaveUp)})
		l.next++
		l.skipKnown()
	}
}

// summary returns the counts so far.
func (l *ledger) summary() Summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sum
	s.Peers = len(l.workers)
	return s
}

// progress returns the counts of this moment.
func (l *ledger) progress() Progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := Progress{Tasks: l.job.Count, Ended: l.sum.Ended(), Peers: len(l.claims)}
	for _, e := range l.active {
		if !e.accepted && len(e.holders) > 0 {
			p.Running++
		}
	}
	return p
}
