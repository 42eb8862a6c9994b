package roster

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"gotong/grid"
)

// Errors of reading a roster. Test with errors.Is.
var (
	// ErrNoGenesis: the statements do not include the genesis of the grid.
	ErrNoGenesis = errors.New("no genesis statement")
	// ErrTooMany: the roster cannot hold that many statements.
	ErrTooMany = errors.New("roster is full")
)

// set is a set of verified statements of one grid. The order is that in which
// they came; each stands after those that connect it to the genesis.
type set struct {
	grid    grid.GridID
	ordered []*statement
	byHash  map[Hash]*statement
	peers   map[grid.PeerID]bool  // admitted by any statement, counted or not
	owners  map[grid.OwnerID]bool // likewise, by genesis or admit
	bytes   int
	learnt  map[Hash]time.Time // when they came; what came with the roster itself has no time
}

func newSet(g grid.GridID) *set {
	return &set{grid: g, byHash: map[Hash]*statement{}, peers: map[grid.PeerID]bool{}, owners: map[grid.OwnerID]bool{}, learnt: map[Hash]time.Time{}}
}

// clone copies the set so that a trial does not touch it.
func (set *set) clone() *set {
	c := newSet(set.grid)
	c.add(set.ordered)
	return c
}

// read verifies the statements that are not in the set yet. One bad statement
// spoils the whole batch.
func (set *set) read(raws [][]byte) ([]*statement, error) {
	var fresh []*statement
	seen, total := map[Hash]bool{}, set.bytes
	for i, raw := range raws {
		h := HashOf(raw)
		if set.byHash[h] != nil || seen[h] {
			continue
		}
		total += len(raw)
		if len(set.ordered)+len(fresh) >= MaxStatements || total > MaxRosterBytes {
			return nil, fmt.Errorf("%w: it holds at most %d statements and %d bytes", ErrTooMany, MaxStatements, MaxRosterBytes)
		}
		s, err := parseStatement(set.grid, bytes.Clone(raw))
		if err != nil {
			return nil, fmt.Errorf("statement %d of %d: %w", i+1, len(raws), err)
		}
		seen[h] = true
		fresh = append(fresh, s)
	}
	return fresh, nil
}

// connected returns those statements, in an order in which each follows what
// connects it to the genesis, and leaves out the others. Whether the connecting
// statements count does not matter here: that may change with what is learnt
// later, while being connected can only become true.
func (set *set) connected(fresh []*statement) []*statement {
	var out []*statement
	peers, owners := map[grid.PeerID]bool{}, map[grid.OwnerID]bool{}
	reached := func(s *statement) bool {
		switch s.kind {
		case kindGenesis:
			return true
		case kindDevice:
			return set.owners[s.admission.owner] || owners[s.admission.owner]
		case kindDisown:
			return set.owners[s.disown.owner] || owners[s.disown.owner]
		default:
			return set.peers[s.author] || peers[s.author]
		}
	}
	for progress := true; progress; {
		progress = false
		rest := fresh[:0:0]
		for _, s := range fresh {
			if !reached(s) {
				rest = append(rest, s)
				continue
			}
			progress = true
			out = append(out, s)
			if s.admission != nil {
				peers[s.admission.peer] = true
				owners[s.admission.owner] = true // of a device it was before
			}
		}
		fresh = rest
	}
	return out
}

// add puts connected statements into the set.
func (set *set) add(statements []*statement) {
	for _, s := range statements {
		set.ordered = append(set.ordered, s)
		set.byHash[s.hash] = s
		set.bytes += len(s.raw)
		if s.admission != nil {
			set.peers[s.admission.peer] = true
			set.owners[s.admission.owner] = true
		}
	}
}

func (set *set) hashes() []Hash {
	out := make([]Hash, 0, len(set.ordered))
	for _, s := range set.ordered {
		out = append(out, s.hash)
	}
	return out
}

func (set *set) digest() [sha256.Size]byte {
	hashes := set.hashes()
	slices.SortFunc(hashes, func(a, b Hash) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	for _, hash := range hashes {
		h.Write(hash[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (set *set) raws() [][]byte {
	out := make([][]byte, 0, len(set.ordered))
	for _, s := range set.ordered {
		out = append(out, s.raw)
	}
	return out
}
