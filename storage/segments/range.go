package segments

import (
	"context"
	"fmt"
	"io"

	"gotong/storage"
)

// Range returns n bytes of a segment from off, each shard's part read from one
// of its holders and nothing else. The bytes are NOT verified: a range has no
// root. The caller authenticates them, and falls back to Get when they are
// wrong or when this fails because a holder is away.
func (s *Segments) Range(ctx context.Context, id storage.SegmentID, hint Hint, off, n int64) ([]byte, error) {
	data, err := s.readRange(ctx, id, hint, off, n)
	if err != nil {
		return nil, fmt.Errorf("read %d bytes at %d of segment %s: %w", n, off, id.Short(), err)
	}
	return data, nil
}

func (s *Segments) readRange(ctx context.Context, id storage.SegmentID, hint Hint, off, n int64) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnough)
	known, err := s.learn(ctx, id, hint)
	if err != nil {
		return nil, err
	}
	if off < 0 || n < 0 || off > int64(known.header.Bytes)-n {
		return nil, fmt.Errorf("the segment has %d bytes", known.header.Bytes)
	}
	out := make([]byte, 0, n)
	for size := int64(known.header.ShardBytes); n > 0; {
		from := off % size
		part := min(n, size-from)
		piece, err := s.readPart(ctx, known, int(off/size), from, part)
		if err != nil {
			return nil, err
		}
		out = append(out, piece...)
		off, n = off+part, n-part
	}
	return out, nil
}

// readPart reads n bytes from off of one shard, from the first of its holders
// that gives them.
func (s *Segments) readPart(ctx context.Context, known knowledge, shard int, off, n int64) ([]byte, error) {
	var sources []source
	for _, src := range known.sources {
		if src.shard == shard {
			sources = append(sources, src)
		}
	}
	s.rank(sources, known.header.Redundancy.K)
	from := off / groupBytes * groupBytes
	to := min((off+n+groupBytes-1)/groupBytes*groupBytes, int64(known.header.ShardBytes))
	piece, failed, err := race(ctx, s, sources, int(to-from), func(a *attempt) ([]byte, error) {
		return s.readGroups(a, known.header.ID, from, to)
	})
	if err != nil {
		all := append(known.causes, failed...)
		return nil, &TooFewError{
			Segment: known.header.ID, Need: 1, Of: 1, Missing: all.peersOf(), Causes: all, kind: storage.ErrTooFewShards,
		}
	}
	return piece[off-from : off-from+n], nil
}

// readGroups reads a shard from one border of groups to another.
func (s *Segments) readGroups(a *attempt, id storage.SegmentID, from, to int64) ([]byte, error) {
	store, err := s.cfg.Holders.Shards(a.peer)
	if err != nil {
		return nil, err
	}
	shard := storage.ShardID{Segment: id, Index: a.shard}
	r, err := store.OpenShard(a.ctx, shard, from, to-from)
	if err != nil {
		return nil, s.judge(a, shard, err)
	}
	defer r.Close()
	groups := make([]byte, to-from)
	for at := 0; at < len(groups); {
		n, err := io.ReadAtLeast(r, groups[at:], 1)
		if err != nil {
			return nil, s.judge(a, shard, err)
		}
		at += n
		a.beat(s.cfg.IdleTimeout)
	}
	return groups, nil
}
