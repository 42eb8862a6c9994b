package vault

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"
)

// Health says how safely a set of segments is stored: the worst of them, by what
// was known when each was put and what Observe was told since. An index that
// was made anew does not know; such segments count as complete and say nothing
// of sites until they are observed.
type Health struct {
	Committed     bool   // the commit rule holds for each
	Complete      bool   // all shards are stored
	SurvivesSites int    // how many sites may vanish
	Segments      uint64 // how many there are
	Lost          uint64 // of those, with fewer shards than it takes to read them
	Unknown       uint64 // of those, nobody has observed yet where they lie
}

// unknownSites: an index that was made anew does not know where shards lie.
const unknownSites = 255

// health collects the worst of segments.
type health struct {
	mu       sync.Mutex
	flags    uint8 // rowCommitted and rowComplete, where all have them
	survives uint8

	segments, lost, unknown uint64
}

func newHealth() health { return health{flags: rowCommitted | rowComplete, survives: unknownSites} }

func (h *health) add(flags, survives uint8) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flags &= flags
	h.survives = min(h.survives, survives)
	h.segments++
	if flags&rowLost != 0 {
		h.lost++
		h.flags, h.survives = 0, 0
	}
	if survives == unknownSites {
		h.unknown++
	}
}

func (h *health) known() Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := Health{Committed: h.flags&rowCommitted != 0, Complete: h.flags&rowComplete != 0, SurvivesSites: int(h.survives),
		Segments: h.segments, Lost: h.lost, Unknown: h.unknown}
	if h.survives == unknownSites {
		known.SurvivesSites = 0
	}
	return known
}

// row returns what the index keeps of a put of a segment of so many bytes.
func (p Stored) row(bytes int) segmentRow {
	return segmentRow{id: p.ID, bytes: uint32(bytes), k: uint8(p.Redundancy.K), n: uint8(p.Redundancy.N),
		flags: p.flags(), survives: clampSites(p.SurvivesSites), holders: p.Holders}
}

// flags returns what of a put the index keeps.
func (p Stored) flags() (flags uint8) {
	if p.Complete {
		flags |= rowComplete
	}
	if p.Committed {
		flags |= rowCommitted
	}
	return flags
}

func clampSites(n int) uint8 { return uint8(max(0, min(n, unknownSites-1))) }

// Health returns that of the segments of one snapshot, now.
func (v *Vault) Health(ctx context.Context, id SnapshotID) (Health, error) {
	if err := v.sync(ctx); err != nil {
		return Health{}, err
	}
	h := newHealth()
	err := v.index.view(func(tx *bbolt.Tx) error {
		found := false
		err := eachEntry(tx, func(_ []byte, e *entry) error {
			if e.id != id {
				return nil
			}
			found = true
			return h.addRows(tx, &e.segments)
		})
		if err == nil && !found {
			err = fmt.Errorf("%w: %s", ErrNoSnapshot, id.Short())
		}
		if err == nil {
			err = h.addParts(tx)
		}
		return err
	})
	return h.known(), err
}

func (h *health) addRows(tx *bbolt.Tx, used *numberSet) error {
	for number := range used.all() {
		row, err := rowOfNumber(tx, number)
		if errors.Is(err, errNoSegment) {
			err = fmt.Errorf("%w: %w", errIndexBroken, err)
		}
		if err != nil {
			return err
		}
		h.add(row.flags, row.survives)
	}
	return nil
}

// addParts adds the segments of the catalogue, without which nothing is found.
func (h *health) addParts(tx *bbolt.Tx) error {
	return tx.Bucket(bucketPartRows).ForEach(func(_, b []byte) error {
		row, err := decodeSegmentRow(0, b)
		if err == nil {
			h.add(row.flags, row.survives)
		}
		return err
	})
}
