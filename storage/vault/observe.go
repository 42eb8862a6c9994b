package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"go.etcd.io/bbolt"

	"gotong/storage"
)

// observedAtOnce is how many rows one transaction of the index takes in or
// gives out, so that nothing waits long for a large vault.
const observedAtOnce = 512

// SegmentInfo is what the vault knows of one segment that it needs.
type SegmentInfo struct {
	ID         storage.SegmentID
	Redundancy storage.Redundancy // zero for some parts of old catalogues: the header has it
	Holders    []storage.Holder
	Bytes      uint32 // of the segment
	Committed  bool
	Complete   bool
	Lost       bool
	// SurvivesSites is how many sites may vanish; −1 when that is not known,
	// because the index was made anew and nobody observed the segment since.
	SurvivesSites int
}

// Observation is what somebody found out about a segment, now.
type Observation struct {
	ID      storage.SegmentID
	Holders []storage.Holder // of all good shards; none: what was known stays
	// Committed and Complete as for Stored. Lost: fewer than k shards are left
	// anywhere; new snapshots store its blobs again, a restore still tries it.
	Committed, Complete, Lost bool
	SurvivesSites             int
}

// yieldParts yields the segments of the catalogue itself. It reports whether the
// caller wants more; an error is the last that it gets.
func (v *Vault) yieldParts(yield func(SegmentInfo, error) bool) bool {
	parts, err := v.index.parts()
	if err != nil {
		yield(SegmentInfo{}, err)
		return false
	}
	for _, part := range parts {
		if !yield(part.row.info(), nil) {
			return false
		}
	}
	return true
}

// Segments yields what the vault needs, or one error last: the segments of
// snapshots and of the catalogue, and those of a backup that is running or was
// interrupted lately. The vault may change meanwhile.
func (v *Vault) Segments(ctx context.Context) iter.Seq2[SegmentInfo, error] {
	return func(yield func(SegmentInfo, error) bool) {
		if err := v.sync(ctx); err != nil {
			yield(SegmentInfo{}, err)
			return
		}
		if !v.yieldParts(yield) {
			return
		}
		needed, from, err := v.index.needed()
		if err != nil {
			yield(SegmentInfo{}, err)
			return
		}
		v.addUsed(&needed)
		err = v.index.eachSegmentInBatches(ctx, 0, func(row segmentRow) bool {
			if row.number < from && !needed.has(row.number) {
				return true
			}
			return yield(row.info(), nil)
		})
		if err != nil {
			yield(SegmentInfo{}, err)
		}
	}
}

// addUsed adds what the running session needs.
func (v *Vault) addUsed(needed *numberSet) {
	v.mu.Lock()
	session := v.session
	v.mu.Unlock()
	if session == nil {
		return
	}
	session.mu.Lock()
	defer session.mu.Unlock()
	needed.addAll(&session.used)
}

func (r segmentRow) info() SegmentInfo {
	info := SegmentInfo{ID: r.id, Redundancy: storage.Redundancy{K: int(r.k), N: int(r.n)}, Holders: r.holders, Bytes: r.bytes,
		Committed: r.flags&rowCommitted != 0, Complete: r.flags&rowComplete != 0, Lost: r.flags&rowLost != 0,
		SurvivesSites: int(r.survives)}
	if r.survives == unknownSites {
		info.SurvivesSites = -1
	}
	return info
}

// observed returns the row as it is after an observation.
func (r segmentRow) observed(o Observation) segmentRow {
	r.flags &^= rowCommitted | rowComplete | rowLost
	r.flags |= Stored{Committed: o.Committed, Complete: o.Complete}.flags()
	if o.Lost {
		r.flags |= rowLost
	}
	r.survives = clampSites(o.SurvivesSites)
	if len(o.Holders) > 0 {
		r.holders = o.Holders
	}
	return r
}

// Observe takes in what was found out about segments; those that the vault does
// not know are left out. Health and Segments say it from then on.
func (v *Vault) Observe(ctx context.Context, observations []Observation) error {
	if err := v.sync(ctx); err != nil {
		return err
	}
	for len(observations) > 0 {
		n := min(len(observations), observedAtOnce)
		if err := v.index.observe(observations[:n]); err != nil {
			return err
		}
		observations = observations[n:]
	}
	return nil
}

func (x *index) observe(observations []Observation) error {
	return x.update(func(tx *bbolt.Tx) error {
		for _, o := range observations {
			bucket, key := tx.Bucket(bucketPartRows), o.ID[:]
			var number uint32
			if at := tx.Bucket(bucketNumbers).Get(o.ID[:]); len(at) == 4 {
				number = binary.BigEndian.Uint32(at)
				bucket, key = tx.Bucket(bucketSegments), be32(number)
			}
			b := bucket.Get(key)
			if b == nil {
				continue
			}
			row, err := decodeSegmentRow(number, b)
			if err != nil {
				return err
			}
			if o.Lost && row.flags&rowLost == 0 {
				if err := countUnpruned(tx); err != nil {
					return err
				}
			}
			if err := bucket.Put(key, row.observed(o).encode()); err != nil {
				return err
			}
		}
		return nil
	})
}

// needed returns the segments that snapshots need, and the first number that is
// in no part of the catalogue yet.
func (x *index) needed() (needed numberSet, from uint32, err error) {
	err = x.view(func(tx *bbolt.Tx) error {
		from = metaNumber(tx, keyCatalogued)
		return eachEntry(tx, func(_ []byte, e *entry) error {
			needed.addAll(&e.segments)
			return nil
		})
	})
	return needed, from, err
}

// eachSegmentInBatches calls fn with every row from number on, in order, until
// it returns false; no transaction is open meanwhile.
func (x *index) eachSegmentInBatches(ctx context.Context, from uint32, fn func(segmentRow) bool) error {
	for {
		batch := make([]segmentRow, 0, observedAtOnce)
		err := x.eachSegment(from, func(row segmentRow) error {
			if batch = append(batch, row); len(batch) == observedAtOnce {
				return errEnough
			}
			return nil
		})
		done := err == nil
		if err != nil && len(batch) < observedAtOnce {
			return err
		}
		for _, row := range batch {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if !fn(row) {
				return nil
			}
		}
		if done {
			return nil
		}
		from = batch[len(batch)-1].number + 1
	}
}

// get fetches a segment. One that everybody was asked for in vain is marked as
// lost, so that the next backup stores anew what was in it. Of one that is marked
// the error is storage.ErrLost, whoever is away.
func (v *Vault) get(ctx context.Context, row segmentRow, buffer []byte) ([]byte, error) {
	data, err := v.segments.Get(ctx, row.id, row.holders, buffer)
	switch {
	case errors.Is(err, storage.ErrLost):
		v.markLost(row)
	case errors.Is(err, storage.ErrTooFewShards) && row.flags&rowLost != 0:
		err = fmt.Errorf("%w: %w", storage.ErrLost, err)
	}
	return data, err
}

// markLost notes that too little of a segment is left to read it.
func (v *Vault) markLost(row segmentRow) {
	if row.flags&rowLost != 0 {
		return
	}
	if err := v.index.observe([]Observation{{ID: row.id, Lost: true}}); err != nil {
		v.log.Warn("cannot note that a segment is lost", "segment", row.id.Short(), "err", err)
	}
}
