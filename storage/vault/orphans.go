package vault

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
)

// maxOrphans bounds what one prune finds; the next one finds the rest.
const maxOrphans = 1 << 16

// findOrphans returns the segments of this vault that holders have and nothing
// here knows: what a backup stored and was killed before the index had it, what
// was dropped and never deleted because an index was lost. None is younger than
// minAge, and none is named by a head that holders still have to keep. While
// something here is stored it looks for nothing: what is being stored is not
// known yet either.
func (v *Vault) findOrphans(ctx context.Context, minAge time.Duration) ([]storage.SegmentID, error) {
	before := v.writes.Load()
	if v.writing() {
		return nil, nil
	}
	known, err := v.pendingIDs()
	if err != nil {
		return nil, err
	}
	var found []storage.SegmentID
	for id, err := range v.segments.List(ctx, v.ID()) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			v.log.Info("a peer did not list what it holds of this vault", "err", err)
			continue
		}
		if known[id] || len(found) == maxOrphans {
			continue
		}
		there, err := v.index.knows(id)
		if err != nil {
			return nil, err
		}
		known[id] = true
		if !there && v.isOrphan(ctx, id, v.now().Add(-minAge)) {
			found = append(found, id)
		}
	}
	if len(found) > 0 {
		if found, err = v.notInHeads(ctx, found); err != nil {
			v.log.Info("segments that nothing here knows are left for now: older heads cannot be read", "segments", len(found), "err", err)
			return nil, nil
		}
	}
	if v.writing() || v.writes.Load() != before {
		return nil, nil
	}
	return found, nil
}

// writing reports whether a session runs.
func (v *Vault) writing() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.session != nil
}

// knows reports whether a segment is in the index.
func (x *index) knows(id storage.SegmentID) (there bool, err error) {
	err = x.view(func(tx *bbolt.Tx) error {
		there = tx.Bucket(bucketNumbers).Get(id[:]) != nil || tx.Bucket(bucketPartRows).Get(id[:]) != nil
		return nil
	})
	return there, err
}

func (v *Vault) isOrphan(ctx context.Context, id storage.SegmentID, before time.Time) bool {
	header, err := v.segments.Header(ctx, id)
	if err != nil {
		v.log.Info("header of a segment that nothing here knows", "segment", id.Short(), "err", err)
		return false
	}
	return header.Vault == v.ID() && header.Owner == v.config.Owner && header.Created.Before(before)
}

// notInHeads leaves out what a head names whose catalogue can still be read.
// The error is that one may be readable, but not now.
func (v *Vault) notInHeads(ctx context.Context, ids []storage.SegmentID) ([]storage.SegmentID, error) {
	h, err := v.history(ctx)
	if err != nil {
		return nil, err
	}
	named := map[storage.SegmentID]bool{}
	for _, id := range ids {
		named[id] = false
	}
	name := func(id storage.SegmentID) {
		if _, asked := named[id]; asked {
			named[id] = true
		}
	}
	err = h.each(func(part *pastPart, plain *vaultv1.CataloguePart, err error) error {
		if errors.Is(err, errGone) && part.sure || errors.Is(err, storage.ErrCorrupt) {
			return nil // nobody will ever restore by it
		}
		if err != nil {
			return err
		}
		name(storage.SegmentID(part.ref.Segment))
		for _, s := range plain.Segments {
			name(storage.SegmentID(s.Id))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(ids, func(id storage.SegmentID) bool { return named[id] }), nil
}

// pendingIDs returns the segments that are being deleted already.
func (v *Vault) pendingIDs() (map[storage.SegmentID]bool, error) {
	ids := map[storage.SegmentID]bool{}
	err := v.deletions.each(func(batch []storage.SegmentID) {
		for _, id := range batch {
			ids[id] = true
		}
	})
	return ids, err
}
