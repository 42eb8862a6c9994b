package segments

import (
	"context"
	"fmt"
	"slices"

	"gotong/grid"
	"gotong/storage"
)

// Locate asks the given peers, and nobody else, who has shards of segments, and
// returns what they say they have and know of, by segment. It waits for slow
// ones only until some have answered; nothing known is no error. What it returns
// is a Hint.
func (s *Segments) Locate(ctx context.Context, ids []storage.SegmentID, peers []grid.PeerID) (map[storage.SegmentID][]storage.Holder, error) {
	out := make(map[storage.SegmentID][]storage.Holder, len(ids))
	for batch := range slices.Chunk(ids, storage.MaxHave) {
		err := gather(ctx, s, peers, s.cfg.AskTimeout, func(ctx context.Context, store storage.RemoteShards) ([]storage.SegmentAnswer, error) {
			answers, err := store.Have(ctx, batch)
			if err != nil {
				return nil, err
			}
			return answers, checkAnswers(batch, answers)
		}, func(f found[[]storage.SegmentAnswer]) error {
			for _, a := range f.answer { // none beside an error
				own := make([]storage.Holder, 0, len(a.Shards))
				for _, shard := range readable(a.Shards) {
					own = append(own, storage.Holder{Shard: shard, Peer: f.peer})
				}
				// Their own word counts more than what they were told of others.
				out[a.Segment] = storage.MergeHolders(storage.MergeHolders(out[a.Segment], own, storage.MaxShards), a.Holders, storage.MaxShards)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("locate segments: %w", err)
		}
	}
	return out, nil
}
