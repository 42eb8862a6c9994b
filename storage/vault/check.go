package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"

	"gotong/storage"
)

// maxCheckProblems bounds what a report lists; all are counted.
const maxCheckProblems = 1000

// surveyedAtOnce is how many segments are asked about at once.
const surveyedAtOnce = 2048

// CheckOptions say how thorough a check is.
type CheckOptions struct {
	// ReadData is the share of the segments that are fetched whole and whose
	// blobs are opened, 0 to 1; chosen at random each time. At least one is, when
	// it is above 0.
	ReadData float64
	// Progress is called now and then, in one goroutine at a time; nil: not.
	Progress func(CheckProgress)
}

// CheckProgress says how far a check is.
type CheckProgress struct {
	Step  string // "catalogue", "tables of contents", "snapshots", "holders", "reading data"
	Done  uint64 // of Total
	Total uint64
}

// CheckReport says what a check found.
type CheckReport struct {
	Snapshots uint64
	Blobs     uint64 // that snapshots refer to; 0 without the read key
	Segments  uint64 // that the vault needs, those of the catalogue included
	Healthy   uint64 // of them, all shards are said to be stored
	Degraded  uint64 // some are missing, and enough are left
	Lost      uint64 // too few members say that they have one
	// ShardsChecked are those that holders were asked about, ShardsBad those of
	// them that nobody says to have, or that are bad.
	ShardsChecked, ShardsBad uint64
	SegmentsRead, BlobsRead  uint64
	BytesRead                uint64
	// Silent is how many of the holders' shards were not accounted for because
	// the holder did not answer; they count as bad.
	Silent uint64
	// Problems are in words, at most maxCheckProblems; Count is of all.
	Problems []string
	Count    uint64
	// NoReadKey: the listings could not be looked into.
	NoReadKey bool
	Took      time.Duration
}

// OK reports whether nothing was found that concerns data: a degraded segment
// is repaired by itself.
func (r *CheckReport) OK() bool { return r.Count == 0 && r.Lost == 0 }

