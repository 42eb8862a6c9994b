package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"gotong/grid/blake3"
	"gotong/tasks"
)

const (
	// lossesMax is how many tasks in a row a worker may lose or return before
	// its claim ends.
	lossesMax = 8
	// fetchesAtOnce is how many outputs of one worker are read at once.
	fetchesAtOnce = 4
	// doneMost is how long a worker has to take in that nothing of its claim is
	// wanted any more.
	doneMost = time.Second
)

// Why claims end.
var (
	errFinished  = errors.New("job is over")
	errSilent    = fmt.Errorf("silent for %s", LeaseTTL)
	errDeaf      = fmt.Errorf("took no message for %s", LeaseTTL)
	errUnfetched = errors.New("could not fetch a content of the job")
	errStalled   = errors.New("ended none of its tasks within their time limit")
	errUnable    = errors.New("lost one task after the other")
	errClosing   = errors.New("takes no more tasks")
)

// claim is an open session with one worker.
type claim struct {
	candidate Candidate
	worker    Worker
	ledger    *ledger
	contents  Contents
	stage     *stage
	held      func(context.Context, tasks.Stored) error // Config.Held
	logger    *slog.Logger
	joined    func()        // is called once the ledger knows what the worker has left
	wake      chan struct{} // 1 token: orders may be waiting
	stop      context.CancelCauseFunc
	fetching  chan struct{} // fetchesAtOnce tokens
	slots     int

	puts       puts
	supplyWake chan struct{} // 1 token: tasks may wait for contents

	// Guarded by ledger.mu.
	out       map[int]*handed // copies that the worker has
	left      []int           // tasks that it says to have of another caller, not handed to it yet; see takeLeft
	sequence  uint64
	ownBytes  int64    // of contents of their own that they have
	supplies  []supply // wait for their contents
	supplied  []Order  // have them now, to be sent
	cancels   []int
	releases  []int
	closing   string
	starved   bool // found nothing to do
	ended     time.Time
	fetches   time.Time                // since when it has only fetched contents; zero: it has not
	near      map[tasks.ContentID]bool // stored contents of tasks that it got
	pushed    bool                     // it was handed what it could have fetched
	unfetched bool                     // it could not fetch a content
	mean      time.Duration            // run time of its tasks
	meanBytes int
	losses    int // in a row
	lastLoss  string
	accepted  int
}

// handed is a copy of a task that a worker has.
type handed struct {
	entry     *entry
	sequence  uint64
	at        time.Time
	ownBytes  int64
	supplying bool      // not sent yet: its contents are on their way
	fetching  bool      // ended; its outputs are being read
	begun     time.Time // when it was seen to run, for Config.TimeoutPercent
	overdue   bool      // given up: the task runs again elsewhere
	cancelled bool      // its result was not wanted any more
}

func newClaim(candidate Candidate, worker Worker, l *ledger, contents Contents, st *stage, logger *slog.Logger) *claim {
	return &claim{
		contents:   contents,
		puts:       puts{sent: map[tasks.ContentID]*put{}},
		supplyWake: make(chan struct{}, 1),
		candidate:  candidate,
		worker:     worker,
		ledger:     l,
		stage:      st,
		logger:     logger.With("peer", candidate.Peer, "job", l.job.Job),
		wake:       make(chan struct{}, 1),
		fetching:   make(chan struct{}, fetchesAtOnce),
		out:        map[int]*handed{},
	}
}

// run claims the worker and works until the claim ends. It returns why, never
// nil.
func (c *claim) run(ctx context.Context) error {
	ctx, c.stop = context.WithCancelCause(ctx)
	defer c.stop(errFinished)
	lease := time.AfterFunc(LeaseTTL, func() { c.stop(errSilent) })
	defer lease.Stop()
	held, end := context.WithCancel(context.WithoutCancel(ctx)) // the session's
	defer end()
	unless := context.AfterFunc(ctx, end)
	session, err := c.worker.Claim(held, c.ledger.job.Header)
	if err != nil {
		return c.reason(ctx, err)
	}
	if unless() {
		context.AfterFunc(ctx, func() { c.part(ctx, end) })
	}
	c.slots = max(1, min(session.Slots(), slotsMax))
	lease.Reset(LeaseTTL)
	c.left = session.Left()
	c.logger.Debug("claimed", "slots", c.slots, "left", len(c.left))
	c.ledger.join(c)
	c.joined()

	var wg sync.WaitGroup
	wg.Go(func() {
		c.stop(c.send(ctx, session))
		if c.finishes(ctx) {
			session.Done()
		}
	})
	for range putsAtOnce {
		wg.Go(func() { c.supply(ctx) })
	}
	c.stop(c.receive(ctx, session, lease, &wg))
	end()
	wg.Wait()
	why := context.Cause(ctx)
	c.ledger.leave(c, why.Error())
	c.logger.Debug("claim ended", "why", why)
	return why
}

