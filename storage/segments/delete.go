package segments

import (
	"context"
	"fmt"
	"slices"

	"gotong/grid"
	"gotong/storage"
)

// Delete hands signed deletions to all members and returns who has them on disk
// and who has not, so that those can be sent them again. It does not wait for
// members that take much longer than others. The error is that of ctx, or says
// that one of raw is no deletion; nothing was sent then.
func (s *Segments) Delete(ctx context.Context, raw [][]byte) (acked, silent []grid.PeerID, err error) {
	pages := deletionPages(raw)
	for _, page := range pages {
		deletions, err := storage.ParseDeletions(page)
		if err != nil {
			return nil, nil, fmt.Errorf("delete segments: %w", err)
		}
		s.unspool(deletions)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnough)
	question := func(ctx context.Context, store storage.RemoteShards) (struct{}, error) {
		for _, page := range pages {
			if err := store.PutDeletions(ctx, page); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	}
	silent = slices.Clone(s.cfg.Holders.Members())
	err = gather(ctx, s, silent, s.cfg.IdleTimeout, question, func(a found[struct{}]) error {
		if a.err != nil {
			s.cfg.Logger.Debug("peer did not take deletions", "peer", a.peer, "err", a.err)
			return nil
		}
		acked = append(acked, a.peer)
		silent = slices.DeleteFunc(silent, func(peer grid.PeerID) bool { return peer == a.peer })
		return nil
	})
	if err != nil {
		return acked, silent, fmt.Errorf("delete segments: %w", err)
	}
	return acked, silent, nil
}

// unspool drops what waits for shards that nobody needs any more.
func (s *Segments) unspool(deletions []storage.SignedDeletion) {
	if s.cfg.Spool == nil {
		return
	}
	for _, d := range deletions {
		for _, id := range d.Segments {
			s.cfg.Spool.Remove(id)
		}
	}
}

// deletionPages cuts deletions into what one call takes.
func deletionPages(raw [][]byte) (pages [][][]byte) {
	for size := 0; len(raw) > 0; size = 0 {
		n := 0
		for n < len(raw) && n < storage.MaxPutDeletions && (n == 0 || size+len(raw[n]) <= storage.MaxDeletionPage) {
			size += len(raw[n])
			n++
		}
		pages, raw = append(pages, raw[:n]), raw[n:]
	}
	return pages
}
