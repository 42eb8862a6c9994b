package node

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"gotong/grid/disk"
	"gotong/tasks/rules"
)

const (
	// lookEvery is how often the machine is looked at. The user has it back within
	// 2 s: one look, the load's delay and the signal.
	lookEvery = 500 * time.Millisecond
	// queueGrace is how long tasks that have not begun stay when it is only that
	// other programs are busy, which may pass.
	queueGrace = 3 * time.Second
	// memoryRest is how long nothing runs after guests were killed for memory.
	memoryRest = 30 * time.Second
	// maxProgramFacts bounds the exclusive programs that status names.
	maxProgramFacts = 16
)

// sensors find the facts of a machine; see rules.Sensors.
type sensors interface {
	// Keep says by which rules the facts are judged from now on.
	Keep(r rules.Rules)
	Read(now time.Time, guests bool) rules.Facts
	Close()
}

// factSensors are the facts that Options give.
type factSensors func(now time.Time) rules.Facts

func (f factSensors) Keep(rules.Rules)                       {}
func (f factSensors) Read(now time.Time, _ bool) rules.Facts { return f(now) }
func (f factSensors) Close()                                 {}

// donor keeps the worker to the donor's rules.
type donor struct {
	work    *work
	sensors sensors
	pauses  *pauses
	look    sync.Mutex // one look at a time
	latest  atomic.Pointer[standing]

	// Guarded by look.
	rules     rules.Rules
	hold      time.Duration
	restUntil time.Time // after guests were killed for memory
	withdrawn bool      // waiting tasks were given back since slots went to none
}

// standing is what was decided last.
type standing struct {
	rules    rules.Rules
	hold     time.Duration
	decision rules.Decision
	facts    rules.Facts
	at       time.Time
	since    time.Time // when the number of slots was last changed
}

func (w *work) openDonor() error {
	p := w.peer
	pauses, err := openPauses(p.home.state().pause(), p.logger)
	if err != nil {
		return err
	}
	d := &donor{work: w, rules: p.cfg().donateRules(), hold: p.cfg().Donate.Hold, pauses: pauses}
	if p.options.Facts != nil {
		d.sensors = factSensors(p.options.Facts)
	} else {
		d.sensors = rules.OpenSensors(rules.SensorsConfig{
			Source: p.cfg().Donate.IdleSource, Sys: p.cfg().Donate.SysfsRoot, Dir: p.home.state().tasks(), Rules: d.rules, DiskFree: diskFree,
		})
	}
	p.onClose(func() error { d.sensors.Close(); return nil })
	w.donor = d
	d.decide()
	return nil
}

func diskFree(dir string) (int64, error) {
	free, err := disk.Free(dir)
	return int64(min(free, math.MaxInt64)), err
}

// run looks at the machine until ctx ends.
func (d *donor) run(ctx context.Context) error {
	if d.work.peer.cfg().Slots == 0 { // nothing is ever decided
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			d.decide()
		}
	}
}

// decide looks at the machine and has the worker keep to what follows.
func (d *donor) decide() {
	d.look.Lock()
	defer d.look.Unlock()
	now := time.Now()
	facts := d.sensors.Read(now, d.work.worker.Guests() > 0)
	facts.Pause = d.pauses.at(now)
	facts.Memory.Short = now.Before(d.restUntil)
	decision := rules.Decide(d.rules, facts, now)
	before := d.latest.Load()
	s := &standing{rules: d.rules, hold: d.hold, decision: decision, facts: facts, at: now, since: now}
	if before != nil && before.decision.Slots == decision.Slots {
		s.since = before.since
	}
	d.latest.Store(s)
	d.enforce(before, s)
}

// enforce tells the worker and the callers; d.look is held.
func (d *donor) enforce(before, s *standing) {
	w, decision := d.work, s.decision
	hold := d.hold
	if decision.Kill {
		hold = 0
		if s.facts.Memory.Guests > 0 && !s.facts.Memory.Short {
			d.restUntil = s.at.Add(memoryRest)
		}
	}
	w.worker.Allow(workerAllowance(decision, hold))
	if before == nil || before.decision.Slots != decision.Slots {
		w.peer.logger.Info("slots by the donor's rules", "slots", decision.Slots, "of", d.rules.Slots, "why", decision.Why())
	}
	switch {
	case decision.Slots > 0:
		if d.withdrawn || before != nil && before.decision.Slots < decision.Slots {
			w.service.Nudge()
		}
		d.withdrawn = false
	case !d.withdrawn && (!onlyLoad(decision) || s.at.Sub(s.since) >= queueGrace):
		d.withdrawn = true
		w.service.Withdraw(decision.Why())
	}
}

// onlyLoad reports whether nothing but the load of other programs takes the slots
// away.
func onlyLoad(d rules.Decision) bool {
	for _, r := range d.Reasons {
		if r.Slots == 0 && r.Rule != "load" {
			return false
		}
	}
	return true
}

// slots returns how many may run now and why not all.
func (d *donor) slots() (int, string) {
	s := d.latest.Load()
	return s.decision.Slots, s.decision.Why()
}

// budget is how many bytes of memory guests may have in all.
func (d *donor) budget() int64 {
	s := d.latest.Load()
	return rules.MemoryBudget(s.rules, s.facts)
}

// keep takes other rules, from the next look on.
func (d *donor) keep(r rules.Rules, hold time.Duration) {
	d.look.Lock()
	defer d.look.Unlock()
	d.rules, d.hold = r, hold
	d.sensors.Keep(r)
}
