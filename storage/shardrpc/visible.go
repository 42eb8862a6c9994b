package shardrpc

import (
	"context"
	"errors"
	"slices"

	"gotong/grid"
	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
	"gotong/storage/placement"
)

// List implements shardsv1.ShardsServer. Whoever is neither of the owner nor
// named as a holder of a segment does not learn its id, so the check is made
// for each segment: a vault's id alone proves nothing.
func (s *Server) List(req *shardsv1.ListRequest, stream shardsv1.Shards_ListServer) error {
	return s.call(stream.Context(), false, func(ctx context.Context, c caller, p *pulse) error {
		if len(req.GetVault()) != len(storage.VaultID{}) {
			return violation("vault id of %d bytes", len(req.GetVault()))
		}
		return s.windows(ctx, storage.VaultID(req.Vault), func(ids []storage.ShardID) (bool, error) {
			seen, err := s.visible(ctx, c, ids)
			if err != nil || len(seen) == 0 {
				return err == nil, err
			}
			chunk := &shardsv1.ListResponse{Shards: make([]*shardsv1.ShardName, len(seen))}
			for i, id := range seen {
				chunk.Shards[i] = &shardsv1.ShardName{Segment: id.Segment[:], Index: uint32(id.Index)}
			}
			return true, p.wait(func() error { return stream.Send(chunk) })
		})
	})
}

// windows calls each with the stored shards of a vault, some at a time, until
// it returns false or an error.
func (s *Server) windows(ctx context.Context, vault storage.VaultID, each func([]storage.ShardID) (bool, error)) error {
	window := make([]storage.ShardID, 0, listWindow)
	for id, err := range s.cfg.Store.List(ctx, vault) {
		if err != nil {
			return err
		}
		if window = append(window, id); len(window) < listWindow {
			continue
		}
		if more, err := each(window); err != nil || !more {
			return err
		}
		window = window[:0]
	}
	if len(window) == 0 {
		return nil
	}
	_, err := each(window)
	return err
}

// visible returns those of ids that the caller may know.
func (s *Server) visible(ctx context.Context, c caller, ids []storage.ShardID) ([]storage.ShardID, error) {
	held, err := s.heldBy(ctx, c.peer, ids)
	if err != nil {
		return nil, err
	}
	out := make([]storage.ShardID, 0, len(ids))
	for _, id := range ids {
		if held[id.Segment] {
			out = append(out, id)
			continue
		}
		owner, err := s.ownerOf(ctx, id)
		if err != nil {
			return nil, err
		}
		if owner == c.owner {
			out = append(out, id)
		}
	}
	return out, nil
}

// heldBy returns which segments of ids name peer in their holder lists.
func (s *Server) heldBy(ctx context.Context, peer grid.PeerID, ids []storage.ShardID) (map[storage.SegmentID]bool, error) {
	var segments []storage.SegmentID
	for _, id := range ids {
		if len(segments) == 0 || segments[len(segments)-1] != id.Segment { // ids come ordered
			segments = append(segments, id.Segment)
		}
	}
	answers, err := s.cfg.Store.Have(ctx, segments)
	if err != nil {
		return nil, err
	}
	held := make(map[storage.SegmentID]bool)
	for _, a := range answers {
		if slices.ContainsFunc(a.Holders, func(h storage.Holder) bool { return h.Peer == peer }) {
			held[a.Segment] = true
		}
	}
	return held, nil
}

// ownerOf returns the owner in the header of a stored shard, or nobody when the
// shard is gone or bad by now.
func (s *Server) ownerOf(ctx context.Context, id storage.ShardID) (grid.OwnerID, error) {
	reader, err := s.cfg.Store.OpenShard(ctx, id, 0, 0)
	switch {
	case errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrCorrupt):
		return grid.OwnerID{}, nil
	case err != nil:
		return grid.OwnerID{}, err
	}
	defer reader.Close()
	return reader.Header().Owner, nil
}

// Heads implements shardsv1.ShardsServer.
func (s *Server) Heads(req *shardsv1.HeadsRequest, stream shardsv1.Shards_HeadsServer) error {
	return s.call(stream.Context(), false, func(ctx context.Context, c caller, p *pulse) error {
		if len(req.GetOwner()) != len(grid.OwnerID{}) {
			return violation("owner id of %d bytes", len(req.GetOwner()))
		}
		owner := grid.OwnerID(req.Owner)
		vaults, err := s.cfg.Store.Heads(ctx, owner)
		if err != nil {
			return err
		}
		for _, v := range vaults {
			if ok, err := s.mayKnow(ctx, c, owner, v.Vault); err != nil || !ok {
				if err != nil {
					return err
				}
				continue
			}
			if err := sendHeads(stream, p, v); err != nil {
				return err
			}
		}
		return nil
	})
}

// mayKnow reports whether the caller may see the heads of a vault: it belongs
// to the owner, or ought to keep heads of that vault, or holds shards of it.
func (s *Server) mayKnow(ctx context.Context, c caller, owner grid.OwnerID, vault storage.VaultID) (bool, error) {
	if c.owner == owner || slices.Contains(placement.HeadHolders(vault, s.cfg.Members.PeerIDs(), placement.MaxHeadHolders), c.peer) {
		return true, nil
	}
	found := false
	err := s.windows(ctx, vault, func(ids []storage.ShardID) (bool, error) {
		held, err := s.heldBy(ctx, c.peer, ids)
		if err != nil {
			return false, err
		}
		for _, id := range ids {
			if !held[id.Segment] {
				continue
			}
			// Anyone can store a segment of their own under this vault's id.
			of, err := s.ownerOf(ctx, id)
			if err != nil {
				return false, err
			}
			if of == owner {
				found = true
				return false, nil
			}
		}
		return true, nil
	})
	return found, err
}

// sendHeads sends one chain in messages of bounded size.
func sendHeads(stream shardsv1.Shards_HeadsServer, p *pulse, v storage.VaultHeads) error {
	chunk := &shardsv1.HeadsResponse{Vault: v.Vault[:]}
	size := 0
	flush := func() error {
		out := chunk
		chunk, size = &shardsv1.HeadsResponse{Vault: v.Vault[:]}, 0
		return p.wait(func() error { return stream.Send(out) })
	}
	for i, list := range [2][][]byte{v.Links, v.Forks} {
		for _, head := range list {
			if size > 0 && size+len(head) > headsChunkBytes {
				if err := flush(); err != nil {
					return err
				}
			}
			size += len(head)
			if i == 0 {
				chunk.Heads = append(chunk.Heads, head)
			} else {
				chunk.Forks = append(chunk.Forks, head)
			}
		}
	}
	return flush()
}
