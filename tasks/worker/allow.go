package worker

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"gotong/tasks"
)

// errBarred says that a sandbox was not started because its slot may not run.
var errBarred = errors.New("its slot may not run now")

// Allowance says how many slots may run guests now.
type Allowance struct {
	Slots int           // of Config.Slots; more means all
	Why   string        // in words, when it is not all
	Hold  time.Duration // how long guests of the other slots are held before they are given up; 0: not at all
}

// Allow makes the worker keep to an allowance, at once: guests in slots that may
// not run are stopped where they are. They go on when their slot is allowed again
// within Hold; after that they are killed and Do returns tasks.ErrWithdrawn for
// their tasks. Without any slot, tasks that have not begun come back at once.
func (w *Worker) Allow(a Allowance) {
	now := time.Now()
	w.mu.Lock()
	w.allowed, w.why = min(max(0, a.Slots), len(w.slots)), a.Why
	w.share(now)
	var back []*job
	for _, s := range w.slots {
		if s.withheld.IsZero() {
			continue
		}
		s.giveUpAt = s.withheld.Add(a.Hold)
		if a.Hold <= 0 || !s.stopped() {
			s.giveUpAt = now
		}
		back = append(back, w.giveUp(s, now)...)
	}
	if w.allowed == 0 {
		back = append(back, w.queue.drain()...)
	}
	why := w.why
	w.mu.Unlock()
	w.withdraw(back, why)
}

// share withholds slots or releases them until as many may run as are allowed:
// idle ones are taken first, then those that have worked least; those that wait
// longest with a guest go on first. w.mu is held.
func (w *Worker) share(now time.Time) {
	order := slices.Clone(w.slots)
	slices.SortStableFunc(order, func(a, b *slot) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), a.withheld.Compare(b.withheld), a.last.Compare(b.last))
	})
	for i, s := range order {
		switch {
		case i < w.allowed:
			s.release(now)
		case s.withheld.IsZero():
			s.withhold(now)
			if len(s.sent) > 0 {
				w.counts.Held++
			}
		}
	}
}

// rank says how much a slot ought to run: first those that do, then those that
// have a guest which waits, then the idle ones.
func (s *slot) rank() int {
	switch {
	case len(s.sent) > 0 && s.withheld.IsZero():
		return 0
	case len(s.sent) > 0:
		return 1
	case s.withheld.IsZero():
		return 2
	}
	return 3
}

// withhold stops what runs in s; Worker.mu is held.
func (s *slot) withhold(now time.Time) {
	s.withheld = now
	if s.starting != nil {
		s.starting() // its task has not begun and goes elsewhere
	}
	if s.guest != nil {
		s.held = s.guest.Hold()
	}
}

// stopped reports whether nothing runs in a withheld slot; Worker.mu is held.
func (s *slot) stopped() bool { return s.guest == nil || s.held }

// release lets s go on; Worker.mu is held.
func (s *slot) release(now time.Time) {
	if s.withheld.IsZero() {
		return
	}
	s.withheld, s.held = time.Time{}, false
	if s.guest != nil {
		s.guest.Resume()
	}
	if len(s.sent) > 0 {
		s.last = now // nothing has stalled
		s.worker.counts.Resumed++
	}
	s.wake()
}

// giveUp ends the guest of a slot that was held for long enough, and returns its
// tasks; w.mu is held.
func (w *Worker) giveUp(s *slot, now time.Time) []*job {
	if s.withheld.IsZero() || s.discard || now.Before(s.giveUpAt) || s.guest == nil {
		return nil
	}
	s.discard = true
	s.wake()
	var back []*job
	for i := range s.sent {
		e := s.sent[i].job
		if !s.sent[i].recalled && !e.settled && !e.answered {
			back = append(back, e)
		}
	}
	return back
}

// withdraw answers tasks that the donor's rules do not let run.
func (w *Worker) withdraw(jobs []*job, why string) {
	for _, e := range jobs {
		w.answer(e, lost(cut(why)), fmt.Errorf("%w: %s", tasks.ErrWithdrawn, why))
	}
}

// tendWithheld gives up what was held for long enough.
func (w *Worker) tendWithheld(now time.Time) {
	w.mu.Lock()
	var back []*job
	for _, s := range w.slots {
		back = append(back, w.giveUp(s, now)...)
	}
	why := w.why
	w.mu.Unlock()
	w.withdraw(back, why)
}

// heldSlots counts the slots that hold a guest, and says since when; w.mu is held.
func (w *Worker) heldSlots() (n int, since time.Time) {
	for _, s := range w.slots {
		if s.withheld.IsZero() || len(s.sent) == 0 {
			continue
		}
		if n++; since.IsZero() || s.withheld.Before(since) {
			since = s.withheld
		}
	}
	return n, since
}

// entered says that s has a new sandbox; Worker.mu is held.
func (s *slot) entered(g guest) {
	s.guest, s.starting = g, nil
	if s.withheld.IsZero() {
		return
	}
	if s.held = g.Hold(); !s.held {
		s.giveUpAt = time.Time{}
	}
}

// Guests counts the sandbox processes that are there, or being started.
func (w *Worker) Guests() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, s := range w.slots {
		if s.guest != nil || s.starting != nil {
			n++
		}
	}
	return n
}
