package segments

import (
	"context"
	"slices"

	"gotong/storage"
)

// knowledge is what a read starts from.
type knowledge struct {
	header  storage.SignedHeader
	sources []source
	found   <-chan found[[]storage.ShardAnswer] // answers of members still to come; nil: they were not asked
	causes  causes
}

// learn returns the header of a segment, from the hint, from memory, from the
// holders that the hint names, or from any member that has a shard.
func (s *Segments) learn(ctx context.Context, id storage.SegmentID, hint Hint) (knowledge, error) {
	k := knowledge{sources: sourcesOf(hint.Holders)}
	if hint.Header.ID == id {
		k.header = hint.Header
		return k, nil
	}
	if header, ok := s.headers.get(id); ok {
		k.header = header
		return k, nil
	}
	onePerPeer := slices.Clone(k.sources)
	s.rank(onePerPeer, storage.MaxShards)
	onePerPeer = slices.CompactFunc(onePerPeer, func(a, b source) bool { return a.peer == b.peer })
	if s.askHeader(ctx, id, onePerPeer, &k) {
		return k, nil
	}
	if ctx.Err() != nil {
		return k, context.Cause(ctx)
	}
	return s.learnFromMembers(ctx, id, k)
}

// learnFromMembers asks all members until one that has a shard gives its
// header; the answers that are still to come go on to the caller.
func (s *Segments) learnFromMembers(ctx context.Context, id storage.SegmentID, k knowledge) (knowledge, error) {
	k.found = s.whoHas(ctx, id)
	for f := range k.found {
		if f.err != nil {
			k.causes.add(f.peer, f.err)
			continue
		}
		var sources []source
		for _, shard := range readable(f.answer) {
			sources = append(sources, source{f.peer, shard})
		}
		if len(sources) == 0 {
			continue
		}
		k.sources = append(k.sources, sources...)
		if s.askHeader(ctx, id, sources[:1], &k) {
			return k, nil
		}
	}
	if ctx.Err() != nil {
		return k, context.Cause(ctx)
	}
	return k, &TooFewError{Segment: id, Missing: k.causes.peersOf(), Causes: k.causes, kind: storage.ErrTooFewShards}
}

// askHeader adds to k the header of the segment as the first of from gave it,
// or why none did.
func (s *Segments) askHeader(ctx context.Context, id storage.SegmentID, from []source, k *knowledge) bool {
	header, failed, err := race(ctx, s, from, storage.MaxHeaderBytes, s.readHeader(id))
	k.causes = append(k.causes, failed...)
	if err != nil {
		return false
	}
	k.header = header
	s.headers.add(header)
	return true
}

// readHeader returns a try for race that reads only the header of a segment.
func (s *Segments) readHeader(id storage.SegmentID) func(*attempt) (storage.SignedHeader, error) {
	return func(a *attempt) (storage.SignedHeader, error) {
		store, err := s.cfg.Holders.Shards(a.peer)
		if err != nil {
			return storage.SignedHeader{}, err
		}
		shard := storage.ShardID{Segment: id, Index: a.shard}
		r, err := store.OpenShard(a.ctx, shard, 0, 0)
		if err != nil {
			return storage.SignedHeader{}, s.judge(a, shard, err)
		}
		defer r.Close()
		header, err := storage.ParseKnownHeader(r.Header().Raw, id)
		return header, s.judge(a, shard, err)
	}
}
