package scheduler

import (
	"slices"
	"time"

	"gotong/tasks"
)

// How tasks are handed out.
const (
	// prefetch is how many chunks per slot a worker may hold: one that runs
	// and one that waits, so that a slot never idles for a round trip.
	prefetch = 2
	// chunkTime is how long the tasks of one chunk should run together.
	chunkTime = 20 * time.Millisecond
	// chunkMax and chunkBytes bound a chunk, by number and by the size of the
	// results that it will bring.
	chunkMax   = 64
	chunkBytes = 1 << 20
	// prefetchBelow: tasks that run longer gain nothing from waiting at a
	// worker; they go where a slot is free.
	prefetchBelow = time.Second
	// slotsMax bounds what a worker's word on its slots is believed.
	slotsMax = 256
	// ordersMax and orderBytes bound the tasks of one message.
	ordersMax  = 256
	orderBytes = 1 << 20

	// avoidFor is how long a task waits for a peer that has not failed it yet
	// to be claimed, twice as long after each attempt; avoidMost is how long it
	// waits for a claimed one to take it. The last attempts wait for a claimed
	// one until it does.
	avoidFor     = 2 * time.Second
	avoidMost    = 30 * time.Second
	lastAttempts = 2
	// At the tail a task is started again once it has been out for longer
	// than tailFactor times the median, at least tailLeast; or tailUnknown,
	// while no task has ended yet.
	tailFactor  = 2
	tailLeast   = time.Second
	tailUnknown = 30 * time.Second
	// stallGrace: a worker that ends none of its tasks for stallFactor times
	// the time limit and this much more is taken for broken.
	stallFactor = 2
	stallGrace  = time.Minute
	// fetchMost is how long a worker may end none because it fetches contents.
	fetchMost = 2 * time.Hour
)

// orders returns what to send to the worker of c now. Starved claims are woken
// when there may be more.
func (l *ledger) orders(c *claim, now time.Time) Orders {
	l.mu.Lock()
	defer l.mu.Unlock()
	var o Orders
	bytes := 0
	for len(c.supplied) > 0 && len(o.Tasks) < ordersMax && bytes < orderBytes {
		bytes += c.supplied[0].Part.bytes()
		o.Tasks = append(o.Tasks, c.supplied[0])
		c.supplied = c.supplied[1:]
	}
	room := l.roomAt(c)
	if len(c.supplied) > 0 {
		room = 0
		c.wakeUp()
	}
	for given := 0; given < room && bytes < orderBytes; {
		if c.ownBytes >= supplyBytes && len(c.out) >= c.slots {
			break
		}
		if l.atOnce > 0 && l.copies >= l.atOnce {
			c.starved = true
			break
		}
		e := l.pick(c, now)
		if e == nil {
			c.starved = true
			break
		}
		if order, ok := l.hand(c, e, now); ok {
			given++
			bytes += order.Part.bytes()
			if !c.out[e.index].supplying {
				o.Tasks = append(o.Tasks, order)
			}
		}
	}
	o.Cancel, o.Release = c.cancels, c.releases
	c.cancels, c.releases = nil, nil
	return o
}

// hand hands a task out that was taken off its queue. The order is to be sent now,
// or once the contents are there for which it waits. False: the task cannot be run.
func (l *ledger) hand(c *claim, e *entry, now time.Time) (Order, bool) {
	part := l.partOf(e.index)
	if err := l.job.Check(part); err != nil {
		l.fail(e, err)
		return Order{}, false
	}
	h := l.handTo(c, e, now)
	c.keepsNear(part)
	order := l.job.Order(e.index, part)
	if own := part.contents(); len(own) > 0 {
		h.ownBytes = part.contentBytes()
		c.ownBytes += h.ownBytes
		if !c.puts.have(own) {
			c.toSupply(h, order)
		}
	}
	return order, true
}

// bytes returns how much room p takes in a message, from above.
func (p Part) bytes() int {
	n := 0
	for _, arg := range p.Args {
		n += len(arg) + 16
	}
	for _, in := range p.Inputs {
		n += len(in.Name) + 48
	}
	for _, stored := range p.Stored {
		n += 48 + 34*(len(stored.Segments)+len(stored.Holders))
	}
	return n
}

// fail settles a task that cannot be run.
func (l *ledger) fail(e *entry, err error) {
	a := &Accepted{Result: l.impossible(e.index, err), Attempts: e.attempts}
	l.occupy(a, 1)
	l.settle(e, a)
}

