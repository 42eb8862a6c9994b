package segments

import (
	"context"
	"sync/atomic"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// attempt is one transfer of one shard with one peer. The goroutine that runs
// it beats with every piece that moved; the loop that watches it gives it up
// when it does not, without waiting for the goroutine.
type attempt struct {
	peer    grid.PeerID
	shard   int
	started time.Time
	until   time.Time // when it is given up, even if it moves
	ctx     context.Context
	cancel  context.CancelCauseFunc

	beats  atomic.Int64     // since started, of the last piece that moved
	moved  atomic.Int64     // pieces that moved
	rhythm *rhythm          // of all transfers with the peer
	limit  atomic.Int64     // how long it may stand still now
	hedged bool             // another one was started because this one is slow
	sample bool             // it only reads back a part
	over   bool             // its result came, or it was given up
	told   []storage.Holder // the list sent with the shard
}

// slowestRate, in bytes a second, is what any line does: a peer that is slower
// keeps a transfer alive without ever ending it.
const slowestRate = 256

// newAttempt returns an attempt to move size bytes that starts now.
func (s *Segments) newAttempt(ctx context.Context, peer grid.PeerID, shard, size int) *attempt {
	idle, now := s.cfg.IdleTimeout, time.Now()
	a := &attempt{peer: peer, shard: shard, started: now, rhythm: s.peers.rhythmOf(peer)}
	a.until = now.Add(2*idle + timeFor(size, slowestRate))
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
	now := time.Now()
	since := int64(now.Sub(a.started))
	a.rhythm.moved(now, since-a.beats.Swap(since))
	a.moved.Add(1)
}

// last returns when something moved last, or the start.
func (a *attempt) last() time.Time { return a.started.Add(time.Duration(a.beats.Load())) }

// lastHeard returns when something moved last in any transfer with the peer. On
// a slow line one transfer waits behind another, which says nothing against
// the peer.
func (a *attempt) lastHeard() time.Time {
	last := a.last()
	if heard := a.rhythm.last.Load(); heard != nil && heard.After(last) {
		return *heard
	}
	return last
}

// quiet returns when nothing will have come from the peer for d.
func (a *attempt) quiet(d time.Duration) time.Time { return a.lastHeard().Add(d) }

// behindOthers is how many times longer an attempt may stand still while other
// transfers with the same peer move.
const behindOthers = 5

// idleAt returns when the attempt counts as dead, unless it beats before; that
// helps until it is far too slow for any line.
func (a *attempt) idleAt() time.Time {
	limit := time.Duration(a.limit.Load())
	at, most := a.quiet(limit), a.last().Add(behindOthers*limit)
	if at.After(most) {
		at = most
	}
	return earliest(at, a.until)
}

// timeFor returns how long size bytes take.
func timeFor(size, rate int) time.Duration {
	return time.Duration(size) * time.Second / time.Duration(rate)
}

// rhythm is when and how steadily bytes move between this side and a peer, all
// transfers together.
type rhythm struct {
	last atomic.Pointer[time.Time]
	gap  atomic.Int64 // the longest pause of a transfer lately
}

// moved notes that bytes moved, after a pause of that transfer.
func (r *rhythm) moved(now time.Time, pause int64) {
	r.last.Store(&now)
	if pause > r.gap.Load() {
		r.gap.Store(pause) // of two at once either is right
	}
}

// forget makes old pauses count for less and less.
func (r *rhythm) forget() { r.gap.Store(r.gap.Load() / 2) }

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
