package roster

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"gotong/grid"
)

const (
	recordsMagic = "gotong records 1"
	// MaxRecords bounds the peers whose records are kept.
	MaxRecords = 1 << 14
	// The file is written anew when it holds this many items, and twice as many
	// as there are records.
	compactItems = 256
)

// Records is the durable address book: the newest signed record of each
// member. Its methods may be called from many goroutines.
type Records struct {
	mu      sync.Mutex
	path    string
	grid    grid.GridID
	journal *journal
	items   int // in the file, superseded ones included
	records map[grid.PeerID]storedRecord
	changed chan struct{}
}

type storedRecord struct {
	record  grid.Record
	encoded []byte
}

// newer reports whether s replaces old: the higher number stands. A peer that
// signed two records with one number contradicts itself; all others then agree
// on the one with the higher bytes.
func (s storedRecord) newer(old storedRecord) bool {
	if s.record.Number != old.record.Number {
		return s.record.Number > old.record.Number
	}
	return bytes.Compare(s.encoded, old.encoded) > 0
}

// OpenRecords reads the records of grid g at path, or starts an empty file
// there. The caller closes the result. A torn write is cut off; other damage is
// ErrCorrupt, and then the file may be deleted: others have the same records.
func OpenRecords(path string, g grid.GridID) (*Records, error) {
	r := &Records{path: path, grid: g, records: map[grid.PeerID]storedRecord{}, changed: make(chan struct{})}
	err := r.load()
	if errors.Is(err, fs.ErrNotExist) {
		if err = createJournal(path, recordsMagic, g, nil); err == nil {
			err = r.load()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open the peer records: %w", err)
	}
	return r, nil
}

func (r *Records) load() error {
	j, g, items, err := openJournal(r.path, recordsMagic)
	if err != nil {
		return err
	}
	if g != r.grid {
		return errors.Join(fmt.Errorf("%s belongs to grid %s", r.path, g.Short()), j.close())
	}
	for _, item := range items {
		record, err := ParseRecord(item)
		if err != nil {
			return errors.Join(fmt.Errorf("%w: %s: %w", ErrCorrupt, r.path, err), j.close())
		}
		s := storedRecord{record, bytes.Clone(item)} // item would keep the whole file in memory
		if old, ok := r.records[record.Peer]; !ok || s.newer(old) {
			r.records[record.Peer] = s
		}
	}
	r.journal, r.items = j, len(items)
	return nil
}

// Close closes the file.
func (r *Records) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.journal.close()
}

// Put keeps a record if a statement in view, counted or not, admits its subject
// and it is newer than what is known; it is durable when Put returns. Those who
// were removed keep an address: a removal may be undone. ErrRecord says that the
// bytes are no record, grid.ErrNotMember that nobody ever admitted the subject.
func (r *Records) Put(encoded []byte, view *View) (changed bool, err error) {
	n, err := r.PutAll([][]byte{encoded}, view)
	return n > 0, err
}

// PutAll is Put for many records with one write; it returns how many were
// kept. Bad ones are left out and named in the error, joined; the good ones
// among them are kept all the same.
func (r *Records) PutAll(encoded [][]byte, view *View) (kept int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := map[grid.PeerID]storedRecord{}
	var faults []error
	for _, raw := range encoded {
		s, err := r.accept(raw, view, fresh)
		switch {
		case err != nil:
			faults = append(faults, err)
		case s != nil:
			fresh[s.record.Peer] = *s
		}
	}
	if len(fresh) == 0 {
		return 0, errors.Join(faults...)
	}
	if err := r.store(fresh); err != nil {
		return 0, fmt.Errorf("store %d peer records: %w", len(fresh), err)
	}
	close(r.changed)
	r.changed = make(chan struct{})
	return len(fresh), errors.Join(faults...)
}

// accept returns the record if it is to be kept; nil when nothing is new.
func (r *Records) accept(raw []byte, view *View, fresh map[grid.PeerID]storedRecord) (*storedRecord, error) {
	record, err := ParseRecord(raw)
	if err != nil {
		return nil, err
	}
	id := record.Peer
	if !view.Mentioned(id) {
		return nil, fmt.Errorf("record of %s: %w", id.Short(), grid.ErrNotMember)
	}
	s := storedRecord{record, bytes.Clone(raw)}
	old, known := r.records[id]
	if (known && !s.newer(old)) || (!fresh[id].record.Peer.IsZero() && !s.newer(fresh[id])) {
		return nil, nil
	}
	if !known && len(r.records)+len(fresh) >= MaxRecords {
		return nil, fmt.Errorf("record of %s: %d records are kept already", id.Short(), MaxRecords)
	}
	return &s, nil
}

func (r *Records) store(fresh map[grid.PeerID]storedRecord) error {
	items := make([][]byte, 0, len(fresh))
	for _, s := range fresh {
		items = append(items, s.encoded)
	}
	if err := r.journal.append(items); err != nil {
		return err
	}
	r.items += len(items)
	for id, s := range fresh {
		r.records[id] = s
	}
	if r.items >= compactItems && r.items >= 2*len(r.records) {
		r.compact()
	}
	return nil
}

// compact replaces the file by one without the superseded records. When that
// fails the old file stands and the next Put tries again; when not even that
// can be opened, the next Put fails. The old file is closed first because some
// systems do not replace an open one.
func (r *Records) compact() {
	items := r.encoded()
	err := r.journal.close()
	if createErr := createJournal(r.path, recordsMagic, r.grid, items); createErr == nil {
		r.items = len(items)
	}
	j, _, _, openErr := openJournal(r.path, recordsMagic)
	if openErr != nil {
		r.journal.broken = errors.Join(err, openErr)
		return
	}
	r.journal = j
}

// Get returns the newest record of a peer and its signed bytes. A record stays
// when its subject is removed, so that people still see a name.
func (r *Records) Get(id grid.PeerID) (grid.Record, []byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.records[id]
	return s.record, s.encoded, ok
}

// Peers returns whose records are here, sorted; some may be no members.
func (r *Records) Peers() []grid.PeerID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Keys(r.records), grid.PeerID.Compare)
}

// All returns the signed bytes of every record, sorted by PeerID.
func (r *Records) All() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.encoded()
}

func (r *Records) encoded() [][]byte {
	ids := make([]grid.PeerID, 0, len(r.records))
	for id := range r.records {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, grid.PeerID.Compare)
	out := make([][]byte, 0, len(ids))
	for _, id := range ids {
		out = append(out, r.records[id].encoded)
	}
	return out
}

// Changed returns a channel that is closed at the next change.
func (r *Records) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}