// finishes reports whether a worker that would let tasks outlive the claim is to
// end them, now that ctx has ended.
func (c *claim) finishes(ctx context.Context) bool {
	why := context.Cause(ctx)
	return c.ledger.job.Outlive && slices.ContainsFunc(unwanted, func(err error) bool { return errors.Is(why, err) })
}

// unwanted are the ends of a claim after which nothing of it is wanted.
var unwanted = []error{errFinished, tasks.ErrCancelled, errUnfetched, errStalled, errUnable, errClosing, errLied, ErrViolation}

// part ends the session of a claim whose context has ended.
func (c *claim) part(ctx context.Context, end func()) {
	if c.finishes(ctx) {
		time.AfterFunc(doneMost, end)
		return
	}
	end()
}

// reason prefers why the claim was stopped to the error that followed from it.
func (c *claim) reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// send passes orders on as they come up, and signs of life.
func (c *claim) send(ctx context.Context, session Session) error {
	beat := time.NewTicker(HeartbeatEvery)
	defer beat.Stop()
	blocked := time.AfterFunc(LeaseTTL, func() { c.stop(errDeaf) })
	blocked.Stop()
	defer blocked.Stop()
	for {
		orders := c.ledger.orders(c, time.Now())
		if orders.Empty() {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-c.wake:
				continue
			case <-beat.C: // send the empty orders
			}
		}
		blocked.Reset(LeaseTTL)
		if err := session.Send(orders); err != nil {
			return c.reason(ctx, err)
		}
		blocked.Stop()
	}
}

// receive takes in reports until the session ends.
func (c *claim) receive(ctx context.Context, session Session, lease *time.Timer, wg *sync.WaitGroup) error {
	for {
		r, err := session.Recv()
		if err != nil {
			return c.reason(ctx, err)
		}
		if ctx.Err() != nil {
			continue // it ends
		}
		lease.Reset(LeaseTTL)
		if err := c.takeIn(ctx, r, wg); err != nil {
			c.stop(err) // the session ends when its worker knows: see part
		}
	}
}

// takeIn takes in one report. An error ends the claim.
func (c *claim) takeIn(ctx context.Context, r Report, wg *sync.WaitGroup) error {
	for i := range r.Results {
		if err := c.check(r.Results[i].Result); err != nil {
			return err
		}
		r.Results[i].digest = r.Results[i].Digest()
	}
	fetches, err := c.ledger.report(c, r, time.Now())
	for _, f := range fetches {
		wg.Go(func() { c.fetch(ctx, f) })
	}
	return err
}

// check refuses results whose outputs break the limits of the job or do not
// have the hashes that name them.
func (c *claim) check(r tasks.Result) error {
	if err := c.ledger.fault(r); err != nil {
		return err
	}
	for _, out := range r.Outputs {
		if out.Inline() && blake3.Sum256(out.Data) != out.Content {
			return fmt.Errorf("%w: output %q: %w", ErrViolation, out.Name, tasks.ErrContent)
		}
	}
	return nil
}

// fetch reads the outputs of a result and reports it.
func (c *claim) fetch(ctx context.Context, f fetch) {
	a := &Accepted{Result: f.result.Result, Proof: f.result.Proof, digest: f.result.digest}
	var err error
	select {
	case c.fetching <- struct{}{}:
		a.staged, err = c.stage.fetch(ctx, c.worker, c.held, a.Result, c.ledger.job.Outputs)
		<-c.fetching
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if over := c.ledger.fetched(c, a, err, time.Now()); over != nil {
		c.stop(over)
	}
}

// inOrder returns the copies that the worker has as they were sent.
func (c *claim) inOrder() []*handed {
	held := make([]*handed, 0, len(c.out))
	for _, h := range c.out {
		held = append(held, h)
	}
	slices.SortFunc(held, func(a, b *handed) int { return cmp.Compare(a.sequence, b.sequence) })
	return held
}

// computing reports whether the worker has tasks that it has not ended.
func (c *claim) computing() bool {
	for _, h := range c.out {
		if !h.fetching && !h.supplying {
			return true
		}
	}
	return false
}

// cancel asks the worker to stop a task whose result is no longer wanted.
func (c *claim) cancel(index int) {
	if h := c.out[index]; h != nil && !h.fetching && !h.supplying {
		h.cancelled = true
		c.cancels = append(c.cancels, index)
		c.wakeUp()
	}
}

// end ends the claim.
func (c *claim) end(why error) { c.stop(why) }

func (c *claim) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
