package segments

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// groupBytes is the unit in which ranges of shards are read, so that a holder
// does not learn where blobs begin and end.
const groupBytes = 16 << 10

// check is the sample that is read back before a segment counts as committed.
type check struct {
	running []*attempt
	tries   int
	passed  bool
}

// startCheck starts to read back part of one durable shard, once there are
// enough of them. When that takes long another one is tried beside it.
func (u *upload) startCheck(ctx context.Context) {
	c := &u.check
	if c.passed || c.tries == checksMax || (!u.patient && u.acked() < u.r.CommitAt()) || slices.ContainsFunc(c.running, isSound) {
		return
	}
	shard, ok := u.sampleShard()
	if !ok {
		return
	}
	c.tries++
	a := u.s.newAttempt(ctx, u.shards[shard].holder, shard, groupBytes)
	a.sample = true
	c.running = append(c.running, a)
	u.segment.lease.hold()
	u.s.running.Go(func() {
		defer u.segment.lease.release()
		err := u.s.compare(a, u.segment)
		u.results <- outcome{a, err, time.Since(a.started)}
	})
}

func isSound(a *attempt) bool { return !a.hedged }

// sampleShard picks one of the durable shards whose holder is not being asked.
func (u *upload) sampleShard() (shard int, ok bool) {
	var free []int
	for i := range u.shards {
		holder, sent := u.shards[i].holder, !u.shards[i].found
		asked := slices.ContainsFunc(u.check.running, func(a *attempt) bool { return a.peer == holder })
		if !holder.IsZero() && sent && !asked {
			free = append(free, i)
		}
	}
	if len(free) == 0 {
		return 0, false
	}
	return free[rand.IntN(len(free))], true
}

// compare reads one group of a shard, at a place that the holder cannot guess,
// and compares it with what was sent.
func (s *Segments) compare(a *attempt, segment *encoded) error {
	want := segment.shards[a.shard]
	from := rand.IntN((len(want)+groupBytes-1)/groupBytes) * groupBytes
	want = want[from:min(from+groupBytes, len(want))]
	store, err := s.cfg.Holders.Shards(a.peer)
	if err != nil {
		return err
	}
	id := storage.ShardID{Segment: segment.header.ID, Index: a.shard}
	r, err := store.OpenShard(a.ctx, id, int64(from), int64(len(want)))
	if err != nil {
		return cause(a.ctx, err)
	}
	defer r.Close()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil {
		return cause(a.ctx, err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("read back other bytes than were sent: %w", storage.ErrCorrupt)
	}
	return nil
}

// checked judges a sample. A holder that acknowledged and does not have the
// bytes has lost them or never stored them: its shards count as not stored.
func (u *upload) checked(o outcome) {
	u.endCheck(o.attempt)
	switch {
	case o.err == nil:
		u.check.passed = true
		for len(u.check.running) > 0 {
			slow := u.check.running[0]
			u.endCheck(slow)
			u.s.peers.failed(slow.peer, errStraggler, toGet)
		}
	case is(o.err, storage.ErrCorrupt, storage.ErrNotFound):
		u.lost(o)
	default:
		u.causes.add(o.peer, o.err)
		u.s.peers.failed(o.peer, o.err, toGet)
	}
}

func (u *upload) endCheck(a *attempt) {
	a.over = true
	a.cancel(errEnough)
	u.check.running = slices.DeleteFunc(u.check.running, func(other *attempt) bool { return other == a })
}

// lost takes back what a holder acknowledged.
func (u *upload) lost(o outcome) {
	err := fmt.Errorf("%w: %w", errLied, o.err)
	u.failed(o.attempt, err)
	u.s.lied(o.peer, storage.ShardID{Segment: u.segment.header.ID, Index: o.shard}, err)
	u.choice.liars[o.peer] = true
	for i := range u.shards {
		if u.shards[i].holder == o.peer {
			u.shards[i].holder = grid.PeerID{}
		}
	}
	if u.acked() < u.r.CommitAt() {
		u.enough = time.Time{}
	}
	if u.acked() < u.r.K {
		u.usable = time.Time{}
	}
}

// checkEvent returns when time alone will change something about the samples.
func (u *upload) checkEvent() (when time.Time) {
	for _, a := range u.check.running {
		when = earliest(when, a.idleAt())
		if !a.hedged {
			when = earliest(when, a.last().Add(u.s.cfg.StragglerMin))
		}
	}
	return when
}

// checkOnTime gives up samples that stand still, and lets another one start
// beside one that takes long, even when it waits behind other transfers.
func (u *upload) checkOnTime(now time.Time) {
	for _, a := range slices.Clone(u.check.running) {
		switch {
		case !now.Before(a.idleAt()):
			u.checked(outcome{attempt: a, err: ErrTimeout})
		case !now.Before(a.last().Add(u.s.cfg.StragglerMin)):
			a.hedged = true
		}
	}
}
