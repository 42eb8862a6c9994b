package shardrpc

import (
	"context"
	"fmt"

	"gotong/grid"
	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
)

// maxProofBytes bounds one proof: its group, and a path that is never as long.
const maxProofBytes = 2 * storage.ProofGroupBytes

// gather takes in lists of bytes that come in several messages, within bounds.
type gather struct {
	items [][]byte
	size  int
}

func (g *gather) add(items [][]byte, maxItems, maxItem, maxSize int) error {
	if len(items) == 0 {
		return violation("message without content") // they could come for ever
	}
	for _, item := range items {
		g.size += len(item)
		if len(item) > maxItem {
			return violation("item of %d bytes", len(item))
		}
	}
	g.items = append(g.items, items...)
	if len(g.items) > maxItems || g.size > maxSize {
		return violation("%d items of %d bytes", len(g.items), g.size)
	}
	return nil
}

// HeadHistory implements storage.HeadStore.
func (c *Client) HeadHistory(ctx context.Context, owner grid.OwnerID, vault storage.VaultID, below storage.HeadCursor) ([][]byte, error) {
	req := &shardsv1.HeadHistoryRequest{Owner: owner[:], Vault: vault[:]}
	if !below.IsZero() {
		req.BelowSeq, req.BelowId = below.Seq, below.ID[:]
	}
	var got gather
	err := c.stream(ctx, func(ctx context.Context, p *pulse) error {
		var stream shardsv1.Shards_HeadHistoryClient
		err := p.wait(func() (err error) { stream, err = c.rpc.HeadHistory(ctx, req); return err })
		if err != nil {
			return fromStatus(ctx, err)
		}
		return receiveAll(ctx, p, stream, func(m *shardsv1.HeadHistoryResponse) error {
			return got.add(m.GetHeads(), storage.MaxHeadLinks, storage.MaxHeadBytes, storage.MaxHeadLinkBytes+storage.MaxHeadBytes)
		})
	})
	if err != nil {
		return nil, fmt.Errorf("history of vault %s at %s: %w", vault.Short(), c.peer.Short(), err)
	}
	return got.items, nil
}

// stream runs one call whose answer comes in messages.
func (c *Client) stream(ctx context.Context, run func(context.Context, *pulse) error) error {
	ctx, p := withPulse(ctx, c.cfg.CallTimeout)
	defer p.stop(nil)
	return run(ctx, p)
}

// PutDeletions implements storage.DeletionStore.
func (c *Client) PutDeletions(ctx context.Context, raw [][]byte) error {
	size := 0
	for _, d := range raw {
		size += len(d)
	}
	var err error
	if len(raw) > storage.MaxPutDeletions || size > storage.MaxDeletionPage {
		err = violation("%d deletions of %d bytes in one call", len(raw), size)
	} else {
		err = c.stream(ctx, func(ctx context.Context, p *pulse) error {
			return fromStatus(ctx, p.wait(func() error {
				_, err := c.rpc.PutDeletions(ctx, &shardsv1.PutDeletionsRequest{Deletions: raw})
				return err
			}))
		})
	}
	if err != nil {
		return fmt.Errorf("put deletions at %s: %w", c.peer.Short(), err)
	}
	return nil
}

// Deletions implements storage.DeletionStore.
func (c *Client) Deletions(ctx context.Context, owner grid.OwnerID, vault storage.VaultID, after uint64) ([][]byte, error) {
	var got gather
	err := c.stream(ctx, func(ctx context.Context, p *pulse) error {
		var stream shardsv1.Shards_DeletionsClient
		err := p.wait(func() (err error) {
			stream, err = c.rpc.Deletions(ctx, &shardsv1.DeletionsRequest{Owner: owner[:], Vault: vault[:], After: after})
			return err
		})
		if err != nil {
			return fromStatus(ctx, err)
		}
		return receiveAll(ctx, p, stream, func(m *shardsv1.DeletionsResponse) error {
			return got.add(m.GetDeletions(), storage.MaxPutDeletions, storage.MaxDeletionBytes, storage.MaxDeletionPage)
		})
	})
	if err != nil {
		return nil, fmt.Errorf("deletions of vault %s at %s: %w", vault.Short(), c.peer.Short(), err)
	}
	return got.items, nil
}

// Prove implements storage.ShardProver. The proofs are whatever the peer sent:
// see erasure.VerifyProof.
func (c *Client) Prove(ctx context.Context, id storage.ShardID, groups []int) ([][]byte, error) {
	proofs, err := c.prove(ctx, id, groups)
	if err != nil {
		return nil, c.fail("prove", id, err)
	}
	return proofs, nil
}

func (c *Client) prove(ctx context.Context, id storage.ShardID, groups []int) ([][]byte, error) {
	wire := make([]uint32, len(groups))
	for i, g := range groups {
		if g < 0 || g >= storage.ProofGroups(storage.MaxShardBytes) {
			return nil, violation("group %d", g)
		}
		wire[i] = uint32(g)
	}
	var got gather
	err := c.stream(ctx, func(ctx context.Context, p *pulse) error {
		var stream shardsv1.Shards_ProveClient
		err := p.wait(func() (err error) {
			stream, err = c.rpc.Prove(ctx, &shardsv1.ProveRequest{Segment: id.Segment[:], Index: uint32(id.Index), Groups: wire})
			return err
		})
		if err != nil {
			return fromStatus(ctx, err)
		}
		return receiveAll(ctx, p, stream, func(m *shardsv1.ProveResponse) error {
			return got.add(m.GetProofs(), len(groups), maxProofBytes, len(groups)*maxProofBytes)
		})
	})
	if err == nil && len(got.items) != len(groups) {
		err = violation("%d proofs of %d groups", len(got.items), len(groups))
	}
	return got.items, err
}
