package shardstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gotong/storage"
)

// PutDeletions implements storage.DeletionStore.
func (s *Store) PutDeletions(ctx context.Context, raw [][]byte) error {
	if err := s.putDeletions(ctx, raw); err != nil {
		return fmt.Errorf("put deletions: %w", err)
	}
	s.clock.tick()
	return nil
}

func (s *Store) putDeletions(ctx context.Context, raw [][]byte) error {
	deletions, err := storage.ParseDeletions(raw)
	if err != nil {
		return err
	}
	if s.cfg.AuthorizeDeletion != nil {
		for _, d := range deletions {
			if err := s.cfg.AuthorizeDeletion(d); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(ctx.Err(), s.checkWrite()); err != nil {
		return err
	}
	for len(deletions) > 0 {
		key := vaultKey{deletions[0].Owner, deletions[0].Vault}
		n := slices.IndexFunc(deletions, func(d storage.SignedDeletion) bool { return (vaultKey{d.Owner, d.Vault}) != key })
		if n < 0 {
			n = len(deletions)
		}
		if err := s.deletions.put(key, deletions[:n]); err != nil {
			return err
		}
		// A shard goes to the trash only for what is durable. That the move is
		// durable is not waited for: whoever opens the store after a power cut
		// finds the shard in one of the two places and moves it again.
		if err := s.trashNamed(deletions[:n]); err != nil {
			return err
		}
		deletions = deletions[n:]
	}
	return nil
}

// trashNamed moves to the trash what durable deletions name.
func (s *Store) trashNamed(deletions []storage.SignedDeletion) error {
	for _, d := range deletions {
		for _, id := range d.Segments {
			like, stored, _ := s.cat.of(id)
			if like.owner == nil || like.owner.owner != d.Owner || like.vault.Value() != d.Vault {
				continue
			}
			for _, shard := range append(stored, s.cat.surplusOf(id)...) {
				if err := s.trashOne(storage.ShardID{Segment: id, Index: shard.index}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// put writes what is new of one vault, durably, and only then knows it.
func (d *deletionStore) put(key vaultKey, deletions []storage.SignedDeletion) error {
	epoch := d.store.heads.epoch(key)
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.store.clock.stamp()
	old := d.vaults[key]
	next, records, fresh, err := d.extend(old, deletions, epoch, now)
	if err != nil {
		return err
	}
	if len(fresh) == 0 && old != nil && old.settled {
		return nil
	}
	if err := d.checkRoom(key, old, len(fresh), int64(len(records))); err != nil {
		return err
	}
	if err := d.store.appendRecords(deletionsDir, key.owner, key.deletionPath(), next.size-int64(len(records)), records, old == nil || !old.settled); err != nil {
		return err
	}
	d.account(key, old, next)
	d.vaults[key] = next
	for _, f := range fresh {
		d.named = d.named.merge(f.Segments, next.number)
	}
	return nil
}

// extend returns what v becomes with more deletions, the records to write, and
// which are new.
func (d *deletionStore) extend(v *vaultDeletions, deletions []storage.SignedDeletion, epoch uint32, now time.Duration) (next *vaultDeletions, records []byte, fresh []storage.SignedDeletion, err error) {
	next = &vaultDeletions{settled: true}
	if v != nil {
		next.number, next.list, next.size, next.known = v.number, slices.Clone(v.list), v.size, v.known
	} else {
		d.last++
		next.number = d.last
	}
	for _, deletion := range deletions {
		if next.has(deletion) {
			continue
		}
		if deletion.Delegation.Epoch < epoch {
			return nil, nil, nil, fmt.Errorf("deletion of epoch %d, known %d: %w", deletion.Delegation.Epoch, epoch, storage.ErrStaleEpoch)
		}
		if n := len(next.under(deletion.Number)); n >= storage.MaxSameNumber {
			return nil, nil, nil, fmt.Errorf("%d deletions of vault %s under number %d already: %w", n, deletion.Vault.Short(), deletion.Number, storage.ErrQuota)
		}
		next.enter(deletion, next.size, now)
		records = appendRecord(records, record{kind: recordDeletion, received: now, raw: deletion.Raw})
		next.size += recordSize(len(deletion.Raw))
		fresh = append(fresh, deletion)
	}
	return next, records, fresh, nil
}

// checkRoom keeps the deletions of an owner within their bounds. They do not
// compete with what is stored for the quota: an owner who is at the quota has to
// delete.
func (d *deletionStore) checkRoom(key vaultKey, old *vaultDeletions, more int, size int64) error {
	c := d.store.cat
	limit := int64(-1)
	if c.ownerLimit != nil {
		limit = max(0, c.ownerLimit(key.owner))
	}
	c.mu.Lock()
	account := *c.usageOf(key.owner)
	c.mu.Unlock()
	vaults, count := 0, more
	for other, v := range d.vaults {
		if other.owner == key.owner {
			vaults, count = vaults+1, count+len(v.list)
		}
	}
	switch {
	case old == nil && vaults >= storage.MaxOwnerVaults:
		return fmt.Errorf("owner %s has deletions in %d vaults: %w", key.owner.Short(), vaults, storage.ErrQuota)
	case count > maxOwnerDeletions || account.deletions+size > maxOwnerDeletionBytes:
		return fmt.Errorf("owner %s has %d deletions of %d bytes that are not to be forgotten yet, at most %d and %d: %w",
			key.owner.Short(), count-more, account.deletions, maxOwnerDeletions, maxOwnerDeletionBytes, storage.ErrQuota)
	case limit >= 0 && account.deletions+size > max(deletionAllowance, limit/deletionShare):
		return fmt.Errorf("deletions of owner %s take %d bytes: %w", key.owner.Short(), account.deletions, storage.ErrQuota)
	case d.bytes+size > maxDeletionStoreBytes || size > d.store.diskFree():
		return fmt.Errorf("no room for deletions: %w", storage.ErrFull)
	}
	return nil
}

// account enters that a file changed its size.
func (d *deletionStore) account(key vaultKey, old, next *vaultDeletions) {
	grown := next.fileSize() - old.fileSize()
	d.bytes += grown
	d.store.cat.grow(key.owner, func(u *usage) *int64 { return &u.deletions }, grown)
}

// fileSize returns the size of the file; 0 of none.
func (v *vaultDeletions) fileSize() int64 {
	if v == nil {
		return 0
	}
	return v.size
}
