package vault

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"

	"gotong/storage"
)

// segmentRow is what the index knows of a segment.
type segmentRow struct {
	number    uint32
	id        storage.SegmentID
	bytes     uint32
	tocOffset uint32
	tocBytes  uint32
	k, n      uint8
	survives  uint8 // sites that may vanish, when it was stored
	flags     uint8
	holders   []storage.Holder
}

const (
	rowComplete  = 1 << iota // all n shards were acknowledged
	rowCommitted             // enough were for the commit rule
	rowIndexed               // its blobs are in the index
)

const segmentRowFixed = 32 + 3*4 + 4

func (r segmentRow) encode() []byte {
	b := make([]byte, 0, segmentRowFixed+37*len(r.holders))
	b = append(b, r.id[:]...)
	b = binary.BigEndian.AppendUint32(b, r.bytes)
	b = binary.BigEndian.AppendUint32(b, r.tocOffset)
	b = binary.BigEndian.AppendUint32(b, r.tocBytes)
	b = append(b, r.k, r.n, r.survives, r.flags)
	return storage.AppendHolders(b, r.holders)
}

func decodeSegmentRow(number uint32, b []byte) (segmentRow, error) {
	if len(b) < segmentRowFixed {
		return segmentRow{}, fmt.Errorf("%w: row of segment %d", errIndexBroken, number)
	}
	holders, err := storage.ParseHolders(b[segmentRowFixed:])
	if err != nil {
		return segmentRow{}, fmt.Errorf("%w: row of segment %d: %w", errIndexBroken, number, err)
	}
	return segmentRow{
		number: number, id: storage.SegmentID(b), bytes: binary.BigEndian.Uint32(b[32:]),
		tocOffset: binary.BigEndian.Uint32(b[36:]), tocBytes: binary.BigEndian.Uint32(b[40:]),
		k: b[44], n: b[45], survives: b[46], flags: b[47], holders: holders,
	}, nil
}

// storedPack is a committed pack on its way into the index.
type storedPack struct {
	row     segmentRow
	entries []tocEntry
}

// addPacks makes committed packs visible, all or none, and fills in their
// numbers.
func (x *index) addPacks(packs []storedPack) error {
	return x.update(func(tx *bbolt.Tx) error {
		next := metaNumber(tx, keyNext)
		for i := range packs {
			if next == maxSegments {
				return fmt.Errorf("vault has used up its segment numbers")
			}
			packs[i].row.number = next
			packs[i].row.flags |= rowIndexed
			if err := putSegment(tx, packs[i].row); err != nil {
				return err
			}
			if err := putBlobs(tx, next, packs[i].entries); err != nil {
				return err
			}
			next++
		}
		return tx.Bucket(bucketMeta).Put(keyNext, be32(next))
	})
}

func putSegment(tx *bbolt.Tx, row segmentRow) error {
	if err := tx.Bucket(bucketSegments).Put(be32(row.number), row.encode()); err != nil {
		return err
	}
	return tx.Bucket(bucketNumbers).Put(row.id[:], be32(row.number))
}

// putBlobs records where the blobs of a pack are. A blob that is in two packs,
// because a crash came between, stays where it was first.
func putBlobs(tx *bbolt.Tx, number uint32, entries []tocEntry) error {
	blobs := tx.Bucket(bucketBlobs)
	for _, e := range entries {
		if blobs.Get(e.id[:]) != nil {
			continue
		}
		l := location{number, e.offset, e.sealed, e.plain, e.coding}
		if err := blobs.Put(e.id[:], l.encode(e.id)); err != nil {
			return err
		}
	}
	return nil
}

// segment returns the row of a segment.
func (x *index) segment(number uint32) (row segmentRow, err error) {
	err = x.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketSegments).Get(be32(number))
		if b == nil {
			return fmt.Errorf("%w: no segment %d", errIndexBroken, number)
		}
		row, err = decodeSegmentRow(number, b)
		return err
	})
	return row, err
}

// eachSegment calls fn with every row from number on, in order.
func (x *index) eachSegment(from uint32, fn func(segmentRow) error) error {
	return x.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketSegments).Cursor()
		for k, v := c.Seek(be32(from)); k != nil; k, v = c.Next() {
			if len(k) != 4 {
				return fmt.Errorf("%w: segment number of %d bytes", errIndexBroken, len(k))
			}
			row, err := decodeSegmentRow(binary.BigEndian.Uint32(k), v)
			if err != nil {
				return err
			}
			if err := fn(row); err != nil {
				return err
			}
		}
		return nil
	})
}
