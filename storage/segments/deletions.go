package segments

import (
	"context"
	"fmt"

	"gotong/grid"
	"gotong/storage"
)

// maxDeletionPages bounds what one member may answer about one vault.
const maxDeletionPages = 256

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
	after := uint64(0)
	for range maxDeletionPages {
		raw, err := func() ([][]byte, error) {
			ctx, cancel := context.WithTimeout(ctx, s.cfg.AskTimeout)
			defer cancel()
			return store.Deletions(ctx, owner, vault, after)
		}()
		if err != nil || len(raw) == 0 {
			return err
		}
		deletions, err := storage.ParseDeletions(raw)
		if err != nil {
			return err
		}
		for _, d := range deletions {
			if d.Owner != owner || d.Vault != vault || d.Number <= after {
				return fmt.Errorf("%w: deletion %d of vault %s, asked for those of %s after %d", storage.ErrCorrupt, d.Number, d.Vault.Short(), vault.Short(), after)
			}
		}
		for _, d := range deletions {
			each(d)
		}
		after = deletions[len(deletions)-1].Number
	}
	return nil
}
