package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"gotong/grid"
	"gotong/grid/identity"
)

// ErrMayNotDelete says that the owner did not let this device delete anything, so
// that nobody who takes it over can.
var ErrMayNotDelete = errors.New("this device may not delete: its owner made it write-only")

// mayDelete returns nil when the owner's delegation lets this device expire
// what it stored.
func (v *Vault) mayDelete() error {
	signed, err := identity.ParseSigned(v.config.Grant())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMayNotDelete, err)
	}
	d, _, err := identity.OpenDelegation(signed)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMayNotDelete, err)
	}
	if !d.Capabilities.Has(grid.CapExpire) {
		return ErrMayNotDelete
	}
	return nil
}

// Forget takes snapshots out of the vault by one new head. What only they need
// stays with the holders until Prune; and within the floor AllSnapshots still
// knows them. Errors: ErrMayNotDelete, ErrNoSnapshot, ErrNewerHead; an error
// that is none of these may have come after the head was made.
func (v *Vault) Forget(ctx context.Context, ids []SnapshotID) error {
	if err := v.mayDelete(); err != nil {
		return err
	}
	if len(ids) == 0 {
		return nil
	}
	if err := v.sync(ctx); err != nil {
		return err
	}
	if err := v.Outdated(ctx); err != nil {
		return err
	}
	err := v.publish(ctx, v.putter(ctx), change{forget: ids, newest: v.newestOfEntries(ctx), verify: func(tx *bbolt.Tx) error { return allThere(tx, ids) }})
	if err != nil {
		return err
	}
	if _, err := v.Publish(ctx); err != nil {
		return v.publishFailed(err)
	}
	return nil
}

// allThere returns ErrNoSnapshot when one of the ids names no snapshot.
func allThere(tx *bbolt.Tx, ids []SnapshotID) error {
	known := map[SnapshotID]bool{}
	err := eachEntry(tx, func(_ []byte, e *entry) error {
		known[e.id] = true
		return nil
	})
	for _, id := range ids {
		if err == nil && !known[id] {
			err = fmt.Errorf("%w: %s", ErrNoSnapshot, id.Short())
		}
	}
	return err
}

// newestOfEntries finds out when the newest snapshot was made; nil when this
// device cannot read that.
func (v *Vault) newestOfEntries(ctx context.Context) func([]entry) time.Time {
	if !v.readSecrets(ctx).CanRead() {
		return nil
	}
	return func(entries []entry) (newest time.Time) {
		for _, e := range entries {
			if s, err := v.openSnapshot(ctx, e.record); err == nil && s.Created.After(newest) {
				newest = s.Created
			}
		}
		return newest
	}
}

// putter stores segments that belong to no session.
func (v *Vault) putter(ctx context.Context) putter {
	return func(data []byte) (Stored, error) {
		put, err := v.segments.Put(ctx, data)
		if err != nil {
			return Stored{}, fmt.Errorf("store segment: %w", err)
		}
		return put, nil
	}
}