func (l *ledger) impossible(index int, err error) tasks.Result {
	r := l.lost(index, err.Error())
	r.State = tasks.StateFailed
	return r
}

// roomAt returns how many tasks c should be sent now. A long window is filled
// only when half of it is used up, so that messages carry many tasks.
func (l *ledger) roomAt(c *claim) int {
	window := l.windowOf(c)
	if c.closing != "" || (window > prefetch*c.slots && len(c.out) > window/2) {
		return 0
	}
	return min(window-len(c.out), ordersMax)
}

// windowOf returns how many tasks the worker of c may hold.
func (l *ledger) windowOf(c *claim) int {
	mean := c.mean
	if mean == 0 {
		mean = l.mean
	}
	if mean == 0 || mean >= prefetchBelow {
		return c.slots
	}
	chunk := min(int(chunkTime/mean), chunkMax)
	if c.meanBytes > 0 {
		chunk = min(chunk, chunkBytes/c.meanBytes)
	}
	share := l.unassigned() / max(1, prefetch*l.slots())
	return prefetch * c.slots * max(1, min(chunk, share))
}

// unassigned returns how many tasks could be handed out now.
func (l *ledger) unassigned() int {
	return len(l.retry) + l.open.count + l.unseen()
}

func (l *ledger) slots() int {
	n := 0
	for c := range l.claims {
		if c.closing == "" {
			n += c.slots
		}
	}
	return n
}

// pick chooses a task for c and takes it off its queue: first those that must
// run again and that its peer has not failed, then those that other sites must
// confirm, then new ones, then the others that must run again, at the tail a
// second copy. Nil: none now.
func (l *ledger) pick(c *claim, now time.Time) *entry {
	if l.reclaiming || l.gaveUp != "" {
		return nil
	}
	tried := func(e *entry) bool { return slices.Contains(e.avoid, c.candidate.Peer) }
	if e := l.pickAgain(func(e *entry) bool { return !tried(e) && l.mayVote(e, c) }); e != nil {
		return e
	}
	if e := l.open.first(c, func(e *entry) bool { return l.fitsAgain(e) && l.mayVote(e, c) }); e != nil {
		l.open.close(e)
		return e
	}
	if index, ok := l.nextFor(c); ok {
		e := l.newEntry(index)
		l.active[index] = e
		return e
	}
	if e := l.pickAgain(func(e *entry) bool { return tried(e) && l.mayVote(e, c) && l.waitedEnough(e, now) }); e != nil {
		return e
	}
	if len(c.out) < c.slots && l.unassigned() == l.open.count {
		if e := l.straggler(c, now); e != nil {
			l.sum.Duplicated++
			return e
		}
	}
	return nil
}

// pickAgain takes the first task that must run again and may here.
func (l *ledger) pickAgain(may func(*entry) bool) *entry {
	for i, e := range l.retry {
		if l.fitsAgain(e) && may(e) {
			l.retry = slices.Delete(l.retry, i, i+1)
			e.inRetry = false
			l.sum.Retried++
			return e
		}
	}
	return nil
}

// fits reports whether there will be room for the result of a task, going by
// the size of those before. The one for which all others wait always may run.
func (l *ledger) fits(index int) bool {
	expected := int64(l.copies) * int64(l.meanBytes)
	room := l.buffered+expected < l.bufferBytes && l.staged < StageBytes
	return room || (l.ordered && index == l.delivered) || (l.copies == 0 && l.buffered+l.staged == 0)
}

// fitsAgain is fits for a task that was handed out before. One of which there
// is a result always may run: its room is freed only when it is decided.
func (l *ledger) fitsAgain(e *entry) bool { return len(e.ballots) > 0 || l.fits(e.index) }

// waitedEnough reports whether e may go to a peer that failed it before.
func (l *ledger) waitedEnough(e *entry, now time.Time) bool {
	waited := now.Sub(e.queued)
	if waited < avoidFor<<max(0, e.attempts-1) {
		return false
	}
	return (waited >= avoidMost && e.attempts < MaxAttempts-lastAttempts) || !l.untried(e)
}

// untried reports whether a claimed peer has not failed e.
func (l *ledger) untried(e *entry) bool {
	for c := range l.claims {
		if c.closing == "" && !slices.Contains(e.avoid, c.candidate.Peer) && l.mayVote(e, c) {
			return true
		}
	}
	return false
}

