package segments

import (
	"context"

	"gotong/grid"
	"gotong/storage"
)

// Deletions calls each with the deletions of a vault that the members keep, with
// their signatures verified, those of several members more than once. It returns
// how many of the members answered to the end. The error is that of ctx.
func (s *Segments) Deletions(ctx context.Context, owner grid.OwnerID, vault storage.VaultID, each func(storage.SignedDeletion)) (answered, members int, err error) {
	peers := s.cfg.Holders.Members()
	for _, peer := range peers {
		err := s.deletionsOf(ctx, peer, owner, vault, each)
		if ctx.Err() != nil {
			return answered, len(peers), context.Cause(ctx)
		}
		if err != nil {
			s.cfg.Logger.Debug("peer did not tell what was deleted", "peer", peer, "err", err)
			continue
		}
		answered++
	}
	return answered, len(peers), nil
}

func (s *Segments) deletionsOf(ctx context.Context, peer grid.PeerID, owner grid.OwnerID, vault storage.VaultID, each func(storage.SignedDeletion)) error {
	store, err := s.cfg.Holders.Shards(peer)
	if err != nil {
		return err
	}
	ask := func(after uint64) ([][]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.AskTimeout)
		defer cancel()
		return store.Deletions(ctx, owner, vault, after)
	}
	return storage.EachDeletions(owner, vault, 0, ask, func(_ [][]byte, deletions []storage.SignedDeletion) {
		for _, d := range deletions {
			each(d)
		}
	})
}
