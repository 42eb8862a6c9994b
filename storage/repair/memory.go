package repair

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/disk"
	"gotong/storage"
)

// Bounds of what is remembered.
const (
	maxStandings = 4096
	maxCondemned = 8192
	maxMemory    = 32 << 20 // bytes of the file

	// condemnedFor is how long a shard counts as lost at a peer that failed a
	// challenge of it.
	condemnedFor = 30 * 24 * time.Hour
)

// place is a shard at a peer.
type place struct {
	peer  grid.PeerID
	shard storage.ShardID
}

// memory is what a Repairer keeps between rounds and over restarts, in one
// file. To lose it only costs time: challenges are repeated, clocks begin anew.
type memory struct {
	path string

	mu        sync.Mutex
	dirty     bool
	standings map[grid.PeerID]*Standing
	condemned map[place]time.Time
	silent    map[grid.PeerID]time.Time // alive by gossip, without answer since
	trials    map[storage.ShardID]trial // of shards here that others have too
	scrub     scrubState
}

// scrubState is how far the re-reading of the own shards came.
type scrubState struct {
	next  storage.ShardID // where to go on; zero: from the beginning
	began time.Time       // of this pass
	last  time.Time       // when a whole pass ended; zero: never
	bad   uint64          // shards found bad, in all
}

// memoryFile is the file; docs/format.md describes it.
type memoryFile struct {
	Version   int                          `json:"version"`
	Peers     map[grid.PeerID]standingFile `json:"peers,omitempty"`
	Condemned []condemnedFile              `json:"condemned,omitempty"`
	Silent    map[grid.PeerID]int64        `json:"silent,omitempty"` // Unix seconds
	Trials    []trialFile                  `json:"trials,omitempty"`
	Scrub     scrubFile                    `json:"scrub"`
}

type standingFile struct {
	Counts []uint64   `json:"counts"` // by outcome code
	Events [][3]int64 `json:"events"` // Unix seconds, outcome code, 1 when read
}

type condemnedFile struct {
	Peer  grid.PeerID `json:"peer"`
	Shard string      `json:"shard"`
	At    int64       `json:"at"`
}

type trialFile struct {
	Shard  string      `json:"shard"`
	Keeper grid.PeerID `json:"keeper"`
	Since  int64       `json:"since,omitempty"`
	Last   int64       `json:"last,omitempty"`
	Proofs int         `json:"proofs,omitempty"`
}

type scrubFile struct {
	Next  string `json:"next,omitempty"`
	Began int64  `json:"began,omitempty"`
	Last  int64  `json:"last,omitempty"`
	Bad   uint64 `json:"bad,omitempty"`
}

const memoryVersion = 1

func newMemory(path string) *memory {
	return &memory{path: path, standings: map[grid.PeerID]*Standing{}, condemned: map[place]time.Time{},
		silent: map[grid.PeerID]time.Time{}, trials: map[storage.ShardID]trial{}}
}

// openMemory reads the file. With an error the result is empty and usable.
func openMemory(path string) (*memory, error) {
	m := newMemory(path)
	if path == "" {
		return m, nil
	}
	data, err := disk.ReadFile(path, maxMemory)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = m.parse(data)
	}
	if err != nil {
		return newMemory(path), fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// parse fills an empty memory.
func (m *memory) parse(data []byte) error {
	var f memoryFile
	if err := json.Unmarshal(data, &f); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
	}
	if f.Version != memoryVersion || len(f.Peers) > maxStandings || len(f.Condemned) > maxCondemned || len(f.Silent) > maxStandings || len(f.Trials) > maxTrials {
		return fmt.Errorf("%w: version %d or too many entries", storage.ErrCorrupt, f.Version)
	}
	for peer, s := range f.Peers {
		standing, err := s.standing()
		if err != nil {
			return err
		}
		m.standings[peer] = standing
	}
	for _, c := range f.Condemned {
		shard, err := storage.ParseShardID(c.Shard)
		if err != nil {
			return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
		}
		m.condemned[place{c.Peer, shard}] = time.Unix(c.At, 0)
	}
	for peer, at := range f.Silent {
		m.silent[peer] = time.Unix(at, 0)
	}
	for _, t := range f.Trials {
		shard, err := storage.ParseShardID(t.Shard)
		if err != nil || t.Proofs < 0 {
			return fmt.Errorf("%w: trial of %q", storage.ErrCorrupt, t.Shard)
		}
		m.trials[shard] = trial{t.Keeper, fromUnix(t.Since), fromUnix(t.Last), t.Proofs}
	}
	return m.scrub.parse(f.Scrub)
}

