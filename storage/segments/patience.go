package segments

import (
	"context"
	"slices"
	"time"
)

// grace is how long transfers may run on once the segment is committed.
func (u *upload) grace() time.Duration {
	factor := time.Duration(u.s.cfg.StragglerFactor * float64(u.pace.slowest))
	return max(u.s.cfg.StragglerMin, factor)
}

// stragglerAt returns when a transfer is given up for being too slow; the zero
// time means not yet.
func (u *upload) stragglerAt(a *attempt) time.Time {
	if u.enough.IsZero() {
		return time.Time{}
	}
	from := u.enough
	if a.started.After(from) {
		from = a.started
	}
	return from.Add(u.grace())
}

func (u *upload) overdueAt(a *attempt) time.Time {
	return a.overdueAt(u.s.cfg.HedgeMin, u.s.cfg.HedgeFactor, u.pace)
}

// each calls f with every running attempt; f may finish it.
func (u *upload) each(f func(a *attempt)) {
	for i := range u.shards {
		for _, a := range slices.Clone(u.shards[i].running) {
			f(a)
		}
	}
}

// nextEvent returns when time alone will change something.
func (u *upload) nextEvent() (when time.Time) {
	u.each(func(a *attempt) {
		when = earliest(when, a.idleAt())
		when = earliest(when, u.stragglerAt(a))
		if !a.hedged {
			when = earliest(when, u.overdueAt(a))
		}
	})
	return earliest(when, u.checkEvent())
}

// onTime gives up what stands still or came too late, and tries another peer
// beside one that is slow.
func (u *upload) onTime(ctx context.Context, now time.Time) {
	reached := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	u.each(func(a *attempt) {
		switch {
		case reached(a.idleAt()):
			u.giveUp(a, errIdle)
		case reached(u.stragglerAt(a)):
			u.giveUp(a, errStraggler)
		case !a.hedged && reached(u.overdueAt(a)):
			a.hedged = true
			u.startElsewhere(ctx, a.shard)
		}
	})
	u.checkOnTime(now)
}

func (u *upload) giveUp(a *attempt, err error) {
	u.finish(a)
	a.cancel(err)
	u.failed(a, err)
}
