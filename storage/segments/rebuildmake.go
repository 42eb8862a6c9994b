package segments

import (
	"context"
	"fmt"
	"slices"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/erasure"
)

// memory returns what the pass takes: the segment, what is decoded from, and the
// shards that are made.
func (b *rebuild) memory() int {
	return (b.r.K + min(b.r.K, b.r.N-b.r.K) + len(b.missing)) * b.header.ShardBytes
}

// make gets the bytes of the missing shards, from where it costs least.
func (b *rebuild) make(ctx context.Context) error {
	if b.fromData(b.job.Data) || b.fromSpool() || b.copied(ctx) {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return b.decode(ctx)
}

// fromData makes the shards from the whole segment, unless it is another one.
func (b *rebuild) fromData(data []byte) bool {
	if len(data) != b.header.Bytes {
		return false
	}
	segment := b.s.buffers.get(b.r.K * b.header.ShardBytes)
	clear(segment[copy(segment, data):])
	return b.complete(segment) == nil
}

func (b *rebuild) fromSpool() bool {
	if b.s.cfg.Spool == nil {
		return false
	}
	buffer := b.s.buffers.get(b.header.Bytes)
	defer b.s.buffers.put(buffer)
	data, ok := b.s.cfg.Spool.get(b.header.ID, buffer)
	if ok && !b.fromData(data) {
		b.s.cfg.Logger.Warn("segment in the spool is damaged", "segment", b.header.ID)
		b.s.cfg.Spool.Remove(b.header.ID)
		return false
	}
	return ok
}

// copied reads the missing shards themselves, when each is said to be somewhere
// and they are fewer than decoding takes. A shard that moves is one.
func (b *rebuild) copied(ctx context.Context) bool {
	if len(b.missing) >= b.r.K {
		return false
	}
	pieces := make([][]byte, b.r.N)
	for _, shard := range b.missing {
		var sources []source
		for _, h := range b.job.Sources {
			if h.Shard == shard && !h.Peer.IsZero() {
				sources = append(sources, source{h.Peer, shard})
			}
		}
		b.s.rank(sources, b.r.K)
		piece, failed, err := race(ctx, b.s, sources, b.header.ShardBytes, b.s.readShard(b.header))
		b.causes = append(b.causes, failed...)
		if err != nil {
			return false
		}
		pieces[shard] = piece
	}
	b.made = &encoded{header: b.header, shards: pieces, lease: newLease(func() {
		for _, piece := range pieces {
			b.s.buffers.put(piece)
		}
	})}
	return true
}

// readShard returns a try for race that reads and verifies a shard.
func (s *Segments) readShard(header storage.SignedHeader) func(*attempt) ([]byte, error) {
	return func(a *attempt) ([]byte, error) {
		sink := &sink{dst: s.buffers.get(header.ShardBytes)}
		sink.moved = func() { a.beat(s.cfg.IdleTimeout) }
		err := s.fetch(&fetch{attempt: a, sink: sink}, header)
		if err != nil {
			return nil, s.judge(a, storage.ShardID{Segment: header.ID, Index: a.shard}, err)
		}
		return sink.close(), nil
	}
}

// decode reads k shards and makes the missing ones.
func (b *rebuild) decode(ctx context.Context) error {
	known := knowledge{header: b.header, sources: sourcesOf(b.job.Sources)}
	segment := b.s.buffers.get(b.r.K * b.header.ShardBytes)
	d, err := newDownload(b.s, known, segment)
	if err != nil {
		return err
	}
	if _, err := d.run(ctx); err != nil {
		return err // the buffer is left alone: a transfer may have it still
	}
	b.causes = append(b.causes, d.causes...)
	b.notice(d.lost)
	return b.complete(segment)
}

// notice adds shards to the missing ones whose only holder turned out to be
// without.
func (b *rebuild) notice(lost []lostShard) {
	b.lost = append(b.lost, lost...)
	for _, src := range lost {
		s := &b.shards[src.shard]
		if s.holder != src.peer {
			continue
		}
		s.holder, s.found = grid.PeerID{}, false
		for _, h := range b.job.Sources {
			if h.Shard == src.shard && b.mayHave(h) {
				s.holder, s.found = h.Peer, true
			}
		}
		if s.holder.IsZero() {
			b.miss(src.shard)
		}
	}
}

// mayHave reports whether a peer that is said to have a shard was not found to
// be without.
func (b *rebuild) mayHave(h storage.Holder) bool {
	return !h.Peer.IsZero() && !slices.ContainsFunc(b.lost, func(l lostShard) bool {
		return l.source == source{h.Peer, h.Shard}
	})
}

// complete makes the missing shards of a whole padded segment, whose memory it
// takes over, and verifies each.
func (b *rebuild) complete(segment []byte) error {
	coder, err := erasure.New(b.r)
	if err != nil {
		return err
	}
	pieces := coder.Slots(segment)
	buffers := [][]byte{segment}
	for i := range pieces {
		switch {
		case i < b.r.K:
			pieces[i] = pieces[i][:b.header.ShardBytes]
		case b.wanted(i):
			piece := b.s.buffers.get(b.header.ShardBytes)
			buffers = append(buffers, piece)
			pieces[i] = piece[:0]
		}
	}
	lease := newLease(func() {
		for _, buffer := range buffers {
			b.s.buffers.put(buffer)
		}
	})
	if err := coder.Rebuild(pieces, b.missing); err != nil {
		lease.release()
		return err
	}
	made := make([][]byte, b.r.N)
	for _, i := range b.missing {
		if err := erasure.Verify(pieces[i], b.header.Roots[i]); err != nil {
			lease.release()
			return fmt.Errorf("shard %d made from the others: %w", i, err)
		}
		made[i] = pieces[i]
	}
	b.made = &encoded{header: b.header, shards: made, lease: lease}
	return nil
}
