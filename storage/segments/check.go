package segments

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// groupBytes is the unit in which ranges of shards are read, so that a holder
// does not learn where blobs begin and end.
const groupBytes = 16 << 10

// check is the sample that is read back before a segment counts as committed.
type check struct {
	running *attempt
	tries   int
	passed  bool
}

// startCheck starts to read back part of one durable shard, once there are
// enough of them.
func (u *upload) startCheck(ctx context.Context) {
	c := &u.check
	if c.passed || c.running != nil || c.tries == checksMax || u.acked() < u.r.CommitAt() {
		return
	}
	var durable []int
	for i := range u.shards {
		if !u.shards[i].holder.IsZero() {
			durable = append(durable, i)
		}
	}
	shard := durable[rand.IntN(len(durable))]
	c.tries++
	a := newAttempt(ctx, u.shards[shard].holder, shard, u.s.cfg.AskTimeout)
	a.sample = true
	c.running = a
	u.segment.lease.hold()
	u.s.running.Go(func() {
		defer u.segment.lease.release()
		err := u.s.compare(a, u.segment)
		u.results <- outcome{a, err, time.Since(a.started)}
	})
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

// checked judges the sample. A holder that acknowledged and does not have the
// bytes has lost them or never stored them: its shard counts as not stored.
func (u *upload) checked(o outcome) {
	u.check.running, o.over = nil, true
	o.cancel(errEnough)
	if o.err == nil {
		u.check.passed = true
		return
	}
	if !is(o.err, storage.ErrCorrupt, storage.ErrNotFound) {
		u.failed(o.attempt, o.err)
		return
	}
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
}
