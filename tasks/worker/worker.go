package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gotong/tasks"
	"gotong/tasks/native"
	"gotong/tasks/sandbox"
)

// Timings and bounds of a worker.
const (
	// outputHold is how long outputs that were not fetched are kept.
	outputHold = time.Hour
	// maxHeld bounds the results whose outputs are held.
	maxHeld = 4096
	// tendEvery is how often the worker looks after slots and held outputs.
	tendEvery = 250 * time.Millisecond
	// stallAfter is how long the first of several tasks in one sandbox may take
	// before the others may go elsewhere.
	stallAfter = time.Second
	// slotsDir is where sandboxes have their staging directories.
	slotsDir = "slots"
	// codeDir is where compiled modules are.
	codeDir = "compiled"
)

// Worker runs tasks. See the package comment.
type Worker struct {
	cfg    Config
	store  *Store
	code   *sandbox.Cache // nil: each sandbox compiles
	opened chan struct{}  // closed when it is known whether tasks are accepted

	mu       sync.Mutex
	phase    phase
	refusal  error // why no task is accepted; nil: they are
	layers   []sandbox.Layer
	native   *native.Runtime
	noNative error // why no native command is accepted; nil: they are
	queue    queue
	slots    []*slot
	active   int // accepted and not answered
	counts   Counts
	allowed  int                          // slots that may run; see Allow
	why      string                       // in words, when it is not all of them
	faults   map[key]*sandbox.ModuleError // modules that cannot run
	held     map[tasks.TaskID]hold
}

type phase int

const (
	phaseNew phase = iota
	phaseRunning
	phaseStopped
)

// key says which tasks may share a sandbox process.
type key struct {
	job    tasks.JobID
	module tasks.ContentID
	limits tasks.Limits
}

func keyOf(t tasks.Task) key { return key{t.ID.Job, t.Spec.Module, t.Spec.Limits} }

// hold keeps the outputs of one task in the store.
type hold struct {
	ids     []tasks.ContentID
	expires time.Time
}

// Counts are numbers of tasks since New.
type Counts struct {
	Accepted, Refused                    int
	Done, Failed, Limit, Cancelled, Lost int
	Held, Resumed, Withdrawn             int // by the donor's rules: slots with guests, and tasks
	SandboxesStarted                     int
}

// Status is what a worker does now.
type Status struct {
	Slots   int // tasks run at once
	Busy    int // slots that have a task
	Allowed int // slots that may run now; see Allow
	Held    int // slots whose guest is stopped
	// HeldSince is when the first of them was stopped.
	HeldSince time.Time
	Waiting   int // tasks accepted that no slot has taken yet
	Layers    []sandbox.Layer
	Refusal   string // why no task is accepted, in words; empty: they are
	Counts    Counts
}

// New opens the worker's directory and removes what an earlier run left half
// done. It starts nothing: see Run.
func New(cfg Config) (*Worker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if err := os.RemoveAll(filepath.Join(cfg.Dir, slotsDir)); err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, slotsDir), 0o700); err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	store, err := openStore(cfg.Dir, cfg.StoreBytes)
	if err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	var code *sandbox.Cache
	if cfg.CodeBytes > 0 {
		if code, err = sandbox.OpenCache(filepath.Join(cfg.Dir, codeDir), cfg.CodeBytes, cfg.Logger); err != nil {
			return nil, fmt.Errorf("worker: %w", err)
		}
	}
	w := &Worker{
		cfg: cfg, store: store, code: code, queue: newQueue(),
		faults: make(map[key]*sandbox.ModuleError), held: make(map[tasks.TaskID]hold),
		refusal: errNotRunning, opened: make(chan struct{}), allowed: cfg.Slots,
	}
	for i := range cfg.Slots {
		w.slots = append(w.slots, newSlot(w, i))
	}
	return w, nil
}

var errNotRunning = fmt.Errorf("%w: not started", tasks.ErrStopped)

// Store returns the content store; it may be used before and during Run.
func (w *Worker) Store() *Store { return w.store }

// Run runs tasks until ctx ends, then answers every task that was accepted as
// lost, and returns nil. It may be called once. On a machine that cannot confine
// a guest it goes on and refuses every task with the reason.
func (w *Worker) Run(ctx context.Context) error {
	launcher, err := sandbox.OpenLauncher(w.cfg.sandboxOptions(w.code))
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	defer launcher.Close()
	defer w.store.close()
	w.openNative(ctx, launcher)
	w.open(w.probe(ctx, launcher))
	var group sync.WaitGroup
	for _, s := range w.slots {
		group.Go(func() { s.run(ctx, launcher) })
	}
	w.tend(ctx)
	w.stop()
	group.Wait()
	return os.RemoveAll(filepath.Join(w.cfg.Dir, slotsDir))
}

