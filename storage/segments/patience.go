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

// Bounds of a transfer that keeps moving, only too slowly to be of use.
const (
	slowestPatient = 8 << 10 // bytes a second, where nobody waits for the upload
	partialFactor  = 10      // times the slowest that is done, to commit a segment that can be read
)

// stragglerAt returns when a transfer is given up for being too slow; the zero
// time means not yet. Once k shards are durable the segment is of use without
// this one, and what the others took counts.
func (u *upload) stragglerAt(a *attempt) time.Time {
	size, idle := u.segment.header.ShardBytes, u.s.cfg.IdleTimeout
	after := func(since time.Time, d time.Duration) time.Time {
		if a.started.After(since) {
			since = a.started
		}
		return since.Add(d)
	}
	switch {
	case u.patient:
		return a.started.Add(max(idle+timeFor(size, slowestPatient), partialFactor*u.pace.slowest))
	case !u.enough.IsZero():
		return after(u.enough, u.grace())
	case !u.usable.IsZero():
		return after(u.usable, max(u.s.cfg.CommitTimeout, partialFactor*u.pace.slowest))
	}
	return time.Time{}
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
