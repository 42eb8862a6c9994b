package segments

import (
	"context"
	"fmt"
	"iter"

	"gotong/storage"
)

// List yields the segments of a vault of which a reachable member stores a
// shard, those of several members more than once. An error is about one member,
// and the others go on.
func (s *Segments) List(ctx context.Context, vault storage.VaultID) iter.Seq2[storage.SegmentID, error] {
	return func(yield func(storage.SegmentID, error) bool) {
		for _, peer := range s.cfg.Holders.Members() {
			store, err := s.cfg.Holders.Shards(peer)
			if err != nil {
				if !yield(storage.SegmentID{}, fmt.Errorf("%s: %w", peer.Short(), err)) {
					return
				}
				continue
			}
			var last storage.SegmentID
			for id, err := range store.List(ctx, vault) {
				if err != nil {
					if !yield(storage.SegmentID{}, fmt.Errorf("%s: %w", peer.Short(), err)) {
						return
					}
					break
				}
				if id.Segment != last && !yield(id.Segment, nil) {
					return
				}
				last = id.Segment
			}
		}
	}
}
