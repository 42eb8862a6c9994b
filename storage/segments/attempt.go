package segments

import (
	"context"
	"sync/atomic"
	"time"

	"gotong/grid"
)

// attempt is one transfer of one shard with one peer. The goroutine that runs
// it beats with every piece that moved; the loop that watches it gives it up
// when it does not, without waiting for the goroutine.
type attempt struct {
	peer    grid.PeerID
	shard   int
	started time.Time
	ctx     context.Context
	cancel  context.CancelCauseFunc

	beats  atomic.Int64 // since started, of the last piece that moved
	moved  atomic.Int64 // pieces that moved
	limit  atomic.Int64 // how long it may stand still now
	hedged bool         // another one was started because this one is slow
	sample bool         // it only reads back a part
	over   bool         // its result came, or it was given up
}

// newAttempt returns an attempt that starts now; idle is how long it may stand
// still.
func newAttempt(ctx context.Context, peer grid.PeerID, shard int, idle time.Duration) *attempt {
	a := &attempt{peer: peer, shard: shard, started: time.Now()}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	a.limit.Store(int64(idle))
	return a
}

// beat says that something moved; from now on the attempt may stand still for
// limit.
func (a *attempt) beat(limit time.Duration) {
	a.limit.Store(int64(limit))
	a.alive()
}

// alive is beat without another limit. Any goroutine may call it.
func (a *attempt) alive() {
	a.beats.Store(int64(time.Since(a.started)))
	a.moved.Add(1)
}

// quiet returns when nothing will have moved for d.
func (a *attempt) quiet(d time.Duration) time.Time {
	return a.started.Add(time.Duration(a.beats.Load()) + d)
}

// idleAt returns when the attempt counts as dead, unless it beats before.
func (a *attempt) idleAt() time.Time { return a.quiet(time.Duration(a.limit.Load())) }

// outcome is how an attempt ended.
type outcome struct {
	*attempt
	err  error
	took time.Duration
}

// alarm wakes a loop at the earliest of several times.
type alarm struct{ timer *time.Timer }

func newAlarm() *alarm {
	a := &alarm{time.NewTimer(time.Hour)}
	a.timer.Stop()
	return a
}

// at sets the alarm; the zero time means never.
func (a *alarm) at(when time.Time) <-chan time.Time {
	if when.IsZero() {
		a.timer.Stop()
	} else {
		a.timer.Reset(time.Until(when))
	}
	return a.timer.C
}

// earliest returns the earlier of two times, of which zero is never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
