package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/tasks"
	"gotong/tasks/batch"
)

// ledger is the state of a job: which task waits, runs, is accepted, is
// delivered. It starts no goroutine and does no I/O; claims and the matchmaker
// act on what it answers. Every task that was handed out and is not yet
// delivered has an index below delivered+window, so the ledger's size does not
// grow with the job.
type ledger struct {
	job            Job
	window         int
	bufferBytes    int64
	ordered        bool
	atOnce         int // 0: any number
	retries        int
	tries          map[int]int // of former runs of the job, by task
	failed         func(index, tries int)
	attempts       map[int]int // lost in former runs of the job, by task
	tellLost       func(index, attempts int)
	halt           batch.Halt
	timeoutPercent int
	checkStored    bool          // Config.Held is set
	deliverable    chan struct{} // 1 token: something became ready
	room           chan struct{} // 1 token: lookUp may go on

	mu         sync.Mutex
	next       int            // lowest index never handed out
	looked     int            // tasks below were looked up by lookUp
	knownAhead map[int]bool   // of those, not below next: need not run, or were handed out
	ahead      map[int]Part   // of tasks that nextFor looked at
	active     map[int]*entry // handed out or waiting in retry, not settled
	retry      []*entry       // to be handed out again, by index
	open       openTasks      // wait for copies on further sites
	claims     map[*claim]struct{}
	waiting    map[int]*Accepted // accepted, out of order
	ready      []*Accepted       // to be delivered, in this order
	revised    []*Accepted       // to be delivered before those, again
	caught     []Caught          // to be told before those
	inHand     bool              // the receiver has one
	revising   int               // delivered tasks that run again and are to be delivered again
	judge      *judge
	unchecked  map[grid.PeerID][]unchecked // accepted results, by peer, oldest first
	low        int                         // ordered: lowest index without an accepted result
	delivered  int
	buffered   int64 // bytes in ballots, waiting, ready and the receiver's hands
	staged     int64 // bytes of their outputs in the stage
	gaveUp     string
	halted     bool
	reclaiming bool          // claims get only what their workers have already
	left       int           // the lowest index in any claim.left
	unfit      bool          // some task has entry.unfit
	copies     int           // at workers
	mean       time.Duration // of all tasks' run time
	meanBytes  int           // of all results' size
	times      sample        // from hand-out to result
	runs       sample        // of run times
	sum        Summary
	workers    map[grid.PeerID]bool
}

// entry is a task that was handed out at least once.
type entry struct {
	index    int
	attempts int      // lost with their workers
	told     int      // of them, those that ledger.tellLost heard of
	tries    int      // runs that ended in a failure
	holders  []*claim // that have it now, at most MaxCopies
	avoid    []grid.PeerID
	unfit    []Refusal // peers that cannot run it
	why      string    // of the last failed attempt
	since    time.Time // when the oldest of the present copies was handed out
	queued   time.Time // when it went to retry
	inRetry  bool
	open     bool // in openTasks
	place    int  // counts its places in openTasks
	accepted bool

	need     int      // sites that must agree; 0: not handed out since it was voided
	ballots  []ballot // results until then
	winner   []Vote   // once accepted: who gave the result
	measured bool     // once accepted: tasks.Result.Measured
	state    tasks.State
	replaces [32]byte // digest of what was delivered before, or known; zero: nothing was
	revises  bool     // something was delivered in this run
}

func newLedger(job Job, cfg Config, judge *judge) *ledger {
	l := &ledger{
		job:            job,
		window:         cfg.Window,
		bufferBytes:    cfg.BufferBytes,
		ordered:        !cfg.AsTheyCome,
		atOnce:         cfg.AtOnce,
		retries:        cfg.Retries,
		tries:          cfg.Tries,
		failed:         cfg.Failed,
		attempts:       cfg.Attempts,
		tellLost:       cfg.Lost,
		halt:           cfg.Halt,
		timeoutPercent: cfg.TimeoutPercent,
		checkStored:    cfg.Held != nil,
		reclaiming:     cfg.Reclaim,
		left:           noLeft,
		deliverable:    make(chan struct{}, 1),
		room:           make(chan struct{}, 1),
		knownAhead:     map[int]bool{},
		ahead:          map[int]Part{},
		open:           openTasks{sets: map[string]*openSet{}},
		judge:          judge,
		unchecked:      map[grid.PeerID][]unchecked{},
		active:         map[int]*entry{},
		claims:         map[*claim]struct{}{},
		waiting:        map[int]*Accepted{},
		workers:        map[grid.PeerID]bool{},
		sum:            Summary{Tasks: job.Count},
	}
	if cfg.Known == nil {
		l.looked = job.Count
	}
	return l
}

// newEntry returns the entry of a task that this run has not handed out yet. One
// of which too many attempts were lost before has the last once more: its driver
// ended before it said so.
func (l *ledger) newEntry(index int) *entry {
	attempts := min(l.attempts[index], MaxAttempts-1)
	return &entry{index: index, tries: l.tries[index], attempts: attempts, told: attempts}
}

