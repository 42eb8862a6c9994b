package vault

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

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
	rowLost                  // fewer than k shards are left: new snapshots do not count on it
	rowCondemned             // a prune is about to drop it: likewise
	rowOnce                  // a snapshot that was forgotten needed it
	rowFading                // was deleted, and is only in the trash of holders: see fading.go
)

// rowUnreliable are the segments on which nothing new counts.
const rowUnreliable = rowLost | rowCondemned | rowFading

const (
	segmentRowFixed = 32 + 3*4 + 4
	rowFlagsOffset  = 47
	rowSumBytes     = 4
)

func (r segmentRow) encode() []byte {
	b := make([]byte, 0, segmentRowFixed+storage.HolderBytes*len(r.holders)+rowSumBytes)
	b = append(b, r.id[:]...)
	b = binary.BigEndian.AppendUint32(b, r.bytes)
	b = binary.BigEndian.AppendUint32(b, r.tocOffset)
	b = binary.BigEndian.AppendUint32(b, r.tocBytes)
	b = append(b, r.k, r.n, r.survives, r.flags)
	b = storage.AppendHolders(b, r.holders)
	return binary.BigEndian.AppendUint32(b, rowSum(r.number, b))
}

// rowSum guards a row as locationSum does a location: rows end up in the
// catalogue. Rows of earlier versions have none.
func rowSum(number uint32, b []byte) uint32 {
	return crc32.Update(crc32.Checksum(be32(number), crcTable), crcTable, b)
}

func decodeSegmentRow(number uint32, b []byte) (segmentRow, error) {
	if len(b) < segmentRowFixed {
		return segmentRow{}, fmt.Errorf("%w: row of segment %d", errIndexBroken, number)
	}
	if end := len(b) - rowSumBytes; end >= segmentRowFixed && (end-segmentRowFixed)%storage.HolderBytes == 0 {
		if binary.BigEndian.Uint32(b[end:]) != rowSum(number, b[:end]) {
			return segmentRow{}, fmt.Errorf("%w: checksum of the row of segment %d", errIndexBroken, number)
		}
		b = b[:end]
	}
	holders, err := storage.ParseHolders(b[segmentRowFixed:])
	if err != nil {
		return segmentRow{}, fmt.Errorf("%w: row of segment %d: %w", errIndexBroken, number, err)
	}
	return segmentRow{
		number: number, id: storage.SegmentID(b), bytes: binary.BigEndian.Uint32(b[32:]),
		tocOffset: binary.BigEndian.Uint32(b[36:]), tocBytes: binary.BigEndian.Uint32(b[40:]),
		k: b[44], n: b[45], survives: b[46], flags: b[rowFlagsOffset], holders: holders,
	}, nil
}

// storedPack is a committed pack on its way into the index.
type storedPack struct {
	row     segmentRow
	entries []tocEntry
}

// addPacks makes committed packs visible, all or none, and fills in their
// numbers. One that comes without its entries is not indexed yet.
func (x *index) addPacks(packs []storedPack) error {
	return x.update(func(tx *bbolt.Tx) error {
		next := metaNumber(tx, keyNext)
		for i := range packs {
			if next == maxSegments {
				return fmt.Errorf("vault has used up its segment numbers")
			}
			packs[i].row.number = next
			if packs[i].entries != nil {
				packs[i].row.flags |= rowIndexed
			}
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
// because a crash came between, stays where it was first, unless that segment
// is lost or about to go. They go in by their order in the index, which finds
// the pages of one still at hand for the next.
func putBlobs(tx *bbolt.Tx, number uint32, entries []tocEntry) error {
	blobs := tx.Bucket(bucketBlobs)
	byID := slices.SortedFunc(slices.Values(entries), func(a, b tocEntry) int { return bytes.Compare(a.id[:], b.id[:]) })
	for _, e := range byID {
		if old := blobs.Get(e.id[:]); old != nil {
			l, err := decodeLocation(e.id, old)
			if err != nil {
				return err
			}
			if flags, there := rowFlags(tx, l.segment); there && flags&rowUnreliable == 0 {
				continue
			}
		}
		l := location{number, e.offset, e.sealed, e.plain, e.coding}
		if err := blobs.Put(e.id[:], l.encode(e.id)); err != nil {
			return err
		}
	}
	return nil
}

// rowFlags returns the flags of a segment; false when there is no such segment:
// blobs may still name one that was dropped.
func rowFlags(tx *bbolt.Tx, number uint32) (flags uint8, there bool) {
	b := tx.Bucket(bucketSegments).Get(be32(number))
	if len(b) < segmentRowFixed {
		return 0, false
	}
	return b[rowFlagsOffset], true
}

// flagSegment sets and clears flags of a segment, if it is there.
func flagSegment(tx *bbolt.Tx, number uint32, set, clear uint8) error {
	segments := tx.Bucket(bucketSegments)
	b := segments.Get(be32(number))
	if b == nil {
		return nil
	}
	row, err := decodeSegmentRow(number, b)
	if err != nil || row.flags&set == set && row.flags&clear == 0 {
		return err
	}
	row.flags = row.flags&^clear | set
	return segments.Put(be32(number), row.encode())
}

// dropSegment takes a segment out of the index. Blobs that name it count as not
// there from then on.
func dropSegment(tx *bbolt.Tx, number uint32) error {
	segments := tx.Bucket(bucketSegments)
	b := segments.Get(be32(number))
	if len(b) < segmentRowFixed {
		return nil
	}
	if err := tx.Bucket(bucketNumbers).Delete(b[:32]); err != nil {
		return err
	}
	if err := tx.Bucket(bucketMeta).Put(keyUnswept, []byte{1}); err != nil {
		return err
	}
	return segments.Delete(be32(number))
}

// countUnpruned notes that a prune may have something to do.
func countUnpruned(tx *bbolt.Tx) error {
	return tx.Bucket(bucketMeta).Put(keyUnpruned, be32(metaNumber(tx, keyUnpruned)+1))
}

// segment returns the row of a segment; errNoSegment when it was dropped.
func (x *index) segment(number uint32) (row segmentRow, err error) {
	err = x.view(func(tx *bbolt.Tx) error {
		row, err = rowOfNumber(tx, number)
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
