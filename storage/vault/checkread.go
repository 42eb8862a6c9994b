package vault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"gotong/storage/segments"
)

// choose picks the segments to read.
func (c *check) choose() (err error) {
	if c.o.ReadData <= 0 || len(c.rows) == 0 {
		return nil
	}
	n := min(max(int(c.o.ReadData*float64(len(c.rows))+0.5), 1), len(c.rows))
	for _, i := range rand.Perm(len(c.rows))[:n] {
		c.chosen.add(c.rows[i].number)
	}
	c.hashes, err = newHashSpill(c.v.dir)
	return err
}

func (c *check) closeHashes() {
	if c.hashes != nil {
		c.hashes.close()
		c.hashes = nil
	}
}

// read fetches the chosen segments whole and opens the blobs that snapshots
// refer to.
func (c *check) read() error {
	total := uint64(c.chosen.count())
	if total == 0 {
		return nil
	}
	var data, plain, buf []byte
	for bucket := range uint32(hashBuckets) {
		hashes, err := c.hashes.read(bucket)
		if err != nil {
			return err
		}
		for number := range c.chosen.all() {
			if number%hashBuckets != bucket {
				continue
			}
			c.o.Progress(CheckProgress{"reading data", c.report.SegmentsRead, total})
			row, err := c.v.index.segment(number)
			if errors.Is(err, errNoSegment) {
				continue
			}
			if err != nil {
				return err
			}
			if data, err = c.v.get(c.ctx, row, data[:0]); err != nil {
				if data = nil; c.ctx.Err() != nil {
					return context.Cause(c.ctx)
				}
				c.report.problem("segment %s cannot be read: %v", row.id.Short(), brief(err))
				continue
			}
			c.report.SegmentsRead++
			c.report.BytesRead += uint64(len(data))
			plain, buf = c.open(row, data, hashes[number], plain, buf)
		}
	}
	return nil
}

// open opens all blobs of a segment that snapshots refer to.
func (c *check) open(row segmentRow, data []byte, hashes map[uint32][32]byte, plain, buf []byte) (_, _ []byte) {
	entries, err := readTOC(c.v.secrets, data)
	if err != nil {
		c.report.problem("segment %s: %v", row.id.Short(), brief(err))
		return plain, buf
	}
	for _, e := range entries {
		h, referred := hashes[e.offset]
		if !referred {
			continue
		}
		plain, buf, err = c.v.openBlob(plain[:0], buf, h, location{offset: e.offset, sealed: e.sealed, plain: e.plain, coding: e.coding}, data)
		if err != nil {
			c.report.problem("blob %x of segment %s does not open: %v", e.id[:6], row.id.Short(), brief(err))
			continue
		}
		c.report.BlobsRead++
	}
	return plain, buf
}

// brief is an error without what each peer said: of a segment that cannot be had
// only how much of it answered.
func brief(err error) string {
	var few *segments.TooFewError
	if errors.As(err, &few) {
		if few.Of == 0 {
			return fmt.Sprintf("no holder of segment %s answered", few.Segment.Short())
		}
		return fmt.Sprintf("segment %s needs %d of %d shards, %d answered", few.Segment.Short(), few.Need, few.Of, few.Answered)
	}
	return fmt.Sprint(err)
}
