package segments

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"gotong/grid"
	"gotong/storage"
)

// HeadHistory asks all members for heads of a vault, those that stand and those
// that were set aside, from the newest to the oldest, beginning below a cursor
// (the zero one is above all). To go on, take the cursor of the last one; no
// heads mean that there are no more. Every head was verified; between two that
// follow each other none is missing that a member that answers would give.
// Without any other member that answers the error is a *TooFewHeadHolders.
func (s *Segments) HeadHistory(ctx context.Context, owner grid.OwnerID, vault storage.VaultID, below storage.HeadCursor) ([]storage.SignedHead, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnough)
	question := func(ctx context.Context, store storage.RemoteShards) ([][]byte, error) {
		return store.HeadHistory(ctx, owner, vault, below)
	}
	known := map[storage.HeadID]storage.SignedHead{}
	var cut storage.HeadCursor // below it somebody may have more than came
	var failed causes
	answered := 0
	err := gather(ctx, s, slices.Clone(s.cfg.Holders.Members()), s.cfg.AskTimeout, question, func(a found[[][]byte]) error {
		page, err := checkHistory(a.answer, owner, vault, below)
		if err != nil {
			s.problems.add(a.peer, storage.ShardID{Index: -1}, fmt.Sprintf("gave a bad history of vault %s: %v", vault.Short(), err))
		}
		if err = errors.Join(a.err, err); err != nil {
			failed.add(a.peer, err)
			return nil
		}
		if a.peer != s.self {
			answered++
		}
		for _, head := range page {
			known[head.ID] = head
		}
		if len(page) > 0 {
			if last := page[len(page)-1].Cursor(); last.Compare(cut) > 0 {
				cut = last
			}
		}
		return nil
	})
	if err == nil && answered == 0 {
		err = &TooFewHeadHolders{Asked: len(s.others()), Causes: failed}
	}
	if err != nil {
		return nil, fmt.Errorf("history of heads: %w", err)
	}
	maps.DeleteFunc(known, func(_ storage.HeadID, head storage.SignedHead) bool { return head.Cursor().Compare(cut) < 0 })
	return slices.SortedFunc(maps.Values(known), func(a, b storage.SignedHead) int { return b.Cursor().Compare(a.Cursor()) }), nil
}

// checkHistory verifies one member's page.
func checkHistory(raw [][]byte, owner grid.OwnerID, vault storage.VaultID, below storage.HeadCursor) ([]storage.SignedHead, error) {
	if len(raw) > storage.MaxHeadLinks {
		return nil, fmt.Errorf("%d heads at once: %w", len(raw), storage.ErrCorrupt)
	}
	page := make([]storage.SignedHead, 0, len(raw))
	for _, b := range raw {
		head, err := storage.ParseHead(b)
		switch {
		case err != nil:
			return nil, err
		case head.Owner != owner || head.Vault != vault:
			return nil, fmt.Errorf("head of another vault: %w", storage.ErrCorrupt)
		case !below.IsZero() && head.Cursor().Compare(below) >= 0:
			return nil, fmt.Errorf("head %d is not below %d: %w", head.Seq, below.Seq, storage.ErrCorrupt)
		}
		below = head.Cursor()
		page = append(page, head)
	}
	return page, nil
}
