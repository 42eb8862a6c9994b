package node

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/adhocore/gronx"

	controlv1 "gotong/proto/control/v1"
	"gotong/storage/vault"
)

// Times of the schedule. Those of a set are shortened in proportion when its
// runs are closer together than a day or so: see shorten.
const (
	// schedulePoll is how often the wall clock is looked at: a machine that
	// slept does not tell, and timers stand still while it does.
	schedulePoll = time.Minute
	// scheduleSettle is how long after a start or a sleep a run that was missed
	// begins at the earliest: friends have to be found first.
	scheduleSettle = 30 * time.Second
	// scheduleJitter spreads the runs of those who have the same schedule.
	scheduleJitter = 2 * time.Minute
	// scheduleBusy is how long to wait while another backup runs.
	scheduleBusy = time.Minute
	// scheduleRetry is the first wait after a failure; it doubles up to maxRetry.
	scheduleRetry = time.Minute
	maxRetry      = time.Hour
)

// schedule decides when each backup set is due and has it backed up. What it
// knows of earlier runs survives restarts.
type schedule struct {
	file   string
	logger *slog.Logger

	mu      sync.Mutex
	sets    map[string]SetConfig
	states  setStates
	jitter  map[string]float64   // of each set, 0 to 1
	hold    map[string]time.Time // no earlier than then: something else was running
	awake   time.Time            // since when the peer runs without a sleep
	running string               // the set that is being backed up; empty: none
}

// openSchedule reads what is known of earlier runs. A file that cannot be read
// is no reason not to start: at worst sets are backed up earlier than need be.
func openSchedule(sets map[string]SetConfig, file string, logger *slog.Logger) *schedule {
	s := &schedule{file: file, logger: logger, jitter: map[string]float64{}, hold: map[string]time.Time{}, awake: time.Now()}
	var err error
	if s.states, err = readSetStates(file); err != nil {
		logger.Warn("when sets were backed up is not known; they are as soon as possible", "err", err)
		s.states = setStates{}
	}
	s.keep(sets)
	return s
}

// keep takes other sets. One that goes while it is backed up is backed up to its
// end.
func (s *schedule) keep(sets map[string]SetConfig) {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := len(s.sets)
	s.sets = sets
	s.forgetOthers()
	for name := range sets {
		if _, known := s.jitter[name]; !known {
			s.jitter[name] = rand.Float64()
		}
		if _, known := s.states[name]; !known {
			s.states[name] = &setState{FirstSeen: time.Now()}
		}
	}
	if had+len(sets) > 0 {
		s.save()
	}
}

// forgetOthers drops the state of sets that are configured no more.
func (s *schedule) forgetOthers() {
	for name := range s.states {
		if _, ok := s.sets[name]; !ok {
			delete(s.states, name)
		}
	}
}

// save keeps the states; the caller holds the lock. Without it the next start
// may run a set too early, which costs little.
func (s *schedule) save() {
	if err := writeSetStates(s.file, s.states); err != nil {
		s.logger.Warn("when sets were backed up cannot be kept", "err", err)
	}
}

