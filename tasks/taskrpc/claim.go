package taskrpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// claim is a caller's hold on slots for one job, on the worker's side. All
// fields are guarded by service.mu.
type claim struct {
	service *Service
	job     Job
	header  scheduler.Header
	turn    *turn           // of its owner
	ctx     context.Context // of its tasks
	cancel  context.CancelCauseFunc
	lease   *time.Timer
	wake    chan struct{} // 1 token: something to report

	queue       []queued
	queueBytes  int
	known       map[int]bool // queued, running or not yet reported
	running     map[int]*run // by task
	left        *left        // of a caller before, what this one has not asked for; nil: nothing
	reports     []outcome
	reportBytes int
	sent        sent
	returned    []scheduler.Returned
	held        map[int]tasks.Result // outputs that the caller may read
	closing     string
	said        bool          // closing was reported
	fetched     *atomic.Int64 // when bytes of a content came last, in Unix nanoseconds
}

// queued is a task that waits for a slot.
type queued struct {
	order scheduler.Order
	bytes int
}

// outcome is a result that waits to be reported.
type outcome struct {
	result tasks.Result
	raw    []byte
	spec   tasks.Spec
}

func newClaim(s *Service, job Job, h scheduler.Header) *claim {
	c := &claim{
		service: s, job: job, header: h,
		wake:    make(chan struct{}, 1),
		known:   map[int]bool{},
		running: map[int]*run{},
		held:    map[int]tasks.Result{},
		fetched: new(atomic.Int64),
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.lease = time.AfterFunc(scheduler.LeaseTTL, func() { s.close(c, errCallerSilent) })
	return c
}

// take accepts orders and renews the lease. An error means that the caller
// breaks the rules; the claim should end.
func (c *claim) take(o scheduler.Orders) error {
	s := c.service
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	c.lease.Reset(scheduler.LeaseTTL)
	for _, order := range o.Tasks {
		if err := c.enqueue(order); err != nil {
			return err
		}
	}
	for _, index := range o.Cancel {
		c.stop(index)
	}
	for _, index := range o.Release {
		c.release(index)
	}
	s.dispatch()
	return nil
}

func (c *claim) enqueue(order scheduler.Order) error {
	bytes := 64
	for _, arg := range order.Part.Args {
		bytes += len(arg) + 16
	}
	for _, in := range order.Part.Inputs {
		bytes += len(in.Name) + 64
	}
	for _, stored := range order.Part.Stored {
		bytes += 64 + 34*(len(stored.Segments)+len(stored.Holders))
	}
	switch {
	case c.known[order.Index]:
		return invalid("task %d given twice", order.Index)
	case len(c.known) >= claimTasks || c.queueBytes+bytes > claimBytes:
		return invalid("more tasks than a claim may hold")
	}
	c.known[order.Index] = true
	if c.takeLeft(order) {
		return nil
	}
	if c.closing != "" {
		c.giveBack(order.Index, c.closing)
		return nil
	}
	c.queue = append(c.queue, queued{order, bytes})
	c.queueBytes += bytes
	return nil
}

func (c *claim) giveBack(index int, why string) {
	c.returned = append(c.returned, scheduler.Returned{Index: index, Why: clip(why)})
	c.wakeUp()
}

// failed gives back a task that the runner did not run.
func (c *claim) failed(order scheduler.Order, err error) {
	c.giveBack(order.Index, err.Error())
	stored := len(c.header.Stored)+len(order.Part.Stored) > 0
	back := &c.returned[len(c.returned)-1]
	back.Unfetched = stored && errors.Is(err, tasks.ErrNoContent)
	if back.Unfit = errors.Is(err, tasks.ErrUnfit); back.Unfit {
		back.Why = clip(tasks.Reason(err))
	}
}

// stop ends a task whose result is not wanted; it is reported as cancelled.
func (c *claim) stop(index int) {
	if r := c.running[index]; r != nil {
		r.cancel()
		return
	}
	if !c.known[index] {
		c.service.dropLeft(c.left, index)
		return
	}
	i := slices.IndexFunc(c.queue, func(q queued) bool { return q.order.Index == index })
	if i < 0 {
		return // its result is on the way
	}
	q := c.queue[i]
	c.queue = slices.Delete(c.queue, i, i+1)
	c.queueBytes -= q.bytes
	c.report(tasks.Result{
		Task:     tasks.TaskID{Job: c.header.Job, Index: index},
		State:    tasks.StateCancelled,
		ExitCode: tasks.NoExitCode,
		Why:      "no longer wanted",
	}, q.order.Spec)
}

func (c *claim) release(index int) {
	if r, ok := c.held[index]; ok {
		delete(c.held, index)
		c.service.cfg.Runner.Release(r.Task)
	}
}

// report queues a result for the caller.
func (c *claim) report(r tasks.Result, spec tasks.Spec) {
	raw, err := encodeResult(r, spec.Seed())
	if err != nil || len(raw) > tasks.MaxResultBytes {
		c.giveBack(r.Task.Index, fmt.Sprintf("result cannot be sent: %d bytes, %v", len(raw), err))
		return
	}
	c.tell(outcome{r, raw, spec})
}

func (c *claim) tell(o outcome) {
	c.reports = append(c.reports, o)
	c.reportBytes += len(o.raw)
	c.wakeUp()
}

func (c *claim) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// ready reports whether a task of c may start.
func (c *claim) ready() bool {
	return len(c.queue) > 0 && c.reportBytes < reportBytes && len(c.held) < heldTasks
}

// before reports whether tasks of c start before those of d wherever d stands in
// the list of claims.
func (c *claim) before(d *claim) bool {
	if c.turn != d.turn {
		return c.turn.before(d.turn)
	}
	return c.header.Priority > d.header.Priority // both of one owner
}

// pop takes the first task of the queue.
func (c *claim) pop() scheduler.Order {
	q := c.queue[0]
	c.queue[0] = queued{}
	c.queue = c.queue[1:]
	c.queueBytes -= q.bytes
	return q.order
}

// batch is what travels to the caller at once.
type batch struct {
	fetching bool
	outcomes []outcome
	returned []scheduler.Returned
	closing  string
}

// next waits for something to report, at most until the next sign of life is
// due: then the batch is empty. It returns an error when the claim has ended
// or ctx has.
func (c *claim) next(ctx context.Context) (batch, error) {
	beat := time.NewTimer(scheduler.HeartbeatEvery)
	defer beat.Stop()
	for {
		if b, ok := c.collect(); ok {
			return b, nil
		}
		select {
		case <-c.ctx.Done():
			return batch{}, context.Cause(c.ctx)
		case <-ctx.Done():
			return batch{}, context.Cause(ctx)
		case <-c.wake:
		case <-beat.C:
			return batch{fetching: c.fetches()}, nil
		}
	}
}

// fetches reports whether contents have been arriving of late.
func (c *claim) fetches() bool {
	return time.Since(time.Unix(0, c.fetched.Load())) < scheduler.LeaseTTL
}

func (c *claim) collect() (b batch, ok bool) {
	s := c.service
	s.mu.Lock()
	defer s.mu.Unlock()
	n, bytes := 0, 0
	for n < len(c.reports) && n < scheduler.MaxSignedResults {
		size := len(c.reports[n].raw)
		if n > 0 && bytes+size > batchBytes {
			break
		}
		bytes += size
		n++
	}
	b.fetching = c.fetches()
	b.outcomes = slices.Clone(c.reports[:n])
	clear(c.reports[:n])
	c.reports = c.reports[n:]
	c.reportBytes -= bytes
	if c.header.Outlive {
		c.sent = c.sent.add(b.outcomes, time.Now())
	}
	m := min(len(c.returned), maxTasks)
	b.returned = slices.Clone(c.returned[:m])
	c.returned = c.returned[m:]
	for _, o := range b.outcomes {
		delete(c.known, o.result.Task.Index)
	}
	for _, r := range b.returned {
		delete(c.known, r.Index)
	}
	if c.closing != "" && !c.said {
		b.closing, c.said = c.closing, true
	}
	if len(c.reports)+len(c.returned) > 0 {
		c.wakeUp()
	}
	s.hush()
	if n > 0 {
		s.dispatch() // room for more reports
	}
	return b, n+m > 0 || b.closing != ""
}
