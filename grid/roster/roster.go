package roster

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
)

const rosterMagic = "gotong roster 1\n"

// ErrExists says that there is a roster already where one was to be made.
var ErrExists = errors.New("there is a roster already")

// Roster is the durable set of statements of one grid. Its methods may be
// called from many goroutines.
type Roster struct {
	mu      sync.Mutex // of set, journal and changed
	set     *set
	journal *journal
	changed chan struct{}
	view    atomic.Pointer[View]
}

// CreateParams founds a grid.
type CreateParams struct {
	Name     string             // of the grid: 1 to grid.MaxNameLen bytes, for people
	OwnerKey ed25519.PrivateKey // of the first owner; not kept
	Node     identity.NodeKey   // of the first peer
	// Delegation holds the capabilities, epoch and times that the owner gives
	// to the first peer; grid and peer are filled in.
	Delegation identity.Delegation
}

// Create founds a grid and stores its roster in a new file at path. The caller
// closes the result.
func Create(path string, p CreateParams) (*Roster, error) {
	g, genesis, err := signGenesis(p.OwnerKey, p.Node, p.Name, p.Delegation)
	if err != nil {
		return nil, err
	}
	return Import(path, g, [][]byte{genesis})
}

// Import stores the statements of grid g, as another member handed them over,
// in a new file at path. The caller closes the result.
func Import(path string, g grid.GridID, statements [][]byte) (*Roster, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrExists, path), err)
	}
	set := newSet(g)
	fresh, err := set.read(statements)
	if err != nil {
		return nil, err
	}
	set.add(set.connected(fresh))
	if _, err := set.view(); err != nil {
		return nil, err
	}
	if err := createJournal(path, rosterMagic, g, set.raws()); err != nil {
		return nil, fmt.Errorf("store the roster: %w", err)
	}
	return Open(path)
}

// Open reads the roster at path and verifies every statement again. A write
// that a power cut tore is cut off; other damage is ErrCorrupt. The caller
// closes the result.
func Open(path string) (*Roster, error) {
	j, g, items, err := openJournal(path, rosterMagic)
	if err != nil {
		return nil, fmt.Errorf("open the roster: %w", err)
	}
	r, err := newRoster(j, g, items)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the roster %s: %w", path, err), j.close())
	}
	return r, nil
}

func newRoster(j *journal, g grid.GridID, items [][]byte) (*Roster, error) {
	set := newSet(g)
	statements, learnt, err := splitNotes(items)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	fresh, err := set.read(statements)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	set.learnt = learnt
	set.add(set.connected(fresh))
	view, err := set.view()
	if err != nil {
		return nil, err
	}
	r := &Roster{set: set, journal: j, changed: make(chan struct{})}
	r.view.Store(view)
	return r, nil
}

// Close closes the file. The views stay usable.
func (r *Roster) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.journal.close()
}

// View returns who belongs to the grid now. It costs one atomic load.
func (r *Roster) View() *View { return r.view.Load() }

// Digest is equal for equal sets of statements.
func (r *Roster) Digest() [sha256.Size]byte { return r.View().digest }

// Changed returns a channel that is closed at the next change. Take it before
// the View that it is to watch.
func (r *Roster) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Merge verifies all statements, then adds those that are new, and returns how
// many; they are durable when it returns. One invalid statement refuses the
// batch (ErrStatement). Valid statements whose author, or owner, no statement
// admits are left out; offer them again together with those that do.
func (r *Roster) Merge(statements [][]byte) (added int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh, err := r.set.read(statements)
	if err != nil {
		return 0, err
	}
	fresh = r.set.connected(fresh)
	return len(fresh), r.commit(fresh)
}

// MergeFor merges statements only if the peer is an active member with them;
// else it stores nothing and returns grid.ErrRemoved or grid.ErrNotMember. It is
// for statements that come from somebody who is not a member yet, so it looks
// for a reason to refuse before it evaluates anything: who was removed can only
// come back by an owner's disown that is news here.
func (r *Roster) MergeFor(peer grid.PeerID, statements [][]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	removed := r.View().Status(peer) == StatusRemoved
	if removed && !slices.ContainsFunc(statements, isDisown) {
		return grid.ErrRemoved
	}
	fresh, err := r.set.read(statements)
	if err != nil {
		return err
	}
	fresh = r.set.connected(fresh)
	if removed && !slices.ContainsFunc(fresh, func(s *statement) bool { return s.kind == kindDisown }) {
		return grid.ErrRemoved
	}
	admits := func(s *statement) bool { return s.admission != nil && s.admission.peer == peer }
	if !r.set.peers[peer] && !slices.ContainsFunc(fresh, admits) {
		return grid.ErrNotMember
	}
	trial := r.set.clone()
	trial.add(fresh)
	view, err := trial.view()
	if err != nil {
		return err
	}
	switch view.Status(peer) {
	case StatusActive:
		return r.commit(fresh)
	case StatusRemoved:
		return grid.ErrRemoved
	default:
		return grid.ErrNotMember
	}
}

func isDisown(raw []byte) bool { return len(raw) > 0 && kind(raw[0]) == kindDisown }

// commit makes connected statements durable and publishes the new view.
func (r *Roster) commit(fresh []*statement) error {
	if len(fresh) == 0 {
		return nil
	}
	now := time.Now().Truncate(time.Second)
	items := append(make([][]byte, 0, 1+len(fresh)), noteOf(now))
	for _, s := range fresh {
		items = append(items, s.raw)
	}
	if err := r.journal.append(items); err != nil {
		return fmt.Errorf("store %d roster statements: %w", len(fresh), err)
	}
	r.set.add(fresh)
	for _, s := range fresh {
		r.set.learnt[s.hash] = now
	}
	view, err := r.set.view()
	if err != nil { // the set has had its genesis since it was opened
		return err
	}
	r.view.Store(view)
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

// Statements returns the encoded statements with the given hashes, as far as
// they are here, in an order in which each follows what connects it to the
// genesis.
func (r *Roster) Statements(want []Hash) [][]byte {
	wanted := make(map[Hash]bool, len(want))
	for _, h := range want {
		wanted[h] = true
	}
	return r.pick(func(h Hash) bool { return wanted[h] })
}

// All returns every encoded statement, in the order of Statements.
func (r *Roster) All() [][]byte {
	return r.pick(func(Hash) bool { return true })
}

// Learnt returns when statements came here, by this machine's clock, in whole
// seconds. Those that came with the roster itself are not in it.
func (r *Roster) Learnt() map[Hash]time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.set.learnt)
}

// Missing returns the encoded statements that somebody who has those hashes
// lacks, in the order of Statements.
func (r *Roster) Missing(have []Hash) [][]byte {
	had := make(map[Hash]bool, len(have))
	for _, h := range have {
		had[h] = true
	}
	return r.pick(func(h Hash) bool { return !had[h] })
}

// Lacking returns those of the hashes whose statements are not here.
func (r *Roster) Lacking(have []Hash) []Hash {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(have), func(h Hash) bool { return r.set.byHash[h] != nil })
}

// Hashes returns the hashes of all statements.
func (r *Roster) Hashes() []Hash {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set.hashes()
}

// PathTo is View().PathTo: what Introduce shows of a member.
func (r *Roster) PathTo(peer grid.PeerID) [][]byte { return r.View().PathTo(peer) }

func (r *Roster) pick(want func(Hash) bool) (out [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.set.ordered {
		if want(s.hash) {
			out = append(out, s.raw)
		}
	}
	return out
}
