package vault

import (
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
)

// partRow is a part of the catalogue as the index keeps it. row is what is known
// of its segment; its number is 0.
type partRow struct {
	ref   *vaultv1.PartRef
	plain []byte
	row   segmentRow
}

// rowOfPart returns what a head knows of the segment of a part.
func rowOfPart(ref *vaultv1.PartRef) (segmentRow, error) {
	holders, err := storage.ParseHolders(ref.Holders)
	if err != nil {
		return segmentRow{}, err
	}
	return segmentRow{id: storage.SegmentID(ref.Segment), bytes: ref.Bytes, k: uint8(ref.K), n: uint8(ref.N), holders: holders,
		flags: rowCommitted | rowComplete, survives: unknownSites}, nil
}

// refOfPart returns how a head names the segment of a part.
func refOfPart(row segmentRow) *vaultv1.PartRef {
	return &vaultv1.PartRef{Segment: row.id[:], Bytes: row.bytes, K: uint32(row.k), N: uint32(row.n),
		Holders: storage.AppendHolders(nil, row.holders)}
}

// parts returns the parts of the catalogue in order.
func (x *index) parts() (rows []partRow, err error) {
	err = x.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketParts).ForEach(func(_, b []byte) error {
			row, err := readPart(tx, b)
			rows = append(rows, row)
			return err
		})
	})
	return rows, err
}

func readPart(tx *bbolt.Tx, b []byte) (part partRow, err error) {
	var kept vaultv1.KeptPart
	if err := proto.Unmarshal(b, &kept); err != nil || len(kept.GetRef().GetSegment()) != 32 ||
		kept.Sum != 0 && kept.Sum != crc32.Checksum(kept.Plain, crcTable) {
		return partRow{}, fmt.Errorf("%w: kept part of the catalogue", errIndexBroken)
	}
	part = partRow{ref: kept.Ref, plain: kept.Plain}
	if b := tx.Bucket(bucketPartRows).Get(kept.Ref.Segment); b != nil {
		part.row, err = decodeSegmentRow(0, b)
	} else {
		part.row, err = rowOfPart(kept.Ref)
	}
	if err != nil {
		return partRow{}, fmt.Errorf("%w: kept part of the catalogue: %w", errIndexBroken, err)
	}
	return part, nil
}

// putParts makes rows all the parts; those before the from-th are there already.
func putParts(tx *bbolt.Tx, from int, rows []partRow) error {
	parts := tx.Bucket(bucketParts)
	for i := from; i < maxParts; i++ {
		if err := parts.Delete(be32(uint32(i))); err != nil {
			return err
		}
	}
	if err := tx.DeleteBucket(bucketPartRows); err != nil {
		return err
	}
	known, err := tx.CreateBucket(bucketPartRows)
	if err != nil {
		return err
	}
	for i, part := range rows {
		if err := known.Put(part.row.id[:], part.row.encode()); err != nil {
			return err
		}
		if i < from {
			continue
		}
		b, err := proto.Marshal(&vaultv1.KeptPart{Ref: part.ref, Plain: part.plain, Sum: crc32.Checksum(part.plain, crcTable)})
		if err != nil {
			return err
		}
		if err := parts.Put(be32(uint32(i)), b); err != nil {
			return err
		}
	}
	return nil
}
