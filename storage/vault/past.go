package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/bbolt"

	vaultv1 "gotong/proto/vault/v1"
)

// pastName is the index of what the newest head does without and somebody
// wanted to read. It is made when it is needed and removed at the next start.
const pastName = "past.db"

// pastBit tells segments of the past index from those of the index: each
// numbers its own.
const pastBit = 1 << 31

// findPast returns the forgotten snapshot that name means, made readable.
func (v *Vault) findPast(ctx context.Context, name string) (Snapshot, error) {
	all, err := v.AllSnapshots(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	var found []HistoricSnapshot
	for _, s := range all {
		if name != "" && strings.HasPrefix(s.ID.String(), name) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return Snapshot{}, fmt.Errorf("%w: %q", ErrNoSnapshot, name)
	case 1:
		return found[0].Snapshot, v.readPast(ctx, found[0])
	}
	return Snapshot{}, fmt.Errorf("%w: %q", ErrAmbiguous, name)
}

// readPast brings the segments of a forgotten snapshot that the index lacks
// into the past index. One whose table of contents cannot be had is left out:
// what is in the others can be restored.
func (v *Vault) readPast(ctx context.Context, s HistoricSnapshot) error {
	h, err := v.history(ctx)
	if err != nil {
		return err
	}
	for _, head := range h.heads {
		if head.head.ID == s.head {
			rows, err := h.segmentsOf(head, s.ID)
			if err != nil {
				return fmt.Errorf("catalogue of head %d: %w", head.head.Seq, err)
			}
			return v.indexPast(ctx, rows)
		}
	}
	return fmt.Errorf("%w: %s", ErrNoSnapshot, s.ID.Short())
}

// segmentsOf returns the segments that a snapshot needs by the catalogue of a
// head.
func (h *history) segmentsOf(head pastHead, id SnapshotID) (rows []segmentRow, err error) {
	catalogue := map[uint32]segmentRow{}
	var needed numberSet
	for _, ref := range head.parts {
		for i := range h.parts {
			if string(h.parts[i].ref.Segment) != string(ref.Segment) {
				continue
			}
			plain, err := h.read(&h.parts[i])
			if err != nil {
				return nil, err
			}
			for _, s := range plain.Segments {
				catalogue[s.Number] = rowOf(s, plain.Peers)
			}
			if err := neededBy(plain, id, &needed); err != nil {
				return nil, err
			}
		}
	}
	for number := range needed.all() {
		if row, there := catalogue[number]; there {
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func neededBy(part *vaultv1.CataloguePart, id SnapshotID, needed *numberSet) error {
	for _, e := range part.Snapshots {
		if snapshotIDOf(e.Record) != id {
			continue
		}
		segments, err := decodeNumbers(e.Segments, maxSegments)
		if err != nil {
			return err
		}
		needed.addAll(&segments)
	}
	return nil
}

func (v *Vault) indexPast(ctx context.Context, rows []segmentRow) error {
	release, err := acquireSlot(ctx, v.syncing)
	if err != nil {
		return err
	}
	defer release()
	past, err := v.openPast()
	if err != nil {
		return err
	}
	var missing []segmentRow
	for _, row := range rows {
		here, err := v.index.knows(row.id)
		if err == nil && !here {
			here, err = past.knows(row.id)
		}
		if err != nil {
			return err
		}
		if !here {
			missing = append(missing, row)
		}
	}
	failed := 0
	for len(missing) > 0 {
		n := min(len(missing), indexedAtOnce)
		packs, err := v.fetchTOCs(ctx, missing[:n])
		if err != nil {
			return err
		}
		failed += n - len(packs)
		missing = missing[n:]
		if err := past.addPacks(packs); err != nil {
			return err
		}
	}
	if failed > 0 {
		v.log.Warn("tables of contents could not be read; what is in these segments cannot be restored now", "segments", failed)
	}
	return nil
}

// openPast returns the past index, which is there from then on.
func (v *Vault) openPast() (*index, error) {
	if past := v.past.Load(); past != nil && !past.broken.Load() {
		return past, nil
	}
	if past := v.past.Swap(nil); past != nil {
		closeBroken(past.db)
	}
	path := filepath.Join(v.dir, pastName)
	if err := removePast(v.dir); err != nil {
		return nil, err
	}
	past, err := openIndex(path, v.ID())
	if err != nil {
		return nil, err
	}
	v.past.Store(past)
	return past, nil
}

func removePast(dir string) error {
	if err := os.Remove(filepath.Join(dir, pastName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("index of the past: %w", err)
	}
	return nil
}

func (v *Vault) closePast() error {
	past := v.past.Swap(nil)
	if past == nil {
		return nil
	}
	return errors.Join(past.close(), removePast(v.dir))
}

// lookupPast returns where a blob is that only forgotten snapshots need.
func (v *Vault) lookupPast(id BlobID) (l location, found bool, err error) {
	past := v.past.Load()
	if past == nil {
		return location{}, false, nil
	}
	if l, found, err = past.lookup(id); found {
		l.segment |= pastBit
	}
	return l, found, err
}

// row returns what is known of a segment; errNoSegment when it was dropped.
func (v *Vault) row(number uint32) (segmentRow, error) {
	past := v.past.Load()
	switch {
	case number&pastBit == 0:
		return v.index.segment(number)
	case past == nil:
		return segmentRow{}, errNoSegment
	}
	return past.segment(number &^ pastBit)
}

// errNoSegment: a segment was dropped since somebody asked where a blob is.
var errNoSegment = errors.New("segment was dropped")

// rowOfNumber reads the row of a segment.
func rowOfNumber(tx *bbolt.Tx, number uint32) (segmentRow, error) {
	b := tx.Bucket(bucketSegments).Get(be32(number))
	if b == nil {
		return segmentRow{}, fmt.Errorf("%w: number %d", errNoSegment, number)
	}
	return decodeSegmentRow(number, b)
}
