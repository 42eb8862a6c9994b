package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
)

// change is what a new head says that the one before did not.
type change struct {
	add    *entry       // a new snapshot
	forget []SnapshotID // those that count no longer
	// replaced has the segments of snapshots as a prune found them to be.
	replaced map[SnapshotID]numberSet
	// drop has the segments that nothing needs any more. With it the catalogue is
	// written anew.
	drop *numberSet
	// orphans are segments that no catalogue has, to be deleted with the rest.
	orphans []storage.SegmentID
	// newest tells when the newest snapshot was made, of those that remain; nil:
	// as the last head says.
	newest func(remaining []entry) time.Time
	// verify is called in the transaction that reads the catalogue, and moved in
	// the one that takes the new head in. nil: nothing.
	verify, moved func(tx *bbolt.Tx) error
}

// putter stores one segment.
type putter func(data []byte) (Stored, error)

// errStillNeeded: a prune is about to drop what a snapshot needs.
var errStillNeeded = errors.New("segment is still needed")

// acquireSlot takes a place of one, or gives up with ctx.
func acquireSlot(ctx context.Context, slot chan struct{}) (release func(), err error) {
	select {
	case slot <- struct{}{}:
		return func() { <-slot }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// publish stores the catalogue as it is after a change, notes what may be
// deleted once others have the new head, makes the head durable here and takes
// it into the index. Handing it out is Publish.
func (v *Vault) publish(ctx context.Context, put putter, c change) error {
	release, err := acquireSlot(ctx, v.publishing)
	if err != nil {
		return err
	}
	defer release()
	v.writes.Add(1)
	last, err := v.lastState()
	if err != nil {
		return err
	}
	next, err := v.index.nextCatalogue(c)
	if err != nil {
		return fmt.Errorf("catalogue: %w", err)
	}
	parts := slices.Clone(next.kept)
	for _, part := range next.fresh {
		row, err := v.storePart(put, part)
		if err != nil {
			return fmt.Errorf("catalogue: %w", err)
		}
		parts = append(parts, row)
	}
	state := &vaultv1.HeadState{NextNumber: next.next, Snapshots: uint64(len(next.entries)), Newest: last.Newest, Deletions: last.Deletions}
	if c.newest != nil {
		if state.Newest = 0; len(next.entries) > 0 {
			state.Newest = c.newest(next.entries).UnixNano()
		}
	}
	for _, part := range parts {
		state.Parts = append(state.Parts, refOfPart(part.row))
	}
	if v.mayDelete() == nil {
		if state.Deletions, err = v.deletions.hold(last.Deletions, slices.Concat(next.gone, c.orphans)); err != nil {
			return err
		}
	}
	head, err := v.appendHead(state)
	if err != nil {
		return err
	}
	return v.index.update(func(tx *bbolt.Tx) error {
		if err := putParts(tx, len(next.kept), parts); err != nil {
			return err
		}
		if err := c.apply(tx); err != nil {
			return err
		}
		return putHead(tx, head, next.next)
	})
}

// lastState opens what the newest head of this device holds.
func (v *Vault) lastState() (*vaultv1.HeadState, error) {
	head := v.Head()
	if head.IsZero() {
		return &vaultv1.HeadState{}, nil
	}
	return openHeadState(v.secrets, head.Sealed)
}

func (v *Vault) storePart(put putter, part *vaultv1.CataloguePart) (partRow, error) {
	plain, err := encodePart(part)
	if err != nil {
		return partRow{}, err
	}
	sealed := sealPart(v.secrets, plain)
	stored, err := put(sealed)
	if err != nil {
		return partRow{}, err
	}
	row := stored.row(len(sealed))
	return partRow{refOfPart(row), plain, row}, nil
}

// appendHead signs the next head and makes it durable on this disk.
func (v *Vault) appendHead(state *vaultv1.HeadState) (storage.SignedHead, error) {
	sealed, err := sealHeadState(v.secrets, state)
	if err != nil {
		return storage.SignedHead{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	last := v.heads.newest()
	head, err := storage.SignHead(v.config.Node, storage.Head{
		Vault: v.ID(), Owner: v.config.Owner, Seq: last.Seq + 1, Prev: last.ID,
		Created: v.now(), Floor: v.config.Floor(), Grant: v.config.Grant(), Sealed: sealed,
	})
	if err != nil {
		return storage.SignedHead{}, err
	}
	return head, v.heads.append(head)
}

// Publish hands the heads of this device to other peers, the same bytes each
// time, and returns how many have the newest one. It may be called at any time.
func (v *Vault) Publish(ctx context.Context) (holders int, err error) {
	v.mu.Lock()
	raw, newest := v.heads.raw(), v.heads.newest().Seq
	v.mu.Unlock()
	if len(raw) == 0 {
		return 0, nil
	}
	if holders, err = v.segments.PublishHeads(ctx, raw); err == nil {
		err = v.index.notePublished(newest)
	}
	return holders, err
}

// notePublished remembers that peers took a head, for when this disk loses it.
func (x *index) notePublished(seq uint64) error {
	known, err := x.published()
	if err != nil || known >= seq {
		return err
	}
	return x.update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMeta).Put(keyPublished, binary.BigEndian.AppendUint64(nil, seq))
	})
}

// published returns the number of the newest head that peers took, as far as
// the index knows.
func (x *index) published() (seq uint64, err error) {
	err = x.view(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(bucketMeta).Get(keyPublished); len(b) == 8 {
			seq = binary.BigEndian.Uint64(b)
		}
		return nil
	})
	return seq, err
}