// straggler returns the task that has been out for the longest, long enough to
// be started a second time by c.
func (l *ledger) straggler(c *claim, now time.Time) *entry {
	var oldest *entry
	before := now.Add(-l.tailAge())
	for _, e := range l.active {
		if l.straggles(e, before) && l.mayCopy(e, c) && (oldest == nil || e.since.Before(oldest.since)) {
			oldest = e
		}
	}
	return oldest
}

// straggles reports whether e runs since before a time and may be copied.
func (l *ledger) straggles(e *entry, before time.Time) bool {
	if e.accepted || e.open || e.inRetry || e.since.After(before) || len(e.holders) == 0 || e.attempts+len(e.holders) >= MaxAttempts {
		return false
	}
	return l.spares(e)
}

// spares reports whether e may have one more copy.
func (l *ledger) spares(e *entry) bool {
	_, agree := e.leading()
	spare := len(e.holders) - (max(e.need, 1) - agree) // copies beyond those that may decide it
	return spare < MaxCopies-1 && (!l.judge.verify.Votes() || !e.full(l.judge.most()))
}

func (l *ledger) tailAge() time.Duration {
	median, ok := l.times.median()
	if !ok {
		return tailUnknown
	}
	return max(tailLeast, tailFactor*median)
}

// mayCopy reports whether c is another peer on another site than the copies of
// e that run. Where all claims are on one site, another peer is enough.
func (l *ledger) mayCopy(e *entry, c *claim) bool {
	if slices.Contains(e.avoid, c.candidate.Peer) || !l.mayVote(e, c) {
		return false
	}
	for _, h := range e.holders {
		if h.candidate.Peer == c.candidate.Peer || (h.candidate.Site == c.candidate.Site && !l.oneSite()) {
			return false
		}
	}
	return true
}

func (l *ledger) oneSite() bool {
	site, first := "", true
	for c := range l.claims {
		if !first && c.candidate.Site != site {
			return false
		}
		site, first = c.candidate.Site, false
	}
	return true
}

// handTo notes that c has a copy of e.
func (l *ledger) handTo(c *claim, e *entry, now time.Time) *handed {
	if len(e.holders) == 0 {
		e.since = now
	}
	if e.need == 0 {
		e.need = l.judge.need(c.candidate.Peer)
	}
	if e.attempts > e.told && e.attempts < MaxAttempts && l.tellLost != nil {
		l.tellLost(e.index, e.attempts)
		e.told = e.attempts
	}
	e.holders = append(e.holders, c)
	l.requeue(e)
	if len(c.out) == 0 {
		c.ended = now // it was idle, so it could not end a task before
	}
	l.copies++
	c.sequence++
	h := &handed{entry: e, at: now, sequence: c.sequence}
	c.out[e.index] = h
	return h
}

// wanted returns how many more slots the job could use now.
func (l *ledger) wanted(now time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	open := l.unassigned()
	if l.gaveUp != "" {
		return 0
	}
	if open > 0 {
		running := 0
		for _, e := range l.active {
			if len(e.holders) > 0 && !e.accepted {
				running++
			}
		}
		n := open + running
		if l.atOnce > 0 {
			n = min(n, l.atOnce)
		}
		if n -= l.slots(); n > 0 {
			return n
		}
		if n := l.wantedVotes(); n > 0 {
			return n
		}
	}
	for _, e := range l.retry {
		if !l.untried(e) {
			return 1
		}
	}
	if l.unfit {
		for _, e := range l.active {
			if e.open && len(e.unfit) > 0 && !l.untried(e) {
				return 1
			}
		}
	}
	return l.wantedForTail(open-l.open.count, now)
}

// wantedForTail returns 1 when a task straggles and no idle slot may copy it.
func (l *ledger) wantedForTail(open int, now time.Time) int {
	if open > 0 {
		return 0
	}
	before := now.Add(-l.tailAge())
	for _, e := range l.active {
		if l.straggles(e, before) && !l.copyable(e) {
			return 1
		}
	}
	return 0
}

func (l *ledger) copyable(e *entry) bool {
	for c := range l.claims {
		if c.closing == "" && len(c.out) < c.slots && l.mayCopy(e, c) {
			return true
		}
	}
	return false
}

// tick wakes idle claims, for which time may have made a task available, and
// ends those that stall.
func (l *ledger) tick(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.overdue(now)
	stall := stallFactor*l.job.Limits.Wall + stallGrace
	for c := range l.claims {
		if len(c.out) < c.slots {
			c.wakeUp()
		}
		if c.computing() && now.Sub(c.ended) > stall {
			c.end(errStalled)
		}
	}
}