// probe asks a sandbox that runs nothing for its layers.
func (w *Worker) probe(ctx context.Context, launcher *sandbox.Launcher) ([]sandbox.Layer, error) {
	dir, err := os.MkdirTemp(filepath.Join(w.cfg.Dir, slotsDir), "probe-")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tasks.ErrSandbox, err)
	}
	defer os.RemoveAll(dir)
	layers, err := launcher.Layers(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tasks.ErrSandbox, err)
	}
	return layers, sandbox.Refusal(layers)
}

func (w *Worker) open(layers []sandbox.Layer, refusal error) {
	if refusal != nil {
		w.cfg.Logger.Warn("this machine runs no tasks", "err", refusal)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phase, w.layers, w.refusal = phaseRunning, layers, refusal
	close(w.opened)
}

// stop refuses new tasks, answers those that wait, and wakes the slots.
func (w *Worker) stop() {
	w.mu.Lock()
	w.phase, w.refusal = phaseStopped, tasks.ErrStopped
	waiting := w.queue.drain()
	for _, s := range w.slots {
		s.wake()
	}
	w.mu.Unlock()
	for _, e := range waiting {
		w.finish(e, lost("the worker stopped"))
	}
}

func lost(why string) tasks.Result {
	return tasks.Result{State: tasks.StateLost, ExitCode: tasks.NoExitCode, Why: why}
}

// tend looks after slots and held outputs until ctx ends.
func (w *Worker) tend(ctx context.Context) {
	ticker := time.NewTicker(tendEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			w.mu.Lock()
			for _, s := range w.slots {
				if w.allowed > 0 { // else nobody could take them
					s.recallStalled(now)
				}
			}
			w.expireHeld(now)
			w.mu.Unlock()
			w.tendWithheld(now)
		}
	}
}

// Opened is closed when Run has found out whether this machine can run tasks;
// see Ready.
func (w *Worker) Opened() <-chan struct{} { return w.opened }

// Ready returns why no task would be accepted now, or nil: tasks.ErrSandbox,
// tasks.ErrStopped.
func (w *Worker) Ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refusal
}

// Status returns what the worker does now.
func (w *Worker) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := Status{Slots: w.cfg.Slots, Allowed: w.allowed, Waiting: w.queue.len(), Layers: w.layers, Counts: w.counts}
	for _, s := range w.slots {
		if len(s.sent) > 0 {
			st.Busy++
		}
	}
	st.Held, st.HeldSince = w.heldSlots()
	if w.refusal != nil {
		st.Refusal = w.refusal.Error()
	}
	return st
}

// Do runs one task and returns its result. It returns an error, and no result,
// when the task is not accepted: tasks.ErrInvalid, tasks.ErrRefused,
// *tasks.MissingContent, tasks.ErrBusy, tasks.ErrSandbox or tasks.ErrStopped; or
// when it was given up: tasks.ErrWithdrawn. When ctx ends the task is cancelled.
func (w *Worker) Do(ctx context.Context, task tasks.Task) (tasks.Result, error) {
	done := make(chan tasks.Result, 1)
	e := &job{task: task, key: keyOf(task), done: func(r tasks.Result) { done <- r }}
	if err := w.submit(e); err != nil {
		return tasks.Result{}, err
	}
	var r tasks.Result
	select {
	case r = <-done:
	case <-ctx.Done():
		w.cancel(e)
		r = <-done
	}
	if e.withdrawn != nil && ctx.Err() == nil {
		return tasks.Result{}, e.withdrawn
	}
	return r, nil
}

// Submit accepts a task and returns at once; errors are those of Do. done is
// called once, with the result, from a goroutine that serves others too: it
// must not block. cancel may be called at any time; a task that has not begun is
// then answered at once.
func (w *Worker) Submit(task tasks.Task, done func(tasks.Result)) (cancel func(), err error) {
	e := &job{task: task, key: keyOf(task), done: done}
	if err := w.submit(e); err != nil {
		return nil, err
	}
	return func() { w.cancel(e) }, nil
}

