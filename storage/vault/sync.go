package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
)

// tocsInFlight is how many tables of contents are fetched at once.
const tocsInFlight = 4

// indexedAtOnce is how many fetched tables go into the index together.
const indexedAtOnce = 16

// sync brings the index up to date with the newest head of this device: after
// a crash between head and index, or after the index was lost. When nothing is
// missing it costs a look into the index. An index that proved broken is made
// anew.
func (v *Vault) sync(ctx context.Context) error {
	select {
	case v.syncing <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-v.syncing }()
	if err := v.findLostHeads(ctx); err != nil {
		return err
	}
	err := errIndexBroken
	if !v.index.broken.Load() {
		if err = v.syncOnce(ctx); !errors.Is(err, errIndexBroken) {
			return err
		}
	}
	if err := v.replaceIndex(err); err != nil {
		return err
	}
	return v.syncOnce(ctx)
}

// replaceIndex puts an empty index in the place of the broken one. Segment
// numbers that no catalogue has are lost with it, so a running session ends.
func (v *Vault) replaceIndex(cause error) error {
	v.log.Warn("vault index is broken and set aside; it will be made anew", "err", cause)
	v.mu.Lock()
	session := v.session
	v.mu.Unlock()
	if session != nil {
		session.fail(errors.Join(errors.New("the index was broken and is made anew; start again"), cause))
	}
	return v.index.setAside()
}

func (v *Vault) syncOnce(ctx context.Context) error {
	head := v.readFrom()
	if head.IsZero() {
		return nil
	}
	applied, err := v.index.applied(head.ID)
	if err != nil {
		return err
	}
	if !applied {
		if err := v.applyNewest(ctx); err != nil {
			return err
		}
	}
	return v.indexMissing(ctx)
}

// applyNewest waits for whoever makes a new head: between the head and the
// index, what is in the index is not behind.
func (v *Vault) applyNewest(ctx context.Context) error {
	release, err := acquireSlot(ctx, v.publishing)
	if err != nil {
		return err
	}
	defer release()
	head := v.readFrom()
	if applied, err := v.index.applied(head.ID); err != nil || applied {
		return err
	}
	return v.applyHead(ctx, head)
}

// applied reports whether the index has the catalogue of this head.
func (x *index) applied(id storage.HeadID) (same bool, err error) {
	err = x.view(func(tx *bbolt.Tx) error {
		same = string(tx.Bucket(bucketMeta).Get(keyHead)) == string(id[:])
		return nil
	})
	return same, err
}

func (v *Vault) applyHead(ctx context.Context, head storage.SignedHead) error {
	state, err := openHeadState(v.secrets, head.Sealed)
	if err != nil {
		return err
	}
	known, err := v.index.parts()
	if err != nil {
		return err
	}
	rows := make([]partRow, len(state.Parts))
	for i, ref := range state.Parts {
		rows[i] = partRow{ref: ref}
		if rows[i].row, err = rowOfPart(ref); err != nil {
			return err
		}
		for _, part := range known {
			if string(part.ref.Segment) == string(ref.Segment) {
				rows[i] = partRow{ref, part.plain, part.row}
			}
		}
		if rows[i].plain == nil {
			if rows[i].plain, err = v.fetchPart(ctx, ref); err != nil {
				return fmt.Errorf("catalogue part %d of %d: %w", i+1, len(rows), err)
			}
		}
	}
	return v.index.applyCatalogue(head, state, rows)
}

func (v *Vault) fetchPart(ctx context.Context, ref *vaultv1.PartRef) ([]byte, error) {
	holders, err := storage.ParseHolders(ref.Holders)
	if err != nil {
		return nil, err
	}
	sealed, err := v.segments.Get(ctx, storage.SegmentID(ref.Segment), holders, nil)
	if err != nil {
		return nil, err
	}
	return openPart(v.secrets, sealed)
}

// indexMissing indexes the blobs of catalogued segments whose table of contents
// was not read yet. One that cannot be had now is left for the next time: what
// is in the others can be restored.
func (v *Vault) indexMissing(ctx context.Context) error {
	var missing []segmentRow
	some, err := v.index.hasUnindexed()
	if err != nil || !some {
		return err
	}
	err = v.index.eachSegment(0, func(row segmentRow) error {
		if row.flags&rowIndexed == 0 {
			missing = append(missing, row)
		}
		return nil
	})
	failed := 0
	for err == nil && len(missing) > 0 {
		n := min(len(missing), indexedAtOnce)
		var packs []storedPack
		if packs, err = v.fetchTOCs(ctx, missing[:n]); err != nil {
			break
		}
		failed += n - len(packs)
		missing = missing[n:]
		err = v.index.indexPacks(packs)
	}
	if err != nil {
		return err
	}
	if failed > 0 {
		v.log.Warn("tables of contents could not be read; what is in these segments cannot be restored now", "segments", failed)
		return nil
	}
	return v.index.setUnindexed(false)
}

