package storagetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/erasure"
)

// PutDeletions implements storage.DeletionStore.
func (m *Memory) PutDeletions(ctx context.Context, raw [][]byte) error {
	deletions, err := storage.ParseDeletions(raw)
	if err != nil {
		return fmt.Errorf("put deletions: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range deletions {
		if err := m.take(d); err != nil {
			return fmt.Errorf("put deletions: %w", err)
		}
		for id, s := range m.shards {
			if d.Vault == s.header.Vault && d.Owner == s.header.Owner && d.Names(id.Segment) && !s.bad {
				s.trash = true
			}
		}
	}
	return ctx.Err()
}

// take enters one deletion, by its number and then its bytes.
func (m *Memory) take(d storage.SignedDeletion) error {
	key := memoryVault{d.Owner, d.Vault}
	same, at := 0, 0
	for i, known := range m.gone[key] {
		if known.ID == d.ID {
			return nil
		}
		if known.Number == d.Number {
			same++
		}
		if known.Number <= d.Number {
			at = i + 1
		}
	}
	if chain := m.vaults[key]; chain != nil && len(chain.Links()) > 0 && chain.Links()[len(chain.Links())-1].Epoch > d.Delegation.Epoch {
		return fmt.Errorf("deletion of epoch %d: %w", d.Delegation.Epoch, storage.ErrStaleEpoch)
	}
	if same >= storage.MaxSameNumber {
		return fmt.Errorf("%d deletions under number %d: %w", same, d.Number, storage.ErrQuota)
	}
	m.gone[key] = slices.Insert(m.gone[key], at, d)
	return nil
}

// deleted reports whether a deletion of its vault and owner names a segment.
func (m *Memory) deleted(header storage.SignedHeader) bool {
	return slices.ContainsFunc(m.gone[memoryVault{header.Owner, header.Vault}],
		func(d storage.SignedDeletion) bool { return d.Names(header.ID) })
}

// named reports whether any deletion names a segment.
func (m *Memory) named(id storage.SegmentID) bool {
	for _, deletions := range m.gone {
		if slices.ContainsFunc(deletions, func(d storage.SignedDeletion) bool { return d.Names(id) }) {
			return true
		}
	}
	return false
}

// Deletions implements storage.DeletionStore.
func (m *Memory) Deletions(ctx context.Context, owner grid.OwnerID, vault storage.VaultID, after uint64) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out [][]byte
	size, last := 0, uint64(0)
	for _, d := range m.gone[memoryVault{owner, vault}] {
		if d.Number <= after {
			continue
		}
		// A page ends between two numbers, with room for all of the next one, and
		// is never more than one PutDeletions takes.
		if d.Number != last && (len(out) > storage.MaxPutDeletions-storage.MaxSameNumber ||
			size > storage.MaxDeletionPage-storage.MaxSameNumber*storage.MaxDeletionBytes) {
			break
		}
		out, size, last = append(out, d.Raw), size+len(d.Raw), d.Number
	}
	return out, ctx.Err()
}

// EmptyTrash forgets all that was deleted, as if its floor had passed.
func (m *Memory) EmptyTrash() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, s := range m.shards {
		if s.trash {
			m.used -= s.header.ShardBytes
			delete(m.shards, id)
		}
	}
}

// Prove implements storage.ShardProver.
func (m *Memory) Prove(ctx context.Context, id storage.ShardID, groups []int) ([][]byte, error) {
	proofs, err := m.prove(ctx, id, groups)
	if err != nil {
		return nil, &storage.Error{Op: "prove", Shard: id, Err: err}
	}
	return proofs, nil
}

func (m *Memory) prove(ctx context.Context, id storage.ShardID, groups []int) ([][]byte, error) {
	if len(groups) < 1 || len(groups) > storage.MaxProofGroups {
		return nil, fmt.Errorf("%d groups at once, want 1 to %d", len(groups), storage.MaxProofGroups)
	}
	r, err := m.OpenShard(ctx, id, 0, 0) // finds damage
	if err != nil {
		return nil, err
	}
	defer r.Close()
	m.mu.Lock()
	data := m.shards[id].data
	m.mu.Unlock()
	tree, err := erasure.NewOutboard(bytes.NewReader(data), len(data))
	if err != nil {
		return nil, err
	}
	proofs := make([][]byte, len(groups))
	for i, group := range groups {
		if proofs[i], err = tree.Prove(bytes.NewReader(data), group); err != nil {
			return nil, err
		}
	}
	return proofs, nil
}
