package taskrpc

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/storage"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// Why claims end on the worker's side.
var (
	errCallerSilent = fmt.Errorf("caller was silent for %s: %w", scheduler.LeaseTTL, context.DeadlineExceeded)
	errCallerGone   = errors.New("caller went away")
	errClaimOver    = errors.New("claim is over") // the caller wants nothing more of it
	errReplaced     = errors.New("caller claimed again")
)

// Config says how a Service works. All fields but Logger, Weight and Grace are
// required.
type Config struct {
	Runner Runner
	Key    ed25519.PrivateKey // the node key; signs results
	// Caller says who calls, from the connection; an error (such as
	// grid.ErrNotMember) refuses the call.
	Caller func(ctx context.Context) (grid.PeerID, error)
	// Authorize says whether a verified grant of a job holds here and now: its
	// grid, its time, its owner.
	Authorize func(storage.SignedJobGrant) error
	// Weight says how many turns an owner has for one of others, when tasks of
	// several wait; +Inf: before all others. Nil: all weigh the same. It must be
	// quick.
	Weight func(grid.OwnerID) float64
	// Grace is for how long tasks go on whose caller fell silent, and asked for it
	// (scheduler.Header.Outlive), and their results are kept; 0: not at all.
	Grace  time.Duration
	Logger *slog.Logger // nil: discard
}

// Service lets members run tasks on this peer. Register it as the Tasks
// service of a gRPC server that accepts messages of MaxMessageBytes.
type Service struct {
	tasksv1.UnimplementedTasksServer
	cfg    Config
	logger *slog.Logger
	tasks  sync.WaitGroup

	mu        sync.Mutex
	claims    []*claim // in the order in which their callers have their turns
	turns     turns
	left      []*left // by callers that fell silent, oldest first
	leftBytes int     // of results in left
	running   int     // tasks handed to the runner
	mean      time.Duration
	transfers map[grid.PeerID]int
	grants    map[string]storage.SignedJobGrant // verified, by their bytes
	closing   string
	quiet     chan struct{} // 1 token while closing: a claim has less to report
}

// NewService returns a service that takes claims at once. Close it with Drain.
func NewService(cfg Config) *Service {
	logger := cfg.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, turns: newTurns(cfg.Weight), logger: logger, transfers: map[grid.PeerID]int{}, grants: map[string]storage.SignedJobGrant{}, quiet: make(chan struct{}, 1)}
}

// Busy returns how many slots are in use.
func (s *Service) Busy() int {
	slots, _ := s.cfg.Runner.Slots()
	s.mu.Lock()
	defer s.mu.Unlock()
	return min(slots, s.running)
}

// offer answers what the peer could take of a job.
func (s *Service) offer(caller grid.PeerID, h scheduler.Header) (scheduler.Offer, error) {
	job, slots, err := s.admit(caller, h)
	if err != nil {
		return scheduler.Offer{}, err
	}
	s.mu.Lock()
	free, left := s.free(job.Owner, slots), s.leftOf(job, h)
	s.mu.Unlock()
	return scheduler.Offer{
		Slots:   slots,
		Free:    free,
		Missing: s.cfg.Runner.Missing(h.Contents()),
		Engine:  s.cfg.Runner.Engine(h.Runtime),
		Left:    left,
	}, nil
}

// admit applies the donor's rules to a job, once its grant was verified.
func (s *Service) admit(caller grid.PeerID, h scheduler.Header) (job Job, slots int, err error) {
	s.mu.Lock()
	closing := s.closing
	s.mu.Unlock()
	if closing != "" {
		return job, 0, fmt.Errorf("%s: %w", closing, tasks.ErrStopped)
	}
	if job, err = s.job(caller, h); err != nil {
		return job, 0, err
	}
	var p scheduler.Part
	if h.Command != "" {
		p.Args = []string{h.Command}
	}
	slots, why := s.cfg.Runner.Slots()
	err = s.cfg.Runner.Check(job.Asker, h.Spec(p))
	if slots <= 0 && !errors.Is(err, tasks.ErrUnfit) { // which no waiting changes
		return job, 0, fmt.Errorf("%s: %w", cmp.Or(why, "gives no slots for tasks"), tasks.ErrRefused)
	}
	return job, slots, err
}