// apply brings a change into the index.
func (c change) apply(tx *bbolt.Tx) error {
	if c.moved != nil {
		if err := c.moved(tx); err != nil {
			return err
		}
	}
	for _, id := range c.forget {
		if err := forgetEntry(tx, id); err != nil {
			return err
		}
	}
	for id, segments := range c.replaced {
		if err := replaceEntry(tx, id, &segments); err != nil {
			return err
		}
	}
	if c.drop != nil {
		for number := range c.drop.all() {
			if err := dropSegment(tx, number); err != nil {
				return err
			}
		}
	}
	if c.add != nil {
		return addSnapshot(tx, c.add.proto())
	}
	return nil
}

// catalogue is what a new head will name.
type catalogue struct {
	kept    []partRow // parts that stay as they are
	fresh   []*vaultv1.CataloguePart
	next    uint32  // first segment number that is in none of them
	entries []entry // snapshots

	gone []storage.SegmentID // parts and segments that the last head needed and this one does not
}

// nextCatalogue returns the catalogue as it will be after a change.
func (x *index) nextCatalogue(c change) (next catalogue, err error) {
	parts, err := x.parts()
	if err != nil {
		return catalogue{}, err
	}
	var from uint32
	err = x.view(func(tx *bbolt.Tx) error {
		from, next.next = metaNumber(tx, keyCatalogued), metaNumber(tx, keyNext)
		if next.entries, err = c.entries(tx); err != nil {
			return err
		}
		if c.verify != nil {
			return c.verify(tx)
		}
		return nil
	})
	if err != nil {
		return catalogue{}, err
	}
	if c.drop != nil {
		err = x.wholeCatalogue(&next, c.drop)
	} else {
		err = x.grownCatalogue(&next, parts, from, c)
	}
	if err == nil && len(next.kept)+len(next.fresh) > maxParts {
		err = fmt.Errorf("more than %d parts", maxParts)
	}
	for _, part := range parts[len(next.kept):] {
		next.gone = append(next.gone, part.row.id)
	}
	return next, err
}

// entries returns the snapshots after the change. None needs what is dropped,
// and those that change need only what is there.
func (c change) entries(tx *bbolt.Tx) (all []entry, err error) {
	err = eachEntry(tx, func(_ []byte, e *entry) error {
		if slices.Contains(c.forget, e.id) {
			return nil
		}
		if segments, ok := c.replaced[e.id]; ok {
			e.segments = segments
		}
		all = append(all, *e)
		return nil
	})
	if err == nil && c.add != nil {
		all = append(all, *c.add)
	}
	for i, e := range all {
		_, changed := c.replaced[e.id]
		changed = changed || c.add != nil && i == len(all)-1
		for number := range e.segments.all() {
			if c.drop != nil && c.drop.has(number) {
				return nil, fmt.Errorf("%w: snapshot %s needs segment %d", errStillNeeded, e.id.Short(), number)
			}
			if !changed {
				continue
			}
			if _, there := rowFlags(tx, number); !there {
				return nil, fmt.Errorf("%w: snapshot %s needs segment %d, which is not there", errIndexBroken, e.id.Short(), number)
			}
		}
	}
	return all, err
}

// grownCatalogue adds a part with what is new.
func (x *index) grownCatalogue(next *catalogue, parts []partRow, from uint32, c change) error {
	builders := []*partBuilder{newPartBuilder()}
	err := x.eachSegment(from, func(row segmentRow) error {
		if row.number < next.next {
			last := roomIn(&builders)
			last.addRow(row)
		}
		return nil
	})
	if err != nil {
		return err
	}
	last := roomIn(&builders)
	for _, id := range c.forget {
		last.part.Forgotten = append(last.part.Forgotten, slices.Clone(id[:]))
	}
	if c.add != nil {
		last.addEntry(c.add)
	}
	next.kept, err = mergeParts(parts, builders)
	for _, b := range builders {
		if !b.empty() {
			next.fresh = append(next.fresh, &b.part)
		}
	}
	return err
}

// wholeCatalogue makes all parts anew, without what is to be dropped.
func (x *index) wholeCatalogue(next *catalogue, drop *numberSet) error {
	builders := []*partBuilder{newPartBuilder()}
	err := x.eachSegment(0, func(row segmentRow) error {
		switch {
		case row.number >= next.next:
		case drop.has(row.number):
			next.gone = append(next.gone, row.id)
		default:
			roomIn(&builders).addRow(row)
		}
		return nil
	})
	for _, e := range next.entries {
		roomIn(&builders).addEntry(&e)
	}
	for _, b := range builders {
		next.fresh = append(next.fresh, &b.part)
	}
	return err
}

// mergeParts moves the newest parts that are not much longer than the first new
// one into it, and all from one on that was lost, and returns those that stay.
func mergeParts(parts []partRow, builders []*partBuilder) (kept []partRow, err error) {
	first := builders[0]
	encoded, err := encodePart(&first.part)
	if err != nil {
		return nil, err
	}
	lost := slices.IndexFunc(parts, func(p partRow) bool { return p.row.flags&rowLost != 0 })
	total := len(encoded)
	n := len(parts)
	for n > 0 && total+len(parts[n-1].plain) <= maxPartBytes &&
		(len(parts[n-1].plain) <= 2*total || n+len(builders) > maxParts || lost >= 0 && n > lost) {
		n--
		total += len(parts[n].plain)
	}
	merged := newPartBuilder()
	for _, row := range parts[n:] {
		p, err := parsePart(row.plain)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errIndexBroken, err)
		}
		merged.addPart(p)
	}
	merged.addPart(&first.part)
	merged.settle(n == 0)
	builders[0] = merged
	return parts[:n], nil
}
