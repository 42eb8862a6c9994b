package vault

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"gotong/grid/disk"
	"gotong/storage"
)

// renewName is the file that says that the vault was taken over and that what was
// deleted before is not signed anew yet.
const renewName = "renew"

// maxRenewed bounds the segments that are signed anew. What holders have beyond it
// the orphans of a later prune are.
const maxRenewed = 1 << 18

// RenewDeletions deletes again, under the delegation of this device, what the device
// deleted that wrote the vault before, unless the vault needs it: a holder that
// missed those deletions refuses them now, as it refuses all that is of a lower
// epoch. It goes to the trash there, so whatever the other device deleted can be
// read for its floor. The node calls it from time to time; it is done once, after
// Rescue. The error is that too few members answered, or that of the new head.
func (v *Vault) RenewDeletions(ctx context.Context) error {
	for name, wanted := range map[string]bool{renewName: true, rescueName: false} {
		if _, err := os.Stat(filepath.Join(v.dir, name)); (err == nil) != wanted {
			return nil
		}
	}
	if v.mayDelete() != nil {
		return nil // and will not without another delegation
	}
	select {
	case v.pruning <- struct{}{}:
		defer func() { <-v.pruning }()
	default:
		return nil // the next time
	}
	if err := v.sync(ctx); err != nil {
		return err
	}
	if err := v.Outdated(ctx); err != nil {
		return err
	}
	ids, err := v.deletedBefore(ctx)
	if err != nil {
		return fmt.Errorf("renew deletions: %w", err)
	}
	if len(ids) > 0 {
		if err := v.publish(ctx, v.putter(ctx), change{orphans: ids}); err != nil {
			return fmt.Errorf("renew deletions: %w", err)
		}
		v.log.Info("what was deleted before the vault was taken over is deleted anew", "segments", len(ids))
	}
	return disk.Remove(filepath.Join(v.dir, renewName))
}

// deletedBefore returns the segments that only deletions of a lower epoch name, and
// nothing here knows.
func (v *Vault) deletedBefore(ctx context.Context) ([]storage.SegmentID, error) {
	epoch := v.Head().Epoch
	old, renewed := map[storage.SegmentID]bool{}, map[storage.SegmentID]bool{}
	answered, members, err := v.segments.Deletions(ctx, v.config.Owner, v.ID(), func(d storage.SignedDeletion) {
		into := old
		if d.Delegation.Epoch >= epoch {
			into = renewed
		}
		for _, id := range d.Segments {
			if len(old)+len(renewed) < maxRenewed {
				into[id] = true
			}
		}
	})
	if err != nil {
		return nil, err
	}
	if 2*answered < members {
		return nil, fmt.Errorf("%d of %d members answered: %w", answered, members, storage.ErrTooFewPeers)
	}
	pending, err := v.pendingIDs()
	if err != nil {
		return nil, err
	}
	var ids []storage.SegmentID
	for id := range old {
		known, err := v.index.knows(id)
		if err != nil {
			return nil, err
		}
		if !known && !renewed[id] && !pending[id] {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b storage.SegmentID) int { return bytes.Compare(a[:], b[:]) })
	return ids, nil
}
