package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gotong/tasks"
	"gotong/tasks/sandbox"
)

// Bounds of a slot.
const (
	// ahead is how much work may be in a sandbox beyond the task that runs: the
	// shorter the tasks, the more of them.
	ahead = 4 * time.Millisecond
	// quantum is how long a slot stays with one key when others wait for any; but
	// at least startShare times as long as it took to start its sandbox.
	quantum    = time.Second
	startShare = 4
	// startBackoff is the pause after a sandbox could not be started.
	startBackoff = time.Second
	// keepIdle is how long a sandbox is kept without a task.
	keepIdle = 30 * time.Second
	// maxTurns bounds how often a task is given to a sandbox that ends before it
	// begins.
	maxTurns = 5
	// meanShare is the weight of the past in the mean duration of tasks.
	meanShare = 4
)

// slot runs tasks, one at a time, in a sandbox of its own.
type slot struct {
	worker *Worker
	number int
	woken  chan struct{} // a token: there may be something to do

	// Guarded by Worker.mu.
	key     key           // of the sandbox, or of the one being started
	serving bool          // key is valid
	since   time.Time     // when the sandbox for key was ready
	cost    time.Duration // what it took to start
	waits   bool          // run has found nothing to do
	sent    []sent        // taken and not answered, in order
	window  int           // how many of them there may be
	mean    time.Duration
	last    time.Time // of the last outcome, or of the first of sent

	guest    guest              // of box; nil: none
	starting context.CancelFunc // ends the start of a sandbox; nil: none is being started
	withheld time.Time          // since when s may not run anything; zero: it may
	held     bool               // guest is stopped
	giveUpAt time.Time          // while withheld: when what it holds is given up
	discard  bool               // run ends the sandbox

	box   *box // only run touches it
	boxes int  // started so far
}

// sent is a job that a slot has taken.
type sent struct {
	job      *job
	recalled bool // another slot may run it too
}

func newSlot(w *Worker, number int) *slot {
	return &slot{worker: w, number: number, woken: make(chan struct{}, 1), window: 1}
}

