package scheduler

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"gotong/tasks"
)

// meanWeight is the weight of a new value in a running mean: 1 in so many.
const meanWeight = 4

// ErrViolation says that the worker said what no honest worker says; it gets no more
// tasks of the job.
var ErrViolation = errors.New("worker breaks the protocol")

// fetch is a result whose outputs must be read from the worker before it can
// be accepted.
type fetch struct {
	result SignedResult
}

// report takes in what the worker of c says. It returns the results whose
// outputs are to be fetched; an error ends the claim.
func (l *ledger) report(c *claim, r Report, now time.Time) ([]fetch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var fetches []fetch
	for _, result := range r.Results {
		h, err := l.take(c, result.Task.Index)
		if err != nil {
			return nil, err
		}
		if l.needsFetch(h, result) {
			h.fetching = true
			fetches = append(fetches, fetch{result})
			continue
		}
		l.end(c, h, &Accepted{Result: result.Result, Proof: result.Proof, digest: result.digest}, now)
	}
	for _, back := range r.Returned {
		h, err := l.take(c, back.Index)
		if err != nil {
			return nil, err
		}
		l.drop(c, h)
		c.unfetched = c.unfetched || back.Unfetched
		if back.Unfit {
			l.unfitAt(c, h.entry, back.Why)
			continue
		}
		c.puts.forget(l.job.Task(back.Index).contents()) // that may be why
		l.retryElsewhere(c, h, back.Why, false)
	}
	if r.Closing != "" {
		c.closing = r.Closing
	}
	if r.Fetching {
		l.notStalled(c, now)
	}
	c.wakeUp()
	return fetches, l.over(c)
}

// notStalled lets a worker off that ends no task because contents still arrive,
// but not for ever.
func (l *ledger) notStalled(c *claim, now time.Time) {
	if c.fetches.IsZero() {
		c.fetches = now
	}
	if now.Sub(c.fetches) < fetchMost {
		c.ended = now
	}
}

// over says why the claim should end now, if it should.
func (l *ledger) over(c *claim) error {
	if l.judge.caught[c.candidate.Peer] {
		return errLied
	}
	if c.unfetched && !c.pushed {
		return fmt.Errorf("%w: %s", errUnfetched, c.lastLoss)
	}
	if c.losses > lossesMax && c.closing == "" { // what a closing worker gives back says nothing of it
		return fmt.Errorf("%w: %s", errUnable, c.lastLoss)
	}
	if c.closing != "" && len(c.out) == 0 {
		return fmt.Errorf("%w: %s", errClosing, c.closing)
	}
	return nil
}

// take finds the copy of a task that c holds.
func (l *ledger) take(c *claim, index int) (*handed, error) {
	h := c.out[index]
	if h == nil || h.fetching || h.supplying {
		return nil, fmt.Errorf("%w: result of task %d, which it does not have", ErrViolation, index)
	}
	return h, nil
}

func (l *ledger) needsFetch(h *handed, r SignedResult) bool {
	if h.entry.accepted || h.overdue || !r.State.Final() {
		return false
	}
	fetch := slices.ContainsFunc(r.Large(l.job.Outputs), func(out *tasks.Output) bool { return out.Stored == nil || l.checkStored })
	return fetch && !keeps(h.entry.ballots, r.digest)
}

// fetched takes in a result whose outputs were fetched, or could not be. It
// takes over what was staged.
func (l *ledger) fetched(c *claim, a *Accepted, err error, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := c.out[a.Task.Index] // still there: nothing else ends a copy that is fetching
	if err != nil {
		a.discard()
		l.drop(c, h)
		l.retryElsewhere(c, h, fmt.Sprintf("its outputs could not be fetched: %v", err), true)
	} else {
		l.end(c, h, a, now)
	}
	c.wakeUp()
	return l.over(c)
}

// drop takes a copy away from c.
func (l *ledger) drop(c *claim, h *handed) {
	delete(c.out, h.entry.index)
	c.ownBytes -= h.ownBytes
	l.copies--
	if !h.overdue {
		l.release(h.entry, c)
	}
	if l.atOnce > 0 {
		l.wakeStarved()
	}
}

// end takes in the end of one copy of a task.
func (l *ledger) end(c *claim, h *handed, a *Accepted, now time.Time) {
	c.ended, c.fetches = now, time.Time{}
	if len(a.Outputs) > 0 || a.LargeStdout != nil {
		c.releases = append(c.releases, h.entry.index)
	}
	settled := h.entry.accepted
	l.drop(c, h)
	switch {
	case h.overdue: // it runs again, or has ended, without this copy
		a.discard()
	case l.judge.caught[c.candidate.Peer]: // its word counts for nothing
		a.discard()
		l.requeue(h.entry)
	case !a.State.Final():
		a.discard()
		l.retryElsewhere(c, h, a.Why, !h.cancelled)
	case settled:
		l.sum.Dropped++
		l.late(c, h.entry, a)
	case a.State != tasks.StateDone && !l.judge.verify.Votes() && l.mayTryAgain(h.entry):
		l.measure(c, h, a, now)
		l.tryAgain(c, h.entry, a)
	default:
		l.measure(c, h, a, now)
		l.vote(c, h.entry, a)
	}
}

func (l *ledger) retryElsewhere(c *claim, h *handed, why string, attempted bool) {
	if h.entry.accepted || h.overdue {
		return
	}
	c.losses++
	c.lastLoss = why
	l.again(h.entry, c.candidate.Peer, why, attempted)
	l.wakeAll()
}

// measure learns from an accepted result how long tasks run and how large
// their results are.
func (l *ledger) measure(c *claim, h *handed, a *Accepted, now time.Time) {
	c.losses = 0
	c.accepted++
	l.workers[c.candidate.Peer] = true
	l.times.add(now.Sub(h.at))
	elapsed := max(1, min(a.Elapsed, now.Sub(h.at)))
	l.runs.add(elapsed)
	c.mean = blend(c.mean, elapsed)
	l.mean = blend(l.mean, elapsed)
	memory, _ := a.bytes()
	c.meanBytes = blend(c.meanBytes, int(memory))
	l.meanBytes = blend(l.meanBytes, int(memory))
}

// blend moves a running mean towards a new value; the first value is the mean.
func blend[T time.Duration | int](mean, value T) T {
	if mean == 0 {
		return value
	}
	return mean + (value-mean)/meanWeight
}

// fault reports what is wrong with the outputs of a result, beyond what
// tasks.Result.Validate says.
func (l *ledger) fault(r tasks.Result) error {
	if out := r.LargeStdout; out != nil && (out.Size > l.job.Limits.StdoutBytes || (out.Stored != nil && !l.job.StoreStdout)) {
		return fmt.Errorf("%w: standard output above the limit of the task, or stored where nobody asked for it", ErrViolation)
	}
	total := int64(0)
	for _, out := range r.Outputs {
		if out.Stored != nil && !l.job.StoreOutputs {
			return fmt.Errorf("%w: output stored where nobody asked for it", ErrViolation)
		}
		if out.Size > l.job.Limits.OutputBytes-total {
			return fmt.Errorf("%w: outputs above the limit of the task", ErrViolation)
		}
		total += out.Size
	}
	if len(r.Outputs) > l.job.Limits.OutputFiles {
		return fmt.Errorf("%w: %d outputs, above the limit of the task", ErrViolation, len(r.Outputs))
	}
	return nil
}