// run backs up each set when it is due, until ctx ends.
func (s *schedule) run(ctx context.Context, backup func(ctx context.Context, set string) error) error {
	s.mu.Lock()
	s.awake = time.Now()
	s.mu.Unlock()
	for {
		looked := time.Now()
		name, due := s.next(looked)
		if name != "" && !due.After(looked) {
			s.runOne(ctx, name, backup)
			if ctx.Err() != nil {
				return nil
			}
			continue
		}
		wait := schedulePoll
		if name != "" {
			wait = min(wait, due.Sub(looked))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		s.noticeSleep(looked, wait, time.Now())
	}
}

// noticeSleep compares the wall clock with how long the loop meant to wait.
func (s *schedule) noticeSleep(looked time.Time, wait time.Duration, now time.Time) {
	if now.Round(0).Sub(looked.Round(0)) > wait+schedulePoll { // Round drops the clock that stands still
		s.mu.Lock()
		defer s.mu.Unlock()
		s.awake = now
	}
}

func (s *schedule) runOne(ctx context.Context, name string, backup func(ctx context.Context, set string) error) {
	err := backup(ctx, name)
	if err == nil || ctx.Err() != nil { // when the peer stops, the set is due when it is back
		return
	}
	if !isBusy(err) {
		s.logger.Warn("a set was not backed up", "set", name, "err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.hold[name] = now.Add(shorten(scheduleBusy, s.interval(name, now)))
}

// isBusy reports whether something only has to wait for its turn.
func isBusy(err error) bool {
	var failure *Failure
	return errors.Is(err, vault.ErrBusy) || errors.As(err, &failure) && failure.Kind == controlv1.Kind_KIND_BUSY
}

// next returns the set that is due first, and when; "" when none has a schedule.
func (s *schedule) next(now time.Time) (name string, due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, candidate := range s.names() {
		at, ok := s.dueAt(candidate, now)
		if ok && (name == "" || at.Before(due)) {
			name, due = candidate, at
		}
	}
	return name, due
}

func (s *schedule) names() []string {
	return BackupConfig{Sets: s.sets}.SetNames()
}

// dueAt returns when a set is backed up next; false when only by hand. The
// caller holds the lock.
func (s *schedule) dueAt(name string, now time.Time) (time.Time, bool) {
	set, state := s.sets[name], s.states[name]
	if !set.scheduled() {
		return time.Time{}, false
	}
	interval := s.interval(name, now)
	state.noLaterThan(now)
	due := set.dueAfter(state)
	if !due.After(s.awake) { // missed: let the peer find its friends first
		due = s.awake.Add(shorten(scheduleSettle, interval))
	}
	due = due.Add(time.Duration(s.jitter[name] * float64(shorten(scheduleJitter, interval))))
	if state.Failures > 0 {
		due = latest(due, state.Tried.Add(retryAfter(state.Failures, interval)))
	}
	return latest(due, s.hold[name]), true
}

// dueAfter returns when the set is due by its schedule alone.
func (c SetConfig) dueAfter(state *setState) time.Time {
	last := cmp.Or(state.Began, state.FirstSeen)
	if c.Every > 0 {
		if state.Began.IsZero() {
			return last
		}
		return last.Add(time.Duration(c.Every))
	}
	return nextCron(c.Cron, last)
}

// nextCron returns the first occurrence after a time, in local time.
func nextCron(expression string, after time.Time) time.Time {
	at, err := gronx.NextTickAfter(expression, after.Local(), false)
	if err != nil { // the configuration was checked: the years of the expression are over
		return after.AddDate(1, 0, 0)
	}
	return at
}

// interval returns how far apart the runs of a set are.
func (s *schedule) interval(name string, now time.Time) time.Duration {
	set := s.sets[name]
	if set.Every > 0 {
		return time.Duration(set.Every)
	}
	first := nextCron(set.Cron, now)
	return nextCron(set.Cron, first).Sub(first)
}

// shorten returns d, or a twentieth of the interval if that is less.
func shorten(d, interval time.Duration) time.Duration { return min(d, interval/20) }

// retryAfter returns how long to wait after so many failures in a row.
func retryAfter(failures int, interval time.Duration) time.Duration {
	wait := min(scheduleRetry, interval)
	for range min(failures-1, 10) {
		wait *= 2
	}
	return min(wait, maxRetry, max(interval, time.Second))
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// begin notes that a set is being backed up.
func (s *schedule) begin(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = name
}

// end notes how a run of a set ended that began at a time: with a snapshot, or
// with an error.
func (s *schedule) end(name string, began time.Time, snapshot string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = ""
	state, ok := s.states[name]
	if !ok {
		return
	}
	switch {
	case err == nil:
		state.Began, state.Snapshot, state.Failures, state.Failed = began, snapshot, 0, ""
	case isBusy(err), errors.Is(err, context.Canceled):
		return
	default:
		state.Failures++
		state.Failed = err.Error()
	}
	state.Tried = time.Now()
	s.save()
}

// tidied notes whether what the rules of a set do not keep could be forgotten.
func (s *schedule) tidied(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state, ok := s.states[name]
	if !ok {
		return
	}
	why := ""
	if err != nil {
		why = err.Error()
		s.logger.Warn("old snapshots of a set were not forgotten", "set", name, "err", err)
	}
	if state.Untidy != why {
		state.Untidy = why
		s.save()
	}
}

// setView is what status shows of a set.
type setView struct {
	name     string
	schedule string    // in words; empty: by hand only
	next     time.Time // zero: by hand only
	running  bool
	failed   string // why the last run made no snapshot
	untidy   string // why what its rules do not keep is still there

	snapshot string    // id of the newest that this peer made of the set; empty: none
	made     time.Time // when it was begun
}

// view returns all sets by name.
func (s *schedule) view(now time.Time) []setView {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []setView
	for _, name := range s.names() {
		v := setView{name: name, running: s.running == name, failed: s.states[name].Failed, untidy: s.states[name].Untidy,
			snapshot: s.states[name].Snapshot, made: s.states[name].Began}
		if at, ok := s.dueAt(name, now); ok {
			v.next = latest(at, now)
		}
		switch set := s.sets[name]; {
		case set.Every > 0:
			v.schedule = "every " + set.Every.String()
		default:
			v.schedule = set.Cron
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b setView) int { return cmp.Compare(a.name, b.name) })
	return out
}