func (r *CheckReport) problem(format string, args ...any) {
	r.Count++
	if len(r.Problems) < maxCheckProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// Check looks whether all that snapshots refer to is there: from the head by
// the catalogue and the tables of contents to every listing; and what holders
// say of every segment. It changes nothing. The error is that of ctx, or that
// there was nothing to begin with.
func (v *Vault) Check(ctx context.Context, o CheckOptions) (CheckReport, error) {
	began := time.Now()
	if err := v.sync(ctx); err != nil {
		return CheckReport{}, err
	}
	if o.Progress == nil {
		o.Progress = func(CheckProgress) {}
	}
	c := &check{v: v, ctx: ctx, o: o}
	err := c.run()
	c.report.Took = time.Since(began)
	return c.report, err
}

type check struct {
	v      *Vault
	ctx    context.Context
	o      CheckOptions
	report CheckReport

	entries []entry
	needed  numberSet
	rows    []segmentRow // needed, without holders
	parts   []partRow
	hashes  *hashSpill // of the blobs in the segments to read; nil: none are
	chosen  numberSet
}

func (c *check) run() (err error) {
	if err := c.v.Outdated(c.ctx); err != nil {
		c.report.problem("%v: this is not the newest state of the vault", brief(err))
	}
	if c.parts, err = c.v.index.parts(); err != nil {
		return err
	}
	if c.entries, err = c.v.index.entries(); err != nil {
		return err
	}
	c.report.Snapshots = uint64(len(c.entries))
	for _, step := range []func() error{c.catalogue, c.numbers, c.tables, c.choose, c.snapshots, c.holders, c.read} {
		if err := step(); err != nil {
			c.closeHashes()
			return err
		}
		if c.ctx.Err() != nil {
			c.closeHashes()
			return context.Cause(c.ctx)
		}
	}
	c.closeHashes()
	return nil
}

// catalogue fetches every part and compares it with what is kept here.
func (c *check) catalogue() error {
	for i, part := range c.parts {
		c.o.Progress(CheckProgress{"catalogue", uint64(i), uint64(len(c.parts))})
		plain, err := c.v.fetchPart(c.ctx, refOfPart(part.row))
		switch {
		case err != nil:
			c.report.problem("catalogue part %d of %d (segment %s) cannot be read: %v", i+1, len(c.parts), part.row.id.Short(), brief(err))
		case string(plain) != string(part.plain):
			c.report.problem("catalogue part %d of %d (segment %s) is not what this device keeps", i+1, len(c.parts), part.row.id.Short())
		}
	}
	return nil
}

// numbers compares the catalogue with the index, and finds what snapshots need.
func (c *check) numbers() error {
	state, err := openHeadState(c.v.secrets, c.v.readFrom().Sealed)
	if c.v.readFrom().IsZero() {
		return nil
	}
	if err != nil {
		return err
	}
	if state.Snapshots != uint64(len(c.entries)) {
		c.report.problem("the head counts %d snapshots, the catalogue has %d", state.Snapshots, len(c.entries))
	}
	catalogue := newPartBuilder()
	for _, part := range c.parts {
		p, err := parsePart(part.plain)
		if err != nil {
			c.report.problem("catalogue: %v", brief(err))
			continue
		}
		catalogue.addPart(p)
	}
	catalogue.settle(true)
	return c.v.index.view(func(tx *bbolt.Tx) error {
		listed := map[uint32]bool{}
		for _, s := range catalogue.part.Segments {
			if listed[s.Number] || s.Number >= state.NextNumber {
				c.report.problem("the catalogue has segment number %d twice, or beyond %d", s.Number, state.NextNumber)
			}
			listed[s.Number] = true
			row, err := rowOfNumber(tx, s.Number)
			if err != nil || row.id != storage.SegmentID(s.Id) || row.bytes != s.Bytes || row.tocOffset != s.TocOffset || row.tocBytes != s.TocBytes {
				c.report.problem("segment %d of the catalogue is another one, or none, in the index: %v", s.Number, brief(err))
			}
		}
		for _, e := range c.entries {
			for number := range e.segments.all() {
				row, err := rowOfNumber(tx, number)
				if err != nil || !listed[number] && row.number < metaNumber(tx, keyCatalogued) {
					c.report.problem("snapshot %s needs segment %d, which the catalogue does not have", e.id.Short(), number)
					continue
				}
				if !c.needed.has(number) {
					c.needed.add(number)
					row.holders = nil
					c.rows = append(c.rows, row)
				}
			}
		}
		return nil
	})
}

// tables reads the table of contents of every segment, and looks whether the
// index knows each blob in it.
func (c *check) tables() error {
	done := uint64(0)
	for batch := range slices.Chunk(c.rows, indexedAtOnce) {
		c.o.Progress(CheckProgress{"tables of contents", done, uint64(len(c.rows))})
		done += uint64(len(batch))
		tables := make([][]tocEntry, len(batch))
		failed := make([]error, len(batch))
		var group errgroup.Group
		group.SetLimit(tocsInFlight)
		for i, row := range batch {
			group.Go(func() error {
				full, err := c.v.index.segment(row.number)
				if err == nil {
					tables[i], err = c.v.fetchTOC(c.ctx, full)
				}
				failed[i] = err
				return nil
			})
		}
		_ = group.Wait() // no function fails
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		for i, row := range batch {
			if errors.Is(failed[i], errNoSegment) {
				continue // a prune dropped it meanwhile
			}
			if failed[i] != nil {
				c.report.problem("table of contents of segment %s cannot be read: %v", row.id.Short(), brief(failed[i]))
				continue
			}
			if err := c.table(row, tables[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *check) table(row segmentRow, entries []tocEntry) error {
	return c.v.index.view(func(tx *bbolt.Tx) error {
		blobs := tx.Bucket(bucketBlobs)
		for _, e := range entries {
			b := blobs.Get(e.id[:])
			if b == nil {
				c.report.problem("blob %x of segment %s is not in the index", e.id[:6], row.id.Short())
				continue
			}
			l, err := decodeLocation(e.id, b)
			if err != nil {
				return err
			}
			if l.segment == row.number && (l.offset != e.offset || l.sealed != e.sealed || l.plain != e.plain || l.coding != e.coding) {
				c.report.problem("blob %x is elsewhere in segment %s than the index says", e.id[:6], row.id.Short())
			}
		}
		return nil
	})
}

// snapshots goes through all listings.
func (c *check) snapshots() error {
	if !c.v.readSecrets(c.ctx).CanRead() {
		c.report.NoReadKey = true
		return nil
	}
	w, err := c.v.newWalk(c.ctx)
	if err != nil {
		return err
	}
	defer w.close()
	var spilt error
	w.met = func(h [32]byte, at location) {
		if c.hashes != nil && c.chosen.has(at.segment) && spilt == nil {
			spilt = c.hashes.add(spiltHash{at.segment, at.offset, h})
		}
	}
	for i, e := range c.entries {
		c.o.Progress(CheckProgress{"snapshots", uint64(i), uint64(len(c.entries))})
		w.problem = func(where string, err error) {
			c.report.problem("snapshot %s: the content of %q: %v", e.id.Short(), where, brief(err))
		}
		s, err := c.v.openSnapshot(c.ctx, e.record)
		if err == nil {
			err = w.snapshot(s.Root, &e.segments)
		}
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		if err != nil {
			c.report.problem("snapshot %s cannot be read: %v", e.id.Short(), brief(err))
		}
	}
	c.report.Blobs = w.blobs
	for number := range w.extra.all() {
		if flags, err := c.v.index.segment(number); err != nil || flags.flags&rowLost != 0 {
			c.report.problem("segment %d, which snapshots refer to, is lost", number)
		}
	}
	return spilt
}