// open begins a claim.
func (s *Service) open(caller grid.PeerID, h scheduler.Header) (*claim, int, error) {
	job, slots, err := s.admit(caller, h)
	if err != nil {
		return nil, 0, err
	}
	missing := slices.DeleteFunc(s.cfg.Runner.Missing(h.Contents()), func(id tasks.ContentID) bool {
		_, stored := h.Stored[id]
		return stored
	})
	if len(missing) > 0 {
		return nil, 0, &tasks.MissingContent{IDs: missing}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	own := 0
	for _, c := range slices.Clone(s.claims) {
		switch {
		case c.job.Peer != caller && c.header.Job == h.Job:
			return nil, 0, fmt.Errorf("another peer drives this job here: %w", tasks.ErrBusy)
		case c.header.Job == h.Job && c.header.Step == h.Step:
			s.end(c, errReplaced) // the caller lost it and has come back
		case c.job.Peer == caller:
			own++
		}
	}
	if len(s.claims) >= claimsMax || own >= claimsPerCaller {
		return nil, 0, fmt.Errorf("%d claims are open, %d of them yours: %w", len(s.claims), own, tasks.ErrBusy)
	}
	c := newClaim(s, job, h)
	c.closing = s.closing // Drain may have begun since admit
	s.pickUp(c)
	s.claims = append(s.claims, c)
	c.turn = s.turns.join(job.Owner)
	s.logger.Info("claim opened", "peer", caller, "job", h.Job)
	return c, slots, nil
}

// close ends a claim: its guests are stopped, its outputs released, unless it
// leaves them to another. It may be called more than once; the first reason
// stands.
func (s *Service) close(c *claim, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(c, why)
}

// end is close for callers that hold s.mu.
func (s *Service) end(c *claim, why error) {
	i := slices.Index(s.claims, c)
	if i < 0 {
		return
	}
	s.claims = slices.Delete(s.claims, i, i+1)
	s.turns.leave(c.job.Owner)
	c.cancel(why)
	c.lease.Stop()
	if c.outlives(why) {
		s.leave(c)
	}
	s.endLeft(c.left)
	for _, r := range c.running {
		r.abandon()
	}
	c.queue, c.queueBytes, c.reports = nil, 0, nil
	for index := range c.held {
		c.release(index)
	}
	s.hush()
	s.logger.Info("claim closed", "peer", c.job.Peer, "job", c.header.Job, "why", why)
}

// dispatch starts tasks while the runner has room: of the owner whose turn it is,
// those of the highest priority, one of each caller in turn.
func (s *Service) dispatch() {
	slots, _ := s.cfg.Runner.Slots()
	for s.running < slots*s.ahead() {
		c := s.next()
		if c == nil {
			return
		}
		s.start(c, c.pop())
		s.lastInTurn(c)
	}
}

// next returns the claim whose task starts next; nil when none is ready.
func (s *Service) next() (first *claim) {
	for _, c := range s.claims {
		if c.ready() && (first == nil || c.before(first)) {
			first = c
		}
	}
	return first
}

// ahead returns how many tasks per slot the runner is given: one, more when
// they are so short that it would wait for the next.
func (s *Service) ahead() int {
	if s.mean <= 0 {
		return 1
	}
	return max(1, min(aheadMax, int(shortTask/s.mean)))
}

// lastInTurn moves the claims of the caller who was served behind the others',
// and of those the one that was served to the end.
func (s *Service) lastInTurn(served *claim) {
	if len(s.claims) < 2 {
		return
	}
	rank := func(c *claim) int {
		switch {
		case c == served:
			return 2
		case c.job.Peer == served.job.Peer:
			return 1
		}
		return 0
	}
	slices.SortStableFunc(s.claims, func(a, b *claim) int { return cmp.Compare(rank(a), rank(b)) })
}

// run is a task that was handed to the runner. It is guarded by Service.mu.
type run struct {
	order  scheduler.Order
	cancel context.CancelFunc
	claim  *claim // that has it, or
	left   *left  // that has it; neither: nobody wants the result
}

// abandon stops a task whose result nobody wants.
func (r *run) abandon() {
	r.claim, r.left = nil, nil
	r.cancel()
}

// start hands a task to the runner.
func (s *Service) start(c *claim, order scheduler.Order) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{order: order, cancel: cancel, claim: c}
	c.running[order.Index] = r
	s.running++
	charged := c.turn.start(s.mean)
	s.tasks.Go(func() {
		defer cancel()
		task := tasks.Task{ID: tasks.TaskID{Job: c.header.Job, Index: order.Index}, Spec: order.Spec}
		result, err := s.cfg.Runner.Do(ctx, Work{
			Job: c.job, Task: task, Stored: []map[tasks.ContentID]tasks.Stored{c.header.Stored, order.Part.Stored},
			Fetching: func() { c.fetched.Store(time.Now().UnixNano()) },
		})
		result.Task = task.ID
		s.finish(r, c.job.Owner, charged, result, err)
	})
}

// finish takes in what the runner says of a task.
func (s *Service) finish(r *run, owner grid.OwnerID, charged time.Duration, result tasks.Result, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	s.turns.finish(owner, charged, result.Elapsed)
	kept := err == nil && slices.ContainsFunc(result.Large(true), func(o *tasks.Output) bool { return o.Stored == nil })
	switch c := r.claim; {
	case r.left != nil:
		s.endedLeft(r, result, kept, err)
	case c == nil:
		if kept {
			s.cfg.Runner.Release(result.Task)
		}
	case err != nil:
		delete(c.running, r.order.Index)
		c.failed(r.order, err)
	default:
		delete(c.running, r.order.Index)
		s.learn(result.Elapsed)
		if kept {
			c.held[r.order.Index] = result
		}
		c.report(result, r.order.Spec)
	}
	s.dispatch()
}

// meanWeight is the weight of a new value in a running mean: 1 in so many.
const meanWeight = 4

// learn moves the mean run time of tasks; the first value is the mean.
func (s *Service) learn(elapsed time.Duration) {
	elapsed = max(1, elapsed)
	if s.mean == 0 {
		s.mean = elapsed
	}
	s.mean += (elapsed - s.mean) / meanWeight
}

// openOutput opens an output of a task of the caller.
func (s *Service) openOutput(caller grid.PeerID, task tasks.TaskID, id tasks.ContentID) (io.ReadCloser, error) {
	s.mu.Lock()
	allowed := slices.ContainsFunc(s.claims, func(c *claim) bool {
		held := c.held[task.Index]
		return c.job.Peer == caller && c.header.Job == task.Job &&
			slices.ContainsFunc(held.Large(true), func(o *tasks.Output) bool { return o.Content == id })
	})
	s.mu.Unlock()
	if !allowed {
		return nil, fmt.Errorf("no such output of task %s: %w", task.Short(), tasks.ErrNoContent)
	}
	r, _, err := s.cfg.Runner.OpenContent(id)
	return r, err
}
