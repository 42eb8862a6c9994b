package shardrpc

import (
	"context"
	"fmt"

	"gotong/grid"
	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
)

// PutHeads implements storage.HeadStore. A long chain goes in several messages;
// after an error the older part of it may be stored.
func (c *Client) PutHeads(ctx context.Context, raw [][]byte) error {
	for first := true; first || len(raw) > 0; first = false {
		n := headsAtOnce(raw)
		if err := c.putHeads(ctx, raw[:n]); err != nil {
			return fmt.Errorf("put heads at %s: %w", c.peer.Short(), err)
		}
		raw = raw[n:]
	}
	return nil
}

// headsAtOnce returns how many of the heads go into one message: one at least,
// if there is any.
func headsAtOnce(raw [][]byte) int {
	size := 0
	for i, head := range raw {
		size += len(head)
		if i == storage.MaxPutHeads || (i > 0 && size > putHeadsBytes) {
			return i
		}
	}
	return len(raw)
}

func (c *Client) putHeads(ctx context.Context, raw [][]byte) error {
	ctx, p := withPulse(ctx, c.cfg.CallTimeout)
	defer p.stop(nil)
	err := p.wait(func() error {
		_, err := c.rpc.PutHeads(ctx, &shardsv1.PutHeadsRequest{Heads: raw})
		return err
	})
	return fromStatus(ctx, err)
}

// Heads implements storage.HeadStore: the vaults of owner whose heads the peer
// keeps and lets this peer see.
func (c *Client) Heads(ctx context.Context, owner grid.OwnerID) ([]storage.VaultHeads, error) {
	vaults, err := c.heads(ctx, owner)
	if err != nil {
		return nil, fmt.Errorf("heads of %s at %s: %w", owner.Short(), c.peer.Short(), err)
	}
	return vaults, nil
}

func (c *Client) heads(ctx context.Context, owner grid.OwnerID) ([]storage.VaultHeads, error) {
	ctx, p := withPulse(ctx, c.cfg.CallTimeout)
	defer p.stop(nil)
	var stream shardsv1.Shards_HeadsClient
	err := p.wait(func() (err error) {
		stream, err = c.rpc.Heads(ctx, &shardsv1.HeadsRequest{Owner: owner[:]})
		return err
	})
	if err != nil {
		return nil, fromStatus(ctx, err)
	}
	var vaults []storage.VaultHeads
	err = receiveAll(ctx, p, stream, func(m *shardsv1.HeadsResponse) (err error) {
		vaults, err = addHeads(vaults, m)
		return err
	})
	return vaults, err
}

// addHeads adds one message to what came before. The parts of one chain come
// one after another.
func addHeads(vaults []storage.VaultHeads, m *shardsv1.HeadsResponse) ([]storage.VaultHeads, error) {
	if len(m.GetVault()) != len(storage.VaultID{}) {
		return nil, violation("vault id of %d bytes", len(m.GetVault()))
	}
	vault := storage.VaultID(m.Vault)
	if len(vaults) == 0 || vaults[len(vaults)-1].Vault != vault {
		if len(vaults) == storage.MaxOwnerVaults {
			return nil, violation("more than %d vaults", storage.MaxOwnerVaults)
		}
		vaults = append(vaults, storage.VaultHeads{Vault: vault})
	}
	v := &vaults[len(vaults)-1]
	v.Links = append(v.Links, m.Heads...)
	v.Forks = append(v.Forks, m.Forks...)
	if len(v.Links) > storage.MaxHeadLinks || len(v.Forks) > storage.MaxHeadForks {
		return nil, violation("%d heads and %d forks of one vault", len(v.Links), len(v.Forks))
	}
	for _, list := range [2][][]byte{m.Heads, m.Forks} {
		for _, head := range list {
			if len(head) > storage.MaxHeadBytes {
				return nil, violation("head of %d bytes", len(head))
			}
		}
	}
	return vaults, nil
}
