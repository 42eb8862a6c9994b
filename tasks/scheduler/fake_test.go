package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// fakePool is a set of fake workers.
type fakePool struct {
	mu      sync.Mutex
	workers []*fakeWorker
}

func (p *fakePool) Candidates() []scheduler.Candidate {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []scheduler.Candidate
	for _, w := range p.workers {
		list = append(list, scheduler.Candidate{Peer: w.peer, Site: w.site})
	}
	return list
}

func (p *fakePool) Worker(peer grid.PeerID) (scheduler.Worker, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		if w.peer == peer {
			return w, nil
		}
	}
	return nil, grid.ErrUnknownPeer
}

// add makes one more worker; change may set its behaviour first.
func (p *fakePool) add(slots int, change func(*fakeWorker)) *fakeWorker {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.workers) + 1
	w := &fakeWorker{
		peer:     grid.PeerID{byte(n)},
		site:     fmt.Sprint("site", n),
		slots:    slots,
		contents: map[tasks.ContentID]bool{},
		outputs:  map[tasks.ContentID][]byte{},
		run: func(_ context.Context, o scheduler.Order) tasks.Result {
			return tasks.Result{State: tasks.StateDone, Stdout: []byte(strings.Join(o.Spec.Args, " "))}
		},
	}
	if change != nil {
		change(w)
	}
	p.workers = append(p.workers, w)
	return w
}

// fakeWorker runs tasks by a function. Fields are set before it is used.
type fakeWorker struct {
	peer  grid.PeerID
	site  string
	slots int
	run   func(context.Context, scheduler.Order) tasks.Result

	refuse        func() error  // answer to Offer and Claim
	diesAfter     int           // tasks ended, then the session breaks; 0: never
	mute          bool          // no report at all after the grant
	hangs         time.Duration // Offer takes so long
	dropsBeat     bool          // sends results but no signs of life
	repeats       bool          // sends every result twice
	garble        bool          // outputs are not what their hash says
	deaf          bool          // never reads orders
	returns       int           // tasks given back before any is run
	has           []int         // tasks of a former driver
	ignoresCancel bool          // runs to the end what it was asked to stop
	fetchTime     time.Duration // that it takes to fetch what is stored
	cannotFetch   bool
	lacks         string // tasks with this first argument it cannot run
	engine        string // of its offers and results

	mu       sync.Mutex
	claims   int
	puts     int
	contents map[tasks.ContentID]bool
	outputs  map[tasks.ContentID][]byte
	started  int
	running  int
	most     int // running at once
	released int
	opened   int // outputs read
	lied     int
	stopped  int // tasks whose context was cancelled
	fetched  int
	fetching int // contents on their way
	told     int // claims of which it heard that they are over before it lost them
}