func (f standingFile) standing() (*Standing, error) {
	if len(f.Counts) > len(outcomes) || len(f.Events) > maxEvents {
		return nil, fmt.Errorf("%w: standing of %d counts, %d events", storage.ErrCorrupt, len(f.Counts), len(f.Events))
	}
	s := &Standing{Counts: map[Outcome]uint64{}}
	for code, n := range f.Counts {
		if n > 0 {
			s.Counts[outcomes[code]] = n
		}
	}
	for _, e := range f.Events {
		if e[1] < 0 || e[1] >= int64(len(outcomes)) {
			return nil, fmt.Errorf("%w: outcome %d", storage.ErrCorrupt, e[1])
		}
		s.Events = append(s.Events, Event{At: time.Unix(e[0], 0), Outcome: outcomes[e[1]], Read: e[2] != 0})
	}
	return s, nil
}

func (s *scrubState) parse(f scrubFile) error {
	if f.Next != "" {
		next, err := storage.ParseShardID(f.Next)
		if err != nil {
			return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
		}
		s.next = next
	}
	s.began, s.last, s.bad = fromUnix(f.Began), fromUnix(f.Last), f.Bad
	return nil
}

func fromUnix(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

func toUnix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// save writes the file if something changed.
func (m *memory) save() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirty || m.path == "" {
		return nil
	}
	data, err := m.encode()
	if err != nil {
		return err
	}
	if err := disk.WriteFile(m.path, data, 0o600); err != nil {
		return fmt.Errorf("what is known of other peers: %w", err)
	}
	m.dirty = false
	return nil
}

func (m *memory) encode() ([]byte, error) {
	f := memoryFile{Version: memoryVersion, Peers: map[grid.PeerID]standingFile{}, Silent: map[grid.PeerID]int64{}, Scrub: scrubFile{Began: toUnix(m.scrub.began), Last: toUnix(m.scrub.last), Bad: m.scrub.bad}}
	if m.scrub.next != (storage.ShardID{}) {
		f.Scrub.Next = m.scrub.next.String()
	}
	for peer, s := range m.standings {
		f.Peers[peer] = s.file()
	}
	for at, when := range m.condemned {
		f.Condemned = append(f.Condemned, condemnedFile{at.peer, at.shard.String(), when.Unix()})
	}
	slices.SortFunc(f.Condemned, func(a, b condemnedFile) int { return cmp.Or(cmp.Compare(a.Shard, b.Shard), a.Peer.Compare(b.Peer)) })
	for peer, at := range m.silent {
		f.Silent[peer] = at.Unix()
	}
	for shard, t := range m.trials {
		f.Trials = append(f.Trials, trialFile{shard.String(), t.keeper, toUnix(t.since), toUnix(t.last), t.proofs})
	}
	slices.SortFunc(f.Trials, func(a, b trialFile) int { return cmp.Compare(a.Shard, b.Shard) })
	return json.Marshal(f)
}

func (s *Standing) file() standingFile {
	f := standingFile{Counts: make([]uint64, len(outcomes)), Events: [][3]int64{}}
	for code, o := range outcomes {
		f.Counts[code] = s.Counts[o]
	}
	for _, e := range s.Events {
		read := int64(0)
		if e.Read {
			read = 1
		}
		f.Events = append(f.Events, [3]int64{e.At.Unix(), int64(slices.Index(outcomes[:], e.Outcome)), read})
	}
	return f
}

// note remembers a challenge; a fault condemns the shard there, a success
// acquits it.
func (m *memory) note(peer grid.PeerID, shard storage.ShardID, e Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.standings[peer]
	if s == nil {
		if len(m.standings) >= maxStandings {
			return
		}
		s = &Standing{}
		m.standings[peer] = s
	}
	s.note(e)
	switch at := (place{peer, shard}); {
	case e.Outcome.faulty():
		if len(m.condemned) >= maxCondemned {
			m.expire(e.At)
		}
		if len(m.condemned) < maxCondemned {
			m.condemned[at] = e.At
		}
	case e.Outcome == OutcomeSuccess:
		delete(m.condemned, at)
	}
	m.dirty = true
}

