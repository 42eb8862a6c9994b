package segments

import (
	"context"
	"errors"
	"fmt"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/erasure"
)

// Audit makes a peer prove that it has the given groups of a shard. nil: it has
// them, now. storage.ErrCorrupt: it gave a wrong proof or says that the shard is
// bad; storage.ErrNotFound: it says that it does not have the shard, and
// storage.ErrDeleted that its owner deleted it; ErrTimeout: it did not answer in
// time; with any other error it could not be asked.
func (s *Segments) Audit(ctx context.Context, peer grid.PeerID, shard storage.ShardID, root [32]byte, shardBytes int, groups []int) error {
	_, err := askOne(ctx, s, peer, s.cfg.AskTimeout, func(ctx context.Context, _ grid.PeerID, store storage.RemoteShards) (struct{}, error) {
		proofs, err := store.Prove(ctx, shard, groups)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, checkProofs(root, shardBytes, groups, proofs)
	})
	if errors.Is(err, storage.ErrCorrupt) {
		s.lied(peer, shard, err)
	}
	if err != nil {
		s.peers.failed(peer, err, toGet)
		return &storage.Error{Op: "audit", Shard: shard, Peer: peer, Err: err}
	}
	return nil
}

func checkProofs(root [32]byte, shardBytes int, groups []int, proofs [][]byte) error {
	if len(proofs) != len(groups) {
		return fmt.Errorf("%d proofs for %d groups: %w", len(proofs), len(groups), storage.ErrCorrupt)
	}
	for i, group := range groups {
		if err := erasure.VerifyProof(root, shardBytes, group, proofs[i]); err != nil {
			return err
		}
	}
	return nil
}
