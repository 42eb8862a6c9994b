package segments

import (
	"context"
	"fmt"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/erasure"
)

// Audit has a peer prove that it has the given groups of a shard, of which root
// and length are known from the header. Errors: storage.ErrCorrupt when a proof
// does not hold or the peer says that its shard is bad, storage.ErrNotFound when
// it has no such shard; others say nothing about the data.
func (s *Segments) Audit(ctx context.Context, peer grid.PeerID, shard storage.ShardID, root [32]byte, shardBytes int, groups []int) error {
	fail := func(err error) error { return &storage.Error{Op: "audit", Shard: shard, Peer: peer, Err: err} }
	store, err := s.cfg.Holders.Shards(peer)
	if err != nil {
		return fail(err)
	}
	proofs, err := store.Prove(ctx, shard, groups)
	if err != nil {
		return fail(err)
	}
	if len(proofs) != len(groups) {
		return fail(fmt.Errorf("%w: %d proofs for %d groups", storage.ErrCorrupt, len(proofs), len(groups)))
	}
	for i, group := range groups {
		if err := erasure.VerifyProof(root, shardBytes, group, proofs[i]); err != nil {
			return fail(err)
		}
	}
	return nil
}