// faultySince reports whether a peer failed a challenge at that time or later.
func (m *memory) faultySince(peer grid.PeerID, since time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.standings[peer]
	return s != nil && slices.ContainsFunc(s.Events, func(e Event) bool { return e.Outcome.faulty() && !e.At.Before(since) })
}

// expire forgets old judgements.
func (m *memory) expire(now time.Time) {
	maps.DeleteFunc(m.condemned, func(_ place, at time.Time) bool {
		old := now.Sub(at) > condemnedFor
		m.dirty = m.dirty || old
		return old
	})
}

// distrust returns a function that says whether a peer's word about a shard
// counts for nothing, as of now.
func (m *memory) distrust(now time.Time) func(grid.PeerID, storage.ShardID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(now)
	condemned, bad := maps.Clone(m.condemned), map[grid.PeerID]bool{}
	for peer, s := range m.standings {
		if s.Grade(now) == GradeBad {
			bad[peer] = true
		}
	}
	return func(peer grid.PeerID, shard storage.ShardID) bool {
		_, guilty := condemned[place{peer, shard}]
		return guilty || bad[peer]
	}
}

// grade returns that of one peer.
func (m *memory) grade(peer grid.PeerID, now time.Time) Grade {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.standings[peer]; s != nil {
		return s.Grade(now)
	}
	return GradeNew
}

// report describes one peer.
func (m *memory) report(peer grid.PeerID, now time.Time) Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.standings[peer]; s != nil {
		return s.report(peer, now)
	}
	return Standing{}.report(peer, now)
}

// heard notes which of the members that should have answered did; keep forgets
// who is no member.
func (m *memory) heard(answered, silent map[grid.PeerID]bool, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for peer := range answered {
		if _, was := m.silent[peer]; was {
			delete(m.silent, peer)
			m.dirty = true
		}
	}
	for peer := range silent {
		if _, was := m.silent[peer]; !was && !answered[peer] && len(m.silent) < maxStandings {
			m.silent[peer] = now
			m.dirty = true
		}
	}
}

// keep forgets peers for which member is false.
func (m *memory) keep(member func(grid.PeerID) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.standings) + len(m.silent) + len(m.condemned) + len(m.trials)
	maps.DeleteFunc(m.standings, func(peer grid.PeerID, _ *Standing) bool { return !member(peer) })
	maps.DeleteFunc(m.silent, func(peer grid.PeerID, _ time.Time) bool { return !member(peer) })
	maps.DeleteFunc(m.condemned, func(at place, _ time.Time) bool { return !member(at.peer) })
	maps.DeleteFunc(m.trials, func(_ storage.ShardID, t trial) bool { return !member(t.keeper) })
	m.dirty = m.dirty || before != len(m.standings)+len(m.silent)+len(m.condemned)+len(m.trials)
}

// silentSince returns since when members have not answered that gossip hears.
func (m *memory) silentSince() map[grid.PeerID]time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.silent)
}

// acquit lets a peer have a shard again.
func (m *memory) acquit(peer grid.PeerID, shard storage.ShardID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.condemned, place{peer, shard})
	m.dirty = true
}

// trial returns how far the holder of another copy of a shard is; the zero trial
// when it has not begun.
func (m *memory) trial(id storage.ShardID) trial {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trials[id]
}

// tries reports whether a trial is under way.
func (m *memory) tries(id storage.ShardID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, known := m.trials[id]
	return known
}

// roomFor reports whether a trial can be remembered. When there are too many, those
// with which nobody goes on are forgotten.
func (m *memory) roomFor(id storage.ShardID, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.trials[id]; known || len(m.trials) < maxTrials {
		return true
	}
	maps.DeleteFunc(m.trials, func(_ storage.ShardID, old trial) bool { return now.Sub(old.last) > condemnedFor })
	return len(m.trials) < maxTrials
}

// setTrial remembers how far it is; see roomFor.
func (m *memory) setTrial(id storage.ShardID, t trial) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.trials[id]; known || len(m.trials) < maxTrials {
		m.trials[id], m.dirty = t, true
	}
}

func (m *memory) endTrial(id storage.ShardID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.trials[id]; known {
		delete(m.trials, id)
		m.dirty = true
	}
}

func (m *memory) scrubState() scrubState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.scrub
}

func (m *memory) setScrub(s scrubState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scrub, m.dirty = s, true
}
