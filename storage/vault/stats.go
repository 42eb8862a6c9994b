package vault

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// countedAtOnce is how many blobs one transaction counts.
const countedAtOnce = 50_000

// Totals say what a vault holds, by its index; nobody is asked.
type Totals struct {
	Snapshots    uint64
	LogicalBytes uint64 // of the files of all snapshots, each counted; 0 without the read key
	Blobs        uint64
	UniqueBytes  uint64 // plaintext of the blobs, lists and listings included
	SealedBytes  uint64 // of those, compressed and sealed
	Segments     uint64 // packs and parts of the catalogue
	SegmentBytes uint64 // of those, padding included
	StoredBytes  uint64 // of all their shards
	// Waste is what no snapshot needs: whole segments now, and parts of segments
	// as the last prune left them.
	Waste      uint64
	IndexBytes uint64 // of the index file
}

// Deduplication is how many bytes of files there are for each unique byte.
func (s Totals) Deduplication() float64 { return ratio(s.LogicalBytes, s.UniqueBytes) }

// Compression is how many unique bytes there are for each sealed byte.
func (s Totals) Compression() float64 { return ratio(s.UniqueBytes, s.SealedBytes) }

func ratio(a, b uint64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// Stats counts what the vault holds.
func (v *Vault) Stats(ctx context.Context) (s Totals, err error) {
	if err := v.sync(ctx); err != nil {
		return Totals{}, err
	}
	entries, err := v.index.entries()
	if err != nil {
		return Totals{}, err
	}
	var needed numberSet
	for _, e := range entries {
		s.Snapshots++
		needed.addAll(&e.segments)
		if v.readSecrets(ctx).CanRead() {
			snapshot, err := v.openSnapshot(ctx, e.record)
			if err != nil {
				return Totals{}, err
			}
			s.LogicalBytes += snapshot.Bytes
		}
	}
	parts, err := v.index.parts()
	if err != nil {
		return Totals{}, err
	}
	for _, part := range parts {
		s.addSegment(part.row)
	}
	err = v.index.view(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(bucketMeta).Get(keyWaste); len(b) == 8 {
			s.Waste = binary.BigEndian.Uint64(b)
		}
		return nil
	})
	if err != nil {
		return Totals{}, err
	}
	err = v.index.eachSegmentInBatches(ctx, 0, func(row segmentRow) bool {
		s.addSegment(row)
		if !needed.has(row.number) {
			s.Waste += uint64(row.bytes)
		}
		return true
	})
	if err == nil {
		err = v.index.countBlobs(ctx, &s)
	}
	if err != nil {
		return Totals{}, err
	}
	info, err := os.Stat(v.index.path)
	if err != nil {
		return Totals{}, fmt.Errorf("index: %w", err)
	}
	s.IndexBytes = uint64(info.Size())
	return s, nil
}

func (s *Totals) addSegment(row segmentRow) {
	s.Segments++
	s.SegmentBytes += uint64(row.bytes)
	s.StoredBytes += uint64(row.bytes) * uint64(max(row.n, 1)) / uint64(max(row.k, 1))
}

func (x *index) countBlobs(ctx context.Context, s *Totals) error {
	var from []byte
	for more := true; more; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := x.view(func(tx *bbolt.Tx) error {
			more = false
			seen := 0
			c := tx.Bucket(bucketBlobs).Cursor()
			for k, b := c.Seek(from); k != nil; k, b = c.Next() {
				if seen++; seen > countedAtOnce {
					from, more = append([]byte(nil), k...), true
					return nil
				}
				if len(k) != 32 {
					return errIndexBroken
				}
				l, err := decodeLocation(BlobID(k), b)
				if err != nil {
					return err
				}
				if _, there := rowFlags(tx, l.segment); there {
					s.Blobs++
					s.UniqueBytes += uint64(l.plain)
					s.SealedBytes += uint64(l.sealed)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
