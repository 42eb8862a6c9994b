package taskrpc

import (
	"math"
	"time"

	"gotong/grid"
)

// turns shares the slots between owners who wait: each owner has a clock that
// runs with what its tasks take, slower the more it weighs, and the owner whose
// clock is behind is served. Nobody saves up turns while nothing of it waits. It
// is guarded by Service.mu.
type turns struct {
	weight func(grid.OwnerID) float64
	owners map[grid.OwnerID]*turn
}

// turn is one owner's.
type turn struct {
	claims int           // open
	clock  float64       // weighted seconds
	weight float64       // +Inf: served before all others
	mean   time.Duration // of its tasks
	busy   int           // tasks handed to the runner
}

func newTurns(weight func(grid.OwnerID) float64) turns {
	if weight == nil {
		weight = func(grid.OwnerID) float64 { return 1 }
	}
	return turns{weight: weight, owners: map[grid.OwnerID]*turn{}}
}

// join adds a claim of an owner.
func (t *turns) join(owner grid.OwnerID) *turn {
	o := t.owners[owner]
	if o == nil {
		o = &turn{clock: t.earliest()}
		t.owners[owner] = o
	}
	o.claims++
	o.weight = t.weightOf(owner)
	return o
}

// leave takes a claim away.
func (t *turns) leave(owner grid.OwnerID) {
	if o := t.owners[owner]; o != nil {
		if o.claims--; o.claims == 0 && o.busy == 0 {
			delete(t.owners, owner)
		}
	}
}

func (t *turns) weightOf(owner grid.OwnerID) float64 {
	if w := t.weight(owner); w > 0 {
		return w
	}
	return 1
}

// earliest is the clock that is most behind.
func (t *turns) earliest() float64 {
	least := math.Inf(1)
	for _, o := range t.owners {
		if !math.IsInf(o.weight, 1) {
			least = min(least, o.clock)
		}
	}
	if math.IsInf(least, 1) {
		return 0
	}
	return least
}

// before reports whether a is served before b.
func (a *turn) before(b *turn) bool {
	if first, second := math.IsInf(a.weight, 1), math.IsInf(b.weight, 1); first != second {
		return first
	}
	if a.clock != b.clock {
		return a.clock < b.clock
	}
	return a.weight > b.weight
}

// start charges a task before it runs with what such tasks took, and returns that.
func (a *turn) start(all time.Duration) (charged time.Duration) {
	a.busy++
	charged = a.mean
	if charged == 0 {
		charged = max(all, time.Millisecond)
	}
	a.charge(charged)
	return charged
}

func (a *turn) charge(d time.Duration) { a.clock += d.Seconds() / a.weight }

// finish corrects the charge by what a task took.
func (t *turns) finish(owner grid.OwnerID, charged, took time.Duration) {
	o := t.owners[owner]
	if o == nil {
		return
	}
	o.busy--
	o.charge(took - charged)
	if took > 0 {
		if o.mean == 0 {
			o.mean = took
		}
		o.mean += (took - o.mean) / meanWeight
	}
	if o.weight = t.weightOf(owner); o.claims == 0 && o.busy == 0 {
		delete(t.owners, owner)
	}
}

// free returns how many slots an owner would get now, of those that are there.
func (s *Service) free(owner grid.OwnerID, slots int) int {
	waiting, all, owners := 0, s.running, 1
	counted := map[grid.OwnerID]bool{owner: true}
	for _, c := range s.claims {
		n := len(c.queue)
		all += n
		if c.job.Owner == owner {
			waiting += n
		} else if n+len(c.running) > 0 && !counted[c.job.Owner] {
			counted[c.job.Owner] = true
			owners++
		}
	}
	if o := s.turns.owners[owner]; o != nil {
		waiting += o.busy
	}
	fair := (slots + owners - 1) / owners
	if math.IsInf(s.turns.weightOf(owner), 1) {
		fair = slots
	}
	return max(0, slots-all, fair-waiting)
}