// wake makes run look again.
func (s *slot) wake() {
	s.waits = false
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// couldTake reports whether s waits for a job of k; Worker.mu is held.
func (s *slot) couldTake(k key) bool {
	return s.waits && s.withheld.IsZero() && len(s.sent) < s.window && (len(s.sent) == 0 || s.key == k)
}

// enqueue adds a job and wakes a slot for it: one that has a sandbox for it, or
// else one that has none, or else any that could take it; w.mu is held.
func (w *Worker) enqueue(e *job) {
	w.queue.push(e)
	var best *slot
	for _, s := range w.slots {
		switch {
		case !s.couldTake(e.key):
		case s.serving && s.key == e.key:
			s.wake()
			return
		case best == nil || (best.serving && !s.serving):
			best = s
		}
	}
	if best != nil {
		best.wake()
	}
}

// take gives s a job, or marks it as waiting.
func (w *Worker) take(s *slot) *job {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.choose(s)
	if s.waits = e == nil; s.waits {
		return nil
	}
	if len(s.sent) == 0 {
		s.last = time.Now()
	}
	e.turns++
	s.sent = append(s.sent, sent{job: e})
	return e
}

// choose picks the job that s should take now; w.mu is held.
func (w *Worker) choose(s *slot) *job {
	if w.phase != phaseRunning || !s.withheld.IsZero() || s.discard || len(s.sent) >= s.window {
		return nil
	}
	next, ok, unserved := w.nextKey()
	if s.serving && !(unserved && time.Since(s.since) > max(quantum, startShare*s.cost)) {
		if e := w.queue.pop(s.key); e != nil {
			return e
		}
	}
	if !ok || len(s.sent) > 0 {
		return nil // another key has to wait until the sandbox is empty
	}
	if !s.serving || s.key != next {
		s.key, s.serving, s.window, s.mean = next, true, 1, 0
	}
	s.since = time.Now()
	return w.queue.pop(next)
}

// nextKey returns the key to which a slot should turn: the one that has waited
// longest of those that no slot serves, else of all; w.mu is held.
func (w *Worker) nextKey() (k key, ok, unserved bool) {
	for _, k := range w.queue.keys {
		if !slices.ContainsFunc(w.slots, func(s *slot) bool { return s.serving && s.withheld.IsZero() && s.key == k }) {
			return k, true, true
		}
	}
	if len(w.queue.keys) == 0 {
		return key{}, false, false
	}
	return w.queue.keys[0], true, false
}

// run takes jobs until the worker stops.
func (s *slot) run(ctx context.Context, launcher *sandbox.Launcher) {
	for {
		e := s.next(ctx)
		if e == nil {
			break
		}
		if err := s.serve(ctx, launcher, e); err != nil {
			s.failed(ctx, e, err)
		}
	}
	s.closeBox()
}

// next waits for a job that this slot should take; nil at the end. While it
// waits for long it gives up its sandbox.
func (s *slot) next(ctx context.Context) *job {
	s.closeDiscarded()
	if e := s.worker.take(s); e != nil {
		return e // most often
	}
	idle := time.NewTimer(keepIdle)
	defer idle.Stop()
	for ctx.Err() == nil {
		if e := s.worker.take(s); e != nil {
			return e
		}
		select {
		case <-ctx.Done():
		case <-s.woken:
			s.closeDiscarded()
		case <-idle.C:
			if s.empty() {
				s.closeBox()
			}
			idle.Reset(keepIdle)
		}
	}
	return nil
}

// closeDiscarded ends a sandbox that the donor's rules do not let go on.
func (s *slot) closeDiscarded() {
	s.worker.mu.Lock()
	discard := s.discard
	s.worker.mu.Unlock()
	if !discard {
		return
	}
	s.closeBox()
	s.worker.mu.Lock()
	s.discard = false
	s.worker.mu.Unlock()
}

func (s *slot) empty() bool {
	s.worker.mu.Lock()
	defer s.worker.mu.Unlock()
	return len(s.sent) == 0
}

// serve puts a job into the slot's sandbox, which it starts or replaces.
func (s *slot) serve(ctx context.Context, launcher *sandbox.Launcher, e *job) error {
	if err := s.openBox(ctx, launcher, e.key); err != nil {
		return err
	}
	b, spec := s.box, e.task.Spec
	if err := b.stage(e.inputs); err != nil {
		return err
	}
	run, err := b.guest.Submit(
		sandbox.Request{Args: spec.Args, Inputs: spec.Inputs, Stdin: spec.Stdin, StdinSize: spec.StdinSize, Seed: spec.Seed()},
		func(o sandbox.Outcome) { s.outcome(ctx, b, e, o) })
	if err != nil {
		b.unstage(e.inputs)
		if errors.Is(err, sandbox.ErrEnded) {
			<-b.guest.Ended() // it is dying: to try it again would only use up turns
		}
		return err
	}
	s.worker.mu.Lock()
	if n := len(s.sent); n > 0 && s.sent[n-1].job == e && !e.answered { // else it may be in another slot by now
		e.run = run
	}
	cancelled := e.cancelled
	s.worker.mu.Unlock()
	if cancelled {
		run.Abandon()
	}
	return nil
}

// failed answers or gives back a job that did not reach a sandbox, the last
// that was taken.
func (s *slot) failed(ctx context.Context, e *job, err error) {
	w := s.worker
	w.mu.Lock()
	s.sent = s.sent[:len(s.sent)-1]
	s.starting = nil
	gone := errors.Is(err, sandbox.ErrEnded) && e.turns < maxTurns
	barred := errors.Is(err, errBarred)
	again := (gone || barred) && !e.answered && w.phase == phaseRunning && w.allowed > 0
	if again {
		w.enqueue(e)
	}
	why := w.why
	w.mu.Unlock()
	fault, isFault := errors.AsType[*sandbox.ModuleError](err)
	switch {
	case again:
	case barred && ctx.Err() == nil:
		w.withdraw([]*job{e}, why)
	case isFault:
		w.rememberFault(e.key, fault)
		w.finish(e, faultResult(fault))
	case ctx.Err() != nil:
		w.finish(e, lost("the worker stopped"))
	default:
		w.refuse(err)
		w.cfg.Logger.Warn("no sandbox for a task", "task", e.task.ID.Short(), "err", err)
		w.finish(e, lost(cut("no sandbox for it: "+err.Error())))
		s.pause(ctx)
	}
}

// pause keeps a machine that cannot start processes from trying all the time.
func (s *slot) pause(ctx context.Context) {
	timer := time.NewTimer(startBackoff)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func faultResult(fault *sandbox.ModuleError) tasks.Result {
	r := tasks.Result{State: tasks.StateFailed, ExitCode: tasks.NoExitCode, Why: cut(fault.Why)}
	if fault.Limit != tasks.LimitNone {
		r.State, r.Limit = tasks.StateLimit, fault.Limit
	}
	return r
}

// outcome takes what a sandbox says of its oldest task. It is called by the
// sandbox's reader and must not block.
func (s *slot) outcome(ctx context.Context, b *box, e *job, o sandbox.Outcome) {
	b.unstage(e.inputs)
	switch v := s.worker.judge(s, e, o); {
	case v == useOutcome && o.Unfit:
		s.worker.answer(e, lost(cut(o.Why)), fmt.Errorf("%w: %s", tasks.ErrUnfit, o.Why))
	case v == useOutcome:
		b.collect(ctx, s.worker, e, o)
	case v == dropOutcome:
		b.dropOutputs(o)
	case v == answerCancelled:
		s.worker.finish(e, cancelledResult())
	case v == answerLost:
		s.worker.finish(e, lost("its sandbox ended before it began"))
	}
}

// verdict says what to do with an outcome.
type verdict int

const (
	dropOutcome verdict = iota // the job goes on elsewhere, or was answered
	useOutcome
	answerCancelled
	answerLost
)

// judge books an outcome and decides what becomes of it.
func (w *Worker) judge(s *slot, e *job, o sandbox.Outcome) verdict {
	w.mu.Lock()
	defer w.mu.Unlock()
	recalled := s.advance(o)
	if !recalled {
		e.run = nil
	}
	useless := o.NotRun || o.State == tasks.StateLost || o.State == tasks.StateCancelled
	switch {
	case e.settled || e.answered || (recalled && useless):
		return dropOutcome
	case !o.NotRun:
		w.queue.remove(e) // it may wait again since it was recalled
		e.settled = true
		return useOutcome
	case e.cancelled:
		return answerCancelled
	case e.turns < maxTurns && w.phase == phaseRunning:
		w.enqueue(e)
		return dropOutcome
	}
	return answerLost
}

// advance takes the oldest job off sent, adapts the window to how long tasks
// take, and wakes run when there is more to do; Worker.mu is held.
func (s *slot) advance(o sandbox.Outcome) (recalled bool) {
	recalled = s.sent[0].recalled
	s.sent = s.sent[:copy(s.sent, s.sent[1:])]
	s.last = time.Now()
	if !o.NotRun {
		if s.mean == 0 {
			s.mean = o.Elapsed
		}
		s.mean = max(1, s.mean+(o.Elapsed-s.mean)/meanShare)
		s.window = int(min(sandbox.Window, 1+ahead/s.mean))
	}
	if s.waits && s.worker.queue.len() > 0 {
		s.wake()
	}
	return recalled
}

// recallStalled lets other slots have the jobs that wait in this slot's sandbox
// behind one that takes long. Whichever run ends first counts; Worker.mu is
// held.
func (s *slot) recallStalled(now time.Time) {
	if len(s.sent) < 2 || now.Sub(s.last) < stallAfter {
		return
	}
	s.window, s.mean = 1, stallAfter
	for i := range s.sent[1:] {
		waiting := &s.sent[1+i]
		if waiting.recalled || waiting.job.run == nil || waiting.job.cancelled {
			continue
		}
		waiting.recalled = true
		waiting.job.run = nil
		s.worker.enqueue(waiting.job)
	}
}
