package segments

import (
	"context"
	"fmt"

	"gotong/storage"
)

// BufferBytes is a capacity that holds any segment with its padding.
const BufferBytes = storage.MaxSegmentBytes + 64*storage.MaxShards

// Hint is what the caller of Get and Range knows. All of it may be missing,
// which costs round trips; none of it is believed.
type Hint struct {
	Header  storage.SignedHeader // of that segment
	Holders []storage.Holder     // who was given which shard
	Buffer  []byte               // memory for the result of Get, if its capacity suffices (see BufferBytes)
}

// Get returns the bytes of a segment. Every shard was verified against the
// header, and the header against id. When fewer than k shards can be had from
// all members together the error is a *TooFewError.
func (s *Segments) Get(ctx context.Context, id storage.SegmentID, hint Hint) ([]byte, error) {
	data, err := s.get(ctx, id, hint)
	if err != nil {
		return nil, fmt.Errorf("get segment: %w", err)
	}
	return data, nil
}

func (s *Segments) get(ctx context.Context, id storage.SegmentID, hint Hint) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnough)
	known, err := s.learn(ctx, id, hint)
	if err != nil {
		return nil, err
	}
	h := known.header
	release, err := s.reserve(ctx, (h.Redundancy.K+min(h.Redundancy.K, h.Redundancy.N-h.Redundancy.K))*h.ShardBytes)
	if err != nil {
		return nil, err
	}
	defer release()
	d, err := newDownload(s, known, hint.Buffer)
	if err != nil {
		return nil, err
	}
	return d.run(ctx)
}