// join adds a claim.
func (l *ledger) join(c *claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims[c] = struct{}{}
	for _, index := range c.left {
		l.left = min(l.left, index)
	}
	l.takeAllLeft()
	if l.judge.caught[c.candidate.Peer] {
		c.end(errLied)
	}
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
		if !h.entry.accepted && !h.overdue {
			attempted := h.fetching || (!h.supplying && sent <= c.slots)
			l.again(h.entry, c.candidate.Peer, why, attempted && !l.judge.caught[c.candidate.Peer])
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
	if len(e.holders) > 0 {
		e.since = time.Now() // the copies that are left are the only ones now
	}
	l.requeue(e)
}

// lose settles e without a result.
func (l *ledger) lose(e *entry, why string) {
	a := &Accepted{Result: l.lostVotes(e, why), Attempts: e.attempts + len(e.ballots)}
	for _, b := range e.ballots {
		l.free(b.result)
	}
	e.ballots = nil
	l.occupy(a, 1)
	l.settle(e, a)
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

// settle accepts the one result of e, which occupies its room already, and
// makes it ready for delivery.
func (l *ledger) settle(e *entry, a *Accepted) {
	l.unqueue(e)
	e.accepted, e.state = true, a.State
	for _, holder := range e.holders {
		holder.cancel(e.index)
	}
	if len(e.holders) == 0 {
		delete(l.active, e.index)
	}
	l.count(a.State, 1)
	if a.Checked {
		l.sum.Checked++
	}
	a.Replaces, a.revises = e.replaces, e.revises
	switch {
	case a.revises:
		l.revised = append(l.revised, a)
	case l.ordered:
		l.waiting[e.index] = a
		l.line()
	default:
		l.ready = append(l.ready, a)
	}
	l.signal()
	l.checkHalt()
}

// line moves results from waiting to ready, in the order of tasks.
func (l *ledger) line() {
	for a, ok := l.waiting[l.low]; ok; a, ok = l.waiting[l.low] {
		delete(l.waiting, l.low)
		l.ready = append(l.ready, a)
		l.low++
	}
}

// lineUp moves what waits for tasks that will not run to ready.
func (l *ledger) lineUp() {
	for _, index := range slices.Sorted(maps.Keys(l.waiting)) {
		l.ready = append(l.ready, l.waiting[index])
	}
	clear(l.waiting)
}

// occupy adds what a occupies to the sums, or takes it away with sign -1.
func (l *ledger) occupy(a *Accepted, sign int64) {
	memory, staged := a.bytes()
	l.buffered += sign * memory
	l.staged += sign * staged
}

// count adds n ended tasks to the summary.
func (l *ledger) count(state tasks.State, n int) {
	switch state {
	case tasks.StateDone:
		l.sum.Done += n
	case tasks.StateFailed:
		l.sum.Failed += n
	case tasks.StateLimit:
		l.sum.Limited += n
	case tasks.StateCancelled:
		l.sum.Cancelled += n
	default:
		l.sum.Lost += n
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

// pop returns the next result to deliver, or a peer that was caught; neither
// when there is none yet; and whether all have been delivered.
func (l *ledger) pop() (a *Accepted, caught *Caught, finished bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loseRest()
	if l.halted && len(l.ready) == 0 && l.ended() {
		l.lineUp()
	}
	switch {
	case len(l.caught) > 0:
		caught, l.caught = &l.caught[0], l.caught[1:]
	case len(l.revised) > 0:
		a, l.revised[0] = l.revised[0], nil
		l.revised = l.revised[1:]
	case len(l.ready) > 0:
		a, l.ready[0] = l.ready[0], nil
		l.ready = l.ready[1:]
	default:
		return nil, nil, l.revising == 0 && (l.delivered == l.job.Count || l.halted && l.ended())
	}
	l.inHand = a != nil
	return a, caught, false
}

// done says that a popped result was taken; that makes room for others.
func (l *ledger) done(a *Accepted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inHand = false
	if a.revises {
		l.revising--
	} else {
		l.delivered++
	}
	l.occupy(a, -1)
	l.signalRoom()
	l.takeAllLeft()
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
// worker has one, or may get one.
func (l *ledger) giveUp(why string) {
	if l.advancing() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.copies == 0 && l.gaveUp == "" {
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
		e.inRetry = false
	}
	l.retry = nil
	for _, e := range l.active {
		if !e.accepted && len(e.holders) == 0 {
			l.lose(e, l.gaveUp)
		}
	}
	l.skipKnown()
	for l.next < l.looked && l.next < l.delivered+l.window {
		l.lose(l.newEntry(l.next), l.gaveUp)
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
	s.Halted = l.halted
	return s
}

// progress returns the counts of this moment.
func (l *ledger) progress() Progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := Progress{Tasks: l.job.Count, Ended: l.sum.Ended(), Failed: l.sum.Ended() - l.sum.Done, Peers: len(l.claims)}
	for _, e := range l.active {
		if !e.accepted && len(e.holders) > 0 {
			p.Running++
		}
	}
	return p
}
