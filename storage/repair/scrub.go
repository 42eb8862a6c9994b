package repair

import (
	"context"
	"errors"
	"time"

	"gotong/storage"
)

const (
	// scrubIdle is how long the scrub waits when there is nothing to read.
	scrubIdle = time.Hour
	// scrubSave is after how many shards the place where it stands is written.
	scrubSave = 256
)

// scrubs reads all own shards again within the period, the trash too, at an even
// pace and never for more than half of the time. What is bad is set aside by the
// store, and the next round replaces it if it is still wanted.
func (r *Repairer) scrubs(ctx context.Context) {
	for {
		if err := r.scrubPass(ctx); err != nil && ctx.Err() == nil {
			r.cfg().Logger.Warn("reading the own shards again was interrupted", "err", err)
		}
		if sleep(ctx, min(scrubIdle, r.cfg().Scrub)) != nil {
			return
		}
	}
}

// scrubPass reads from where the last one stood to the end. It returns at once
// when the whole was read within the period.
func (r *Repairer) scrubPass(ctx context.Context) error {
	state := r.memory.scrubState()
	if state.next == (storage.ShardID{}) {
		if !state.last.IsZero() && time.Since(state.last) < r.cfg().Scrub/2 {
			return nil
		}
		state.began = time.Now()
	}
	left, err := r.countAfter(ctx, state.next)
	if err != nil {
		return err
	}
	n := 0
	for id, err := range r.cfg().Store.All(ctx) {
		if err != nil {
			return err
		}
		if before(id, state.next) {
			continue
		}
		took := r.scrubOne(ctx, id, &state)
		left--
		if n++; n%scrubSave == 0 {
			r.memory.setScrub(state)
		}
		if err := sleep(ctx, scrubWait(took, time.Until(state.began.Add(r.cfg().Scrub/2)), left)); err != nil {
			r.memory.setScrub(state)
			return err
		}
	}
	if ctx.Err() != nil {
		r.memory.setScrub(state)
		return context.Cause(ctx)
	}
	state.next, state.last = storage.ShardID{}, time.Now()
	r.memory.setScrub(state)
	return nil
}

// scrubWait returns how long to wait after a shard that took a time to read,
// with so many left for the rest of the period. It is pure.
func scrubWait(took, rest time.Duration, left int) time.Duration {
	if left == 0 {
		return took
	}
	return max(took, rest/time.Duration(left)-took)
}

func (r *Repairer) scrubOne(ctx context.Context, id storage.ShardID, state *scrubState) (took time.Duration) {
	start := time.Now()
	err := r.cfg().Store.Verify(ctx, id)
	if errors.Is(err, storage.ErrCorrupt) {
		state.bad++
		r.suspect(id.Segment)
	}
	state.next = after(id)
	return time.Since(start)
}

// countAfter counts the shards from a place on.
func (r *Repairer) countAfter(ctx context.Context, from storage.ShardID) (n int, err error) {
	for id, err := range r.cfg().Store.All(ctx) {
		if err != nil {
			return 0, err
		}
		if !before(id, from) {
			n++
		}
	}
	return n, nil
}

// before orders shards by segment and index.
func before(a, b storage.ShardID) bool {
	if c := compareIDs(a.Segment, b.Segment); c != 0 {
		return c < 0
	}
	return a.Index < b.Index
}

// after is the place behind a shard.
func after(id storage.ShardID) storage.ShardID {
	if id.Index+1 < storage.MaxShards {
		id.Index++
		return id
	}
	id.Index = 0
	for i := len(id.Segment) - 1; i >= 0; i-- {
		if id.Segment[i]++; id.Segment[i] != 0 {
			break
		}
	}
	return id
}

// Scrubbed says how far the re-reading of the own shards is.
type Scrubbed struct {
	Last time.Time // when all had been read; zero: not yet
	Bad  uint64    // found bad, ever
}

// Scrubbed returns how far it is.
func (r *Repairer) Scrubbed() Scrubbed {
	s := r.memory.scrubState()
	return Scrubbed{s.last, s.bad}
}
