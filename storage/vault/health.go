package vault

import (
	"context"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	vaultv1 "gotong/proto/vault/v1"
)

// Health says how safely a set of segments was stored: the worst of them, by
// what was known when each was put. An index that was made anew does not know;
// such segments count as complete and say nothing of sites.
type Health struct {
	Committed     bool // the commit rule held for each
	Complete      bool // all shards were stored
	SurvivesSites int  // how many sites may vanish
}

// unknownSites: an index that was made anew does not know where shards lie.
const unknownSites = 255

// health collects the worst of segments.
type health struct {
	mu       sync.Mutex
	flags    uint8 // rowCommitted and rowComplete, where all have them
	survives uint8
}

func newHealth() health { return health{flags: rowCommitted | rowComplete, survives: unknownSites} }

func (h *health) add(flags, survives uint8) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flags &= flags
	h.survives = min(h.survives, survives)
}

func (h *health) known() Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := Health{Committed: h.flags&rowCommitted != 0, Complete: h.flags&rowComplete != 0, SurvivesSites: int(h.survives)}
	if h.survives == unknownSites {
		known.SurvivesSites = 0
	}
	return known
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

// Health returns that of the segments of one snapshot.
func (v *Vault) Health(ctx context.Context, id SnapshotID) (Health, error) {
	if err := v.sync(ctx); err != nil {
		return Health{}, err
	}
	used, err := v.index.segmentsOf(id)
	if err != nil {
		return Health{}, err
	}
	h := newHealth()
	err = v.index.addHealth(&h, &used)
	return h.known(), err
}

// segmentsOf returns the segments that a snapshot needs.
func (x *index) segmentsOf(id SnapshotID) (used numberSet, err error) {
	err = x.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketSnapshots).Cursor()
		for k, b := c.Last(); k != nil; k, b = c.Prev() {
			var e vaultv1.SnapshotEntry
			if err := proto.Unmarshal(b, &e); err != nil {
				return fmt.Errorf("%w: snapshot", errIndexBroken)
			}
			if snapshotIDOf(e.Record) == id {
				used, err = decodeNumbers(e.Segments, maxSegments)
				return err
			}
		}
		return fmt.Errorf("%w: %s", ErrNoSnapshot, id.Short())
	})
	return used, err
}

func (x *index) addHealth(h *health, used *numberSet) error {
	return x.view(func(tx *bbolt.Tx) error {
		for number := range used.all() {
			row, err := decodeSegmentRow(number, tx.Bucket(bucketSegments).Get(be32(number)))
			if err != nil {
				return err
			}
			h.add(row.flags, row.survives)
		}
		return nil
	})
}