func (w *Worker) submit(e *job) error {
	err := w.accept(e)
	if err != nil {
		w.mu.Lock()
		w.counts.Refused++
		w.mu.Unlock()
	}
	return err
}

func (w *Worker) accept(e *job) error {
	if err := e.task.Spec.Validate(); err != nil {
		return err
	}
	if err := e.key.limits.Within(w.cfg.Limits); err != nil {
		return fmt.Errorf("%w: %w", tasks.ErrRefused, err)
	}
	e.contents = e.task.Spec.Contents()
	e.inputs = tasks.Spec{Inputs: e.task.Spec.Inputs, Stdin: e.task.Spec.Stdin}.Contents()
	var missing error
	if e.key.native() {
		missing = native.Find(e.task.Spec.Args[0])
	}
	if err := w.store.pin(e.contents); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.refusal
	switch {
	case err != nil:
	case e.key.native() && w.noNative != nil:
		err = w.noNative
	case missing != nil:
		err = missing
	case w.allowed == 0:
		err = fmt.Errorf("%w: %s", tasks.ErrRefused, w.why)
	case w.active >= w.cfg.Queue:
		err = tasks.ErrBusy
	}
	if err != nil {
		w.store.unpin(e.contents)
		return err
	}
	w.active++
	w.counts.Accepted++
	w.enqueue(e)
	return nil
}

// cancel answers a task that has not begun, and abandons one that has.
func (w *Worker) cancel(e *job) {
	w.mu.Lock()
	waited := w.queue.remove(e)
	e.cancelled = true
	run, settled := e.run, e.settled
	w.mu.Unlock()
	switch {
	case settled:
	case waited || run == nil:
		w.finish(e, cancelledResult())
	default:
		run.Abandon()
	}
}

func cancelledResult() tasks.Result {
	return tasks.Result{State: tasks.StateCancelled, ExitCode: tasks.NoExitCode, Why: "cancelled before it began"}
}

// finish answers a task, once.
func (w *Worker) finish(e *job, r tasks.Result) { w.answer(e, r, nil) }

// answer is finish, for a task that the donor's rules do not let run, or that
// cannot run here, with an error that says so.
func (w *Worker) answer(e *job, r tasks.Result, withdrawn error) {
	w.mu.Lock()
	if e.answered {
		w.mu.Unlock()
		return
	}
	e.answered, e.withdrawn = true, withdrawn
	w.active--
	switch {
	case withdrawn == nil:
		w.count(r.State)
	case errors.Is(withdrawn, tasks.ErrWithdrawn):
		w.counts.Withdrawn++
	default:
		w.counts.Lost++
	}
	w.mu.Unlock()
	w.store.unpin(e.contents)
	r.Task = e.task.ID
	e.done(r)
}

func (w *Worker) count(s tasks.State) {
	switch s {
	case tasks.StateDone:
		w.counts.Done++
	case tasks.StateFailed:
		w.counts.Failed++
	case tasks.StateLimit:
		w.counts.Limit++
	case tasks.StateCancelled:
		w.counts.Cancelled++
	case tasks.StateLost:
		w.counts.Lost++
	}
}

// Release lets go of the outputs of a task that were too large for its result:
// whoever wanted them has them.
func (w *Worker) Release(id tasks.TaskID) {
	w.mu.Lock()
	h := w.held[id]
	delete(w.held, id)
	w.mu.Unlock()
	w.store.unpin(h.ids)
}

// holdOutputs keeps pinned outputs until Release or for outputHold; false when
// too many are held.
func (w *Worker) holdOutputs(id tasks.TaskID, ids []tasks.ContentID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, again := w.held[id]; !again && len(w.held) >= maxHeld {
		return false
	}
	w.store.unpin(w.held[id].ids) // of an earlier run of the same task
	w.held[id] = hold{ids, time.Now().Add(outputHold)}
	return true
}

// expireHeld lets go of outputs that nobody fetched; w.mu is held.
func (w *Worker) expireHeld(now time.Time) {
	for id, h := range w.held {
		if now.After(h.expires) {
			delete(w.held, id)
			w.store.unpin(h.ids)
		}
	}
}

// refuse stops accepting tasks for want of a sandbox.
func (w *Worker) refuse(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(err, tasks.ErrSandbox) && w.refusal == nil {
		w.refusal = err
		w.cfg.Logger.Warn("this machine runs no more tasks", "err", err)
	}
}
