package membership

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"gotong/grid"
)

const (
	// fetchFrom members are asked in one round.
	fetchFrom = 3
	// fetchTries is how often one number is tried; then the regular exchange
	// has to bring it. A number in a tag may be made up.
	fetchTries   = 6
	fetchWaitMin = time.Second
	// fetchIdle is how long the loop waits when nothing is wanted.
	fetchIdle = time.Minute
)

// wanted are records of which a tag says that they are newer than those here.
type wanted struct {
	mu    sync.Mutex
	peers map[grid.PeerID]*want // as many as there are members
	wake  chan struct{}
}

type want struct {
	number uint64
	tries  int
	next   time.Time
}

func newWanted() *wanted {
	return &wanted{peers: make(map[grid.PeerID]*want), wake: make(chan struct{}, 1)}
}

// wantRecord asks for the record with that number, or a newer one.
func (m *Membership) wantRecord(peer grid.PeerID, number uint64) {
	if m.recordNumber(peer) >= number {
		return
	}
	m.wanted.mu.Lock()
	defer m.wanted.mu.Unlock()
	if w := m.wanted.peers[peer]; w == nil || w.number < number {
		m.wanted.peers[peer] = &want{number: number}
		kick(m.wanted.wake)
	}
}

func (m *Membership) recordNumber(peer grid.PeerID) uint64 {
	r, _, _ := m.cfg.Records.Get(peer)
	return r.Number
}

// addressesOf returns where the peer says that it is.
func (m *Membership) addressesOf(peer grid.PeerID) []string {
	r, _, _ := m.cfg.Records.Get(peer)
	return r.Addresses
}

// settle forgets what has arrived or was tried too often, and returns the peers
// whose records are to be fetched now, else how long to wait.
func (w *wanted) settle(have func(grid.PeerID) uint64, now time.Time) (due []grid.PeerID, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.peers, func(peer grid.PeerID, p *want) bool {
		return have(peer) >= p.number || p.tries >= fetchTries
	})
	wait = fetchIdle
	for peer, p := range w.peers {
		if until := p.next.Sub(now); until > 0 {
			wait = min(wait, until)
			continue
		}
		due = append(due, peer)
		p.next = now.Add(fetchWaitMin << p.tries)
		p.tries++
	}
	return due, wait
}

func (m *Membership) fetchLoop(ctx context.Context) {
	for ctx.Err() == nil {
		due, wait := m.wanted.settle(m.recordNumber, time.Now())
		if len(due) > 0 {
			m.fetch(ctx, due)
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-m.wanted.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// fetch exchanges records with some members until all that is due is here: with
// random ones whose address is known, since nobody else can be asked, and last
// with one of the subjects.
func (m *Membership) fetch(ctx context.Context, due []grid.PeerID) {
	from := slices.DeleteFunc(m.alive(), func(peer grid.PeerID) bool {
		return len(m.addressesOf(peer)) == 0 || peer == due[0]
	})
	rand.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
	from = append(from[:min(len(from), fetchFrom-1)], due[0])
	before := make(map[grid.PeerID]uint64)
	for _, peer := range due {
		before[peer] = m.recordNumber(peer)
	}
	for _, peer := range from {
		if err := m.syncRecords(ctx, peer); err != nil {
			m.cfg.Logger.Debug("records not fetched", "peer", peer, "err", err)
		}
		due = slices.DeleteFunc(due, func(p grid.PeerID) bool { return m.recordNumber(p) > before[p] })
		if len(due) == 0 || ctx.Err() != nil {
			return
		}
	}
}