// fetchTOCs returns the tables that could be read. The error is that of ctx.
func (v *Vault) fetchTOCs(ctx context.Context, rows []segmentRow) ([]storedPack, error) {
	packs := make([]storedPack, len(rows))
	var group errgroup.Group
	group.SetLimit(tocsInFlight)
	for i, row := range rows {
		group.Go(func() error {
			entries, err := v.fetchTOC(ctx, row)
			if err != nil {
				v.log.Warn("table of contents", "segment", row.id.Short(), "err", err)
				return nil
			}
			packs[i] = storedPack{row, entries}
			return nil
		})
	}
	_ = group.Wait() // no function fails
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	got := packs[:0]
	for _, p := range packs {
		if p.row.bytes > 0 {
			got = append(got, p)
		}
	}
	return got, nil
}

func (v *Vault) fetchTOC(ctx context.Context, row segmentRow) ([]tocEntry, error) {
	sealed, err := v.segments.Range(ctx, row.id, row.holders, int64(row.tocOffset), int64(row.tocBytes))
	if err == nil {
		if entries, err := openTOC(v.secrets, sealed, int(row.tocOffset)); err == nil {
			return entries, nil
		}
	}
	data, err := v.get(ctx, row, nil)
	if err != nil {
		return nil, err
	}
	return readTOC(v.secrets, data)
}

// applyCatalogue makes the index say what the catalogue says: all of it, in one
// transaction. Segments that are new to the index are left to indexMissing;
// those that the catalogue has no more go.
func (x *index) applyCatalogue(head storage.SignedHead, state *vaultv1.HeadState, rows []partRow) error {
	catalogue := newPartBuilder()
	for _, row := range rows {
		p, err := parsePart(row.plain)
		if err != nil {
			return err
		}
		catalogue.addPart(p)
	}
	catalogue.settle(true)
	return x.update(func(tx *bbolt.Tx) error {
		if err := putParts(tx, 0, rows); err != nil {
			return err
		}
		if err := addCatalogued(tx, &catalogue.part, state.NextNumber); err != nil {
			return err
		}
		if err := replaceSnapshots(tx, &catalogue.part); err != nil {
			return err
		}
		return putHead(tx, head, state.NextNumber)
	})
}

// putHead records that the index has all that a head says. Segments numbered
// from next on are in no catalogue yet.
func putHead(tx *bbolt.Tx, head storage.SignedHead, next uint32) error {
	meta := tx.Bucket(bucketMeta)
	if metaNumber(tx, keyNext) < next {
		if err := meta.Put(keyNext, be32(next)); err != nil {
			return err
		}
	}
	if err := meta.Put(keyCatalogued, be32(next)); err != nil {
		return err
	}
	return meta.Put(keyHead, head.ID[:])
}

func addCatalogued(tx *bbolt.Tx, part *vaultv1.CataloguePart, limit uint32) error {
	var there numberSet
	for _, s := range part.Segments {
		if s.Number >= limit {
			return fmt.Errorf("%w: catalogue names segment %d of %d", storage.ErrCorrupt, s.Number, limit)
		}
		there.add(s.Number)
		row := rowOf(s, part.Peers)
		row.survives, row.flags = unknownSites, rowCommitted|rowComplete
		switch old := tx.Bucket(bucketSegments).Get(be32(s.Number)); {
		case old == nil:
			if err := putSegment(tx, row); err != nil {
				return err
			}
			if err := errors.Join(tx.Bucket(bucketMeta).Put(keyUnindexed, []byte{1}), countUnpruned(tx)); err != nil {
				return err
			}
		case len(old) < segmentRowFixed || string(old[:32]) != string(row.id[:]):
			return fmt.Errorf("%w: segment %d is another one in the catalogue", errIndexBroken, s.Number)
		case old[rowFlagsOffset]&rowIndexed == 0:
			if err := tx.Bucket(bucketMeta).Put(keyUnindexed, []byte{1}); err != nil {
				return err
			}
		}
	}
	var dropped []uint32
	c := tx.Bucket(bucketSegments).Cursor()
	for k, _ := c.First(); len(k) == 4 && binary.BigEndian.Uint32(k) < limit; k, _ = c.Next() {
		if number := binary.BigEndian.Uint32(k); !there.has(number) {
			dropped = append(dropped, number)
		}
	}
	for _, number := range dropped {
		if err := dropSegment(tx, number); err != nil {
			return err
		}
	}
	return nil
}

// indexPacks adds the blobs of catalogued segments, but of those that a prune
// dropped while their tables were fetched.
func (x *index) indexPacks(packs []storedPack) error {
	return x.update(func(tx *bbolt.Tx) error {
		for _, p := range packs {
			row, err := rowOfNumber(tx, p.row.number)
			if errors.Is(err, errNoSegment) || err == nil && row.id != p.row.id {
				continue
			}
			if err == nil {
				err = flagSegment(tx, row.number, rowIndexed, 0)
			}
			if err == nil {
				err = putBlobs(tx, row.number, p.entries)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (x *index) hasUnindexed() (some bool, err error) {
	err = x.view(func(tx *bbolt.Tx) error {
		some = len(tx.Bucket(bucketMeta).Get(keyUnindexed)) > 0
		return nil
	})
	return some, err
}

func (x *index) setUnindexed(some bool) error {
	return x.update(func(tx *bbolt.Tx) error {
		if some {
			return tx.Bucket(bucketMeta).Put(keyUnindexed, []byte{1})
		}
		return tx.Bucket(bucketMeta).Delete(keyUnindexed)
	})
}
