package segments

import (
	"context"
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

// running returns all attempts that run.
func (u *upload) running() (all []*attempt) {
	for i := range u.shards {
		all = append(all, u.shards[i].running...)
	}
	return all
}

// nextEvent returns when time alone will change something.
func (u *upload) nextEvent() time.Time {
	running := u.running()
	when := earliest(u.checkEvent(), u.pace.nextEvent(running))
	for _, a := range running {
		when = earliest(when, a.idleAt())
		when = earliest(when, u.stragglerAt(a))
	}
	return when
}

// onTime gives up what stands still or came too late, and tries another peer
// beside one that is slow.
func (u *upload) onTime(ctx context.Context, now time.Time) {
	for _, a := range u.running() {
		straggler := u.stragglerAt(a)
		switch {
		case !now.Before(a.idleAt()):
			u.giveUp(a, ErrTimeout)
		case !straggler.IsZero() && !now.Before(straggler):
			u.giveUp(a, errStraggler)
		}
	}
	for _, a := range u.pace.hedge(u.running(), now) {
		u.startElsewhere(ctx, a.shard)
	}
	u.checkOnTime(now)
}

func (u *upload) giveUp(a *attempt, err error) {
	u.finish(a)
	a.cancel(err)
	u.failed(a, err)
}
