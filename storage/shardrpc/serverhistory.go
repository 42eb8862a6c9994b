package shardrpc

import (
	"context"
	"fmt"

	"gotong/grid"
	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
)

// HeadHistory implements shardsv1.ShardsServer.
func (s *Server) HeadHistory(req *shardsv1.HeadHistoryRequest, stream shardsv1.Shards_HeadHistoryServer) error {
	return s.call(stream.Context(), false, func(ctx context.Context, c caller, p *pulse) error {
		owner, vault, err := vaultFromWire(req.GetOwner(), req.GetVault())
		if err != nil {
			return err
		}
		below, err := cursorFromWire(req.GetBelowSeq(), req.GetBelowId())
		if err != nil {
			return err
		}
		if ok, err := s.mayKnow(ctx, c, owner, vault); err != nil || !ok {
			return err
		}
		heads, err := s.cfg.Store.HeadHistory(ctx, owner, vault, below)
		if err != nil {
			return err
		}
		return inChunks(heads, func(part [][]byte) error {
			return p.wait(func() error { return stream.Send(&shardsv1.HeadHistoryResponse{Heads: part}) })
		})
	})
}

// inChunks calls send with some of the items at a time, so that no message
// becomes large.
func inChunks(items [][]byte, send func([][]byte) error) error {
	for len(items) > 0 {
		n, size := 0, 0
		for n < len(items) && (n == 0 || size+len(items[n]) <= headsChunkBytes) {
			size += len(items[n])
			n++
		}
		if err := send(items[:n]); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

// PutDeletions implements shardsv1.ShardsServer. A deletion proves by its
// signature and grant that its owner wants it, so any member may hand it over.
func (s *Server) PutDeletions(ctx context.Context, req *shardsv1.PutDeletionsRequest) (*shardsv1.PutDeletionsResponse, error) {
	_, done, err := s.admit(ctx, false)
	if err != nil {
		return nil, toStatus(err)
	}
	defer done()
	s.running.Add(1)
	defer s.running.Done()
	if err := s.cfg.Store.PutDeletions(ctx, req.GetDeletions()); err != nil {
		return nil, toStatus(fmt.Errorf("put deletions: %w", err))
	}
	return new(shardsv1.PutDeletionsResponse), nil
}

// Deletions implements shardsv1.ShardsServer.
func (s *Server) Deletions(req *shardsv1.DeletionsRequest, stream shardsv1.Shards_DeletionsServer) error {
	return s.call(stream.Context(), false, func(ctx context.Context, _ caller, p *pulse) error {
		owner, vault, err := vaultFromWire(req.GetOwner(), req.GetVault())
		if err != nil {
			return err
		}
		deletions, err := s.cfg.Store.Deletions(ctx, owner, vault, req.GetAfter())
		if err != nil {
			return err
		}
		return inChunks(deletions, func(part [][]byte) error {
			return p.wait(func() error { return stream.Send(&shardsv1.DeletionsResponse{Deletions: part}) })
		})
	})
}

// Prove implements shardsv1.ShardsServer.
func (s *Server) Prove(req *shardsv1.ProveRequest, stream shardsv1.Shards_ProveServer) error {
	return s.call(stream.Context(), false, func(ctx context.Context, c caller, p *pulse) error {
		id, err := shardFromWire(req.GetSegment(), req.GetIndex())
		if err != nil {
			return err
		}
		groups, err := groupsFromWire(req.GetGroups())
		if err != nil {
			return err
		}
		if err := s.callers.prove(c.peer, len(groups)); err != nil {
			return err
		}
		proofs, err := s.cfg.Store.Prove(ctx, id, groups)
		if err != nil {
			return err
		}
		return inChunks(proofs, func(part [][]byte) error {
			return p.wait(func() error { return stream.Send(&shardsv1.ProveResponse{Proofs: part}) })
		})
	})
}

func vaultFromWire(owner, vault []byte) (grid.OwnerID, storage.VaultID, error) {
	if len(owner) != len(grid.OwnerID{}) || len(vault) != len(storage.VaultID{}) {
		return grid.OwnerID{}, storage.VaultID{}, violation("owner id of %d bytes, vault id of %d", len(owner), len(vault))
	}
	return grid.OwnerID(owner), storage.VaultID(vault), nil
}

// cursorFromWire reads a place in the order of heads; no bytes are the place
// above all.
func cursorFromWire(seq uint64, id []byte) (storage.HeadCursor, error) {
	if seq == 0 && len(id) == 0 {
		return storage.HeadCursor{}, nil
	}
	if len(id) != len(storage.HeadID{}) {
		return storage.HeadCursor{}, violation("head id of %d bytes", len(id))
	}
	return storage.HeadCursor{Seq: seq, ID: storage.HeadID(id)}, nil
}

func groupsFromWire(wire []uint32) ([]int, error) {
	if len(wire) < 1 || len(wire) > storage.MaxProofGroups {
		return nil, violation("%d groups, want 1 to %d", len(wire), storage.MaxProofGroups)
	}
	groups := make([]int, len(wire))
	for i, g := range wire {
		if g >= uint32(storage.ProofGroups(storage.MaxShardBytes)) {
			return nil, violation("group %d", g)
		}
		groups[i] = int(g)
	}
	return groups, nil
}