func (w *fakeWorker) Offer(ctx context.Context, h scheduler.Header) (scheduler.Offer, error) {
	if w.hangs > 0 {
		select {
		case <-time.After(w.hangs):
		case <-ctx.Done():
			return scheduler.Offer{}, ctx.Err()
		}
	}
	if w.refuse != nil {
		if err := w.refuse(); err != nil {
			return scheduler.Offer{}, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	offer := scheduler.Offer{Slots: w.slots, Free: w.slots, Engine: w.engine, Left: len(w.has)}
	for _, id := range h.Contents() {
		if !w.contents[id] {
			offer.Missing = append(offer.Missing, id)
		}
	}
	return offer, nil
}

func (w *fakeWorker) PutContent(_ context.Context, _ scheduler.Header, id tasks.ContentID, size int64, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil || int64(len(data)) != size || blake3.Sum256(data) != id {
		return errors.Join(tasks.ErrContent, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.puts++
	w.contents[id] = true
	return nil
}

func (w *fakeWorker) OpenOutput(_ context.Context, _ tasks.TaskID, id tasks.ContentID) (io.ReadCloser, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opened++
	data, ok := w.outputs[id]
	if !ok {
		return nil, tasks.ErrNoContent
	}
	if w.garble {
		data = []byte(strings.ToUpper(string(data)))
	}
	return io.NopCloser(strings.NewReader(string(data))), nil
}

// output returns an Output that must be fetched from w.
func (w *fakeWorker) output(name, data string) tasks.Output {
	id := tasks.ContentID(blake3.Sum256([]byte(data)))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outputs[id] = []byte(data)
	return tasks.Output{Name: name, Size: int64(len(data)), Content: id}
}

func (w *fakeWorker) Claim(ctx context.Context, h scheduler.Header) (scheduler.Session, error) {
	if w.refuse != nil {
		if err := w.refuse(); err != nil {
			return nil, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range h.Contents() {
		if _, stored := h.Stored[id]; !w.contents[id] && !stored {
			return nil, tasks.ErrNoContent
		}
	}
	w.claims++
	ctx, cancel := context.WithCancelCause(ctx)
	s := &fakeSession{
		w: w, h: h, ctx: ctx, cancel: cancel,
		orders:  make(chan scheduler.Order, 10000),
		reports: make(chan scheduler.Report, 10000),
		stops:   map[int]context.CancelFunc{},
		left:    w.returns,
	}
	for range w.slots {
		go s.slot()
	}
	if !w.dropsBeat && !w.mute {
		go s.beat()
	}
	return s, nil
}

type fakeSession struct {
	w       *fakeWorker
	h       scheduler.Header
	ctx     context.Context
	cancel  context.CancelCauseFunc
	orders  chan scheduler.Order
	reports chan scheduler.Report

	mu    sync.Mutex
	stops map[int]context.CancelFunc
	ended int
	left  int
}

func (s *fakeSession) Slots() int { return s.w.slots }

func (s *fakeSession) Left() []int { return slices.Clone(s.w.has) }

func (s *fakeSession) Done() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.ctx.Err() == nil {
		s.w.told++
	}
	s.cancel(nil)
}

func (s *fakeSession) Send(o scheduler.Orders) error {
	if s.w.deaf {
		<-s.ctx.Done()
		return context.Cause(s.ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, index := range o.Cancel {
		if stop := s.stops[index]; stop != nil && !s.w.ignoresCancel {
			stop()
		}
	}
	s.w.mu.Lock()
	s.w.released += len(o.Release)
	s.w.mu.Unlock()
	for _, order := range o.Tasks {
		if s.left > 0 {
			s.left--
			s.reports <- scheduler.Report{Returned: []scheduler.Returned{{Index: order.Index, Why: "not now"}}}
			continue
		}
		if s.w.lacks != "" && order.Spec.Args[0] == s.w.lacks {
			s.reports <- scheduler.Report{Returned: []scheduler.Returned{{Index: order.Index, Why: "no " + s.w.lacks + " here", Unfit: true}}}
			continue
		}
		s.orders <- order
	}
	return s.ctx.Err()
}

func (s *fakeSession) Recv() (scheduler.Report, error) {
	select {
	case <-s.ctx.Done():
		return scheduler.Report{}, context.Cause(s.ctx)
	case r := <-s.reports:
		return r, nil
	}
}

func (s *fakeSession) beat() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(scheduler.HeartbeatEvery):
			s.w.mu.Lock()
			fetching := s.w.fetching > 0
			s.w.mu.Unlock()
			s.reports <- scheduler.Report{Fetching: fetching}
		}
	}
}

func (s *fakeSession) slot() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case order := <-s.orders:
			if s.fetch() {
				s.work(order)
			} else {
				s.reports <- scheduler.Report{Returned: []scheduler.Returned{{Index: order.Index, Why: "no holder answers", Unfetched: true}}}
			}
		}
	}
}

// fetch gets what is stored and not here.
func (s *fakeSession) fetch() bool {
	for id := range s.h.Stored {
		s.w.mu.Lock()
		have := s.w.contents[id]
		if !have && !s.w.cannotFetch {
			s.w.fetching++
		}
		s.w.mu.Unlock()
		switch {
		case have:
			continue
		case s.w.cannotFetch:
			return false
		}
		select {
		case <-time.After(s.w.fetchTime):
		case <-s.ctx.Done():
		}
		s.w.mu.Lock()
		s.w.fetching--
		s.w.fetched++
		s.w.contents[id] = true
		s.w.mu.Unlock()
	}
	return true
}

var errDied = errors.New("connection reset")

func (s *fakeSession) work(order scheduler.Order) {
	ctx, stop := context.WithCancel(s.ctx)
	defer stop()
	s.mu.Lock()
	s.stops[order.Index] = stop
	s.mu.Unlock()
	s.w.enter(1)
	result := s.w.run(ctx, order)
	s.w.enter(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.stops, order.Index)
	if ctx.Err() != nil {
		s.w.mu.Lock()
		s.w.stopped++
		s.w.mu.Unlock()
		result = tasks.Result{State: tasks.StateCancelled, ExitCode: tasks.NoExitCode}
	}
	if s.ended++; s.w.diesAfter > 0 && s.ended > s.w.diesAfter {
		s.cancel(errDied)
		return
	}
	if s.w.mute {
		return
	}
	result.Task = tasks.TaskID{Job: s.h.Job, Index: order.Index}
	result.Peer, result.Engine = s.w.peer, s.w.engine
	report := scheduler.Report{Results: []scheduler.SignedResult{{Result: result}}}
	if s.w.repeats {
		report.Results = append(report.Results, report.Results[0])
	}
	s.reports <- report
}

func (w *fakeWorker) enter(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running += n
	w.started += max(n, 0)
	w.most = max(w.most, w.running)
}

// fakeContents serves bytes by their hash.
type fakeContents map[tasks.ContentID][]byte

func (c fakeContents) OpenContent(id tasks.ContentID) (io.ReadCloser, int64, error) {
	data, ok := c[id]
	if !ok {
		return nil, 0, tasks.ErrNoContent
	}
	return io.NopCloser(strings.NewReader(string(data))), int64(len(data)), nil
}

func (c fakeContents) add(data string) tasks.ContentID {
	id := tasks.ContentID(blake3.Sum256([]byte(data)))
	c[id] = []byte(data)
	return id
}

// newJob returns a job of count tasks, each with its index as its argument.
func newJob(count int) (scheduler.Job, fakeContents) {
	contents := fakeContents{}
	return scheduler.Job{
		Header: scheduler.Header{
			Job:    tasks.JobID{1},
			Module: contents.add("a module"),
			Inputs: []tasks.Input{{Name: "words", Content: contents.add("an input"), Size: 8}},
			Limits: tasks.DefaultLimits(),
		},
		Count: count,
		Task:  func(index int) scheduler.Part { return scheduler.Part{Args: []string{fmt.Sprint(index)}} },
	}, contents
}

// runJob runs and checks that each task was received exactly once, in order
// unless AsTheyCome, and that the summary agrees.
func runJob(t *testing.T, pool *fakePool, job scheduler.Job, cfg scheduler.Config, contents fakeContents) ([]tasks.Result, scheduler.Summary) {
	t.Helper()
	results, sum, err := receiveAll(t.Context(), pool, job, cfg, contents)
	if err != nil {
		t.Fatal(err)
	}
	return results, sum
}

func receiveAll(ctx context.Context, pool *fakePool, job scheduler.Job, cfg scheduler.Config, contents fakeContents) ([]tasks.Result, scheduler.Summary, error) {
	cfg.Pool, cfg.Contents = pool, contents
	seen := map[int]bool{}
	var results []tasks.Result
	sum, err := scheduler.Run(ctx, job, cfg, func(a *scheduler.Accepted) error {
		if seen[a.Task.Index] {
			return fmt.Errorf("task %d received twice", a.Task.Index)
		}
		if !cfg.AsTheyCome && a.Task.Index != len(seen) {
			return fmt.Errorf("task %d received at position %d", a.Task.Index, len(seen))
		}
		seen[a.Task.Index] = true
		results = append(results, a.Result)
		return nil
	})
	if err == nil && (len(seen) != job.Count || sum.Ended() != job.Count) {
		err = fmt.Errorf("%d of %d received, summary %+v", len(seen), job.Count, sum)
	}
	return results, sum, err
}
