package segments

import (
	"context"
	"errors"
	"slices"
	"time"

	"gotong/storage"
)

// start fetches a shard into its place in the segment, or into scratch memory
// when it has none or another fetch is using it.
func (d *download) start(ctx context.Context, src source) {
	d.left--
	f := &fetch{attempt: d.s.newAttempt(ctx, src.peer, src.shard, d.header.ShardBytes), sink: new(sink)}
	f.sink.moved = func() { f.beat(d.s.cfg.IdleTimeout) }
	s := &d.shards[src.shard]
	if cap(d.slots[src.shard]) > 0 && len(s.running) == 0 {
		f.sink.dst = d.slots[src.shard][:d.header.ShardBytes]
	} else {
		f.sink.dst, f.sink.pooled = d.s.buffers.get(d.header.ShardBytes), true
	}
	s.running = append(s.running, f)
	d.s.running.Go(func() {
		err := d.s.fetch(f, d.header)
		d.results <- fetched{f, err, time.Since(f.started)}
	})
}

// fetch reads and verifies one shard.
func (s *Segments) fetch(f *fetch, header storage.SignedHeader) error {
	store, err := s.cfg.Holders.Shards(f.peer)
	if err != nil {
		return err
	}
	r, err := store.OpenShard(f.ctx, storage.ShardID{Segment: header.ID, Index: f.shard}, 0, -1)
	if err != nil {
		return cause(f.ctx, err)
	}
	defer r.Close()
	f.beat(s.cfg.IdleTimeout)
	f.holders = r.Holders()
	if err := f.sink.fill(r, &s.buffers); err != nil {
		return cause(f.ctx, err)
	}
	return f.sink.verify(header.Roots[f.shard])
}

// take notes how a fetch ended.
func (d *download) take(f fetched) {
	if f.over {
		return
	}
	d.finish(f.fetch)
	f.cancel(errEnough)
	d.addHolders(f.holders)
	s := &d.shards[f.shard]
	if f.err != nil {
		d.failed(f.fetch, f.err)
		d.discard(f.sink)
		return
	}
	if s.data != nil { // another fetch was faster
		d.discard(f.sink)
		return
	}
	s.data, s.sink = f.sink.dst, f.sink
	d.good++
	d.pace.add(f.took)
	d.s.peers.worked(f.peer, len(s.data), f.took)
	for len(s.running) > 0 {
		other := s.running[0]
		d.finish(other)
		other.cancel(errEnough)
		d.discard(other.sink)
	}
}

func (d *download) addHolders(holders []storage.Holder) {
	if len(holders) <= storage.MaxHolders {
		d.add(sourcesOf(holders))
	}
}

func sourcesOf(holders []storage.Holder) []source {
	out := make([]source, len(holders))
	for i, h := range holders {
		out[i] = source{h.Peer, h.Shard}
	}
	return out
}

// finish takes a fetch off the list of those that run.
func (d *download) finish(f *fetch) {
	f.over = true
	s := &d.shards[f.shard]
	s.running = slices.DeleteFunc(s.running, func(other *fetch) bool { return other == f })
}

// discard takes the memory of a sink back.
func (d *download) discard(s *sink) {
	if dst := s.close(); dst != nil && s.pooled {
		d.s.buffers.put(dst)
	}
}

// failed notes why a peer did not give a shard, and whether it lied.
func (d *download) failed(f *fetch, err error) {
	d.causes.add(f.peer, err)
	d.s.peers.failed(f.peer, err, toGet)
	if is(err, storage.ErrCorrupt, storage.ErrNotFound, storage.ErrDeleted) {
		d.lost = append(d.lost, lostShard{source{f.peer, f.shard}, is(err, storage.ErrCorrupt)})
	}
	if d.s.cfg.Doubt != nil && is(err, storage.ErrCorrupt, storage.ErrNotFound, storage.ErrDeleted, storage.ErrDenied) {
		d.s.cfg.Doubt(f.peer, storage.ShardID{Segment: d.header.ID, Index: f.shard})
	}
	if errors.Is(err, storage.ErrCorrupt) {
		d.s.lied(f.peer, storage.ShardID{Segment: d.header.ID, Index: f.shard}, err)
	}
}
