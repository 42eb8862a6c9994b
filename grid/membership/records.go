package membership

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/roster"
	gridv1 "gotong/proto/grid/v1"
)

const (
	// fetchParallel records are fetched at once.
	fetchParallel = 4
	// fetchOthers members are asked besides the subject.
	fetchOthers = 2
	// fetchTries is how often one number is tried; then the regular exchange
	// has to bring it. A number in a tag may be made up.
	fetchTries   = 6
	fetchWaitMin = 2 * time.Second
)

// UpdateRecord changes what this peer says of itself. change gets the present
// record; peer, number, time and what the machine says are filled in. If
// nothing else changed, nothing is signed. The new record is durable when
// UpdateRecord returns and spreads while Run runs.
func (m *Membership) UpdateRecord(change func(*grid.Record)) error {
	m.signing.Lock()
	defer m.signing.Unlock()
	present, _, known := m.cfg.Records.Get(m.self)
	next := present
	next.Addresses = slices.Clone(present.Addresses)
	change(&next)
	return m.signRecord(present, next, known)
}

// signRecord signs next with a number above present. The caller holds
// m.signing.
func (m *Membership) signRecord(present, next grid.Record, known bool) error {
	next.Peer, next.Number, next.Created = m.self, present.Number, present.Created
	next.OS, next.Arch = runtime.GOOS, runtime.GOARCH
	next.Version = m.cfg.Version
	next.BoxKey = m.cfg.Node.BoxKey().PublicKey().Bytes()
	if known && reflect.DeepEqual(next, present) {
		m.own = present
		return nil
	}
	now := time.Now().Truncate(time.Second).UTC()
	// At least the time: a home restored from an old copy still signs numbers
	// above those that it has forgotten.
	next.Number = max(present.Number+1, uint64(max(now.Unix(), 0)))
	next.Created = now
	encoded, err := roster.SignRecord(m.cfg.Node, next)
	if err != nil {
		return fmt.Errorf("membership: sign own record: %w", err)
	}
	if _, err := m.cfg.Records.Put(encoded, m.cfg.Roster.View()); err != nil {
		return fmt.Errorf("membership: store own record: %w", err)
	}
	m.own = next
	kick(m.retag)
	m.recordsChanged()
	return nil
}

// reclaim signs anew when others hold a higher own record than this process
// signed: the home was restored from an older copy. What it says now stands.
func (m *Membership) reclaim() error {
	m.signing.Lock()
	defer m.signing.Unlock()
	present, _, _ := m.cfg.Records.Get(m.self)
	if present.Number <= m.own.Number {
		return nil
	}
	return m.signRecord(present, m.own, false)
}

func (m *Membership) recordsChanged() {
	if m.cfg.Directory != nil {
		m.cfg.Directory.touch()
	}
	m.changed.fire()
	kick(m.rejoinKick)
}

// takeRecords stores records that another member gave. Those of peers that the
// roster does not list are left out: the roster may come later, and with it the
// record again.
func (m *Membership) takeRecords(encoded [][]byte) (changed bool, err error) {
	kept, err := m.cfg.Records.PutAll(encoded, m.cfg.Roster.View())
	if kept == 0 {
		return false, err
	}
	m.recordsChanged()
	if reclaimErr := m.reclaim(); reclaimErr != nil {
		m.cfg.Logger.Warn("own record is not signed anew", "err", reclaimErr)
	}
	return true, err
}

// tags returns this peer's gossip tags.
func (m *Membership) tags() tags {
	own, _, _ := m.cfg.Records.Get(m.self)
	m.mu.Lock()
	defer m.mu.Unlock()
	return tags{version: m.cfg.Version, state: m.state, record: own.Number}
}

// tagLoop puts the number of the own record into the gossip tags when it
// changed, and gives the record itself to some members.
func (m *Membership) tagLoop(ctx context.Context) {
	for {
		select {
		case <-m.retag:
		case <-ctx.Done():
			return
		}
		m.setTags()
		_, encoded, _ := m.cfg.Records.Get(m.self)
		m.eachOf(m.alive(), func(peer grid.PeerID) {
			if err := m.offerRecords(ctx, peer, [][]byte{encoded}); err != nil {
				m.cfg.Logger.Debug("own record not given", "peer", peer, "err", err)
			}
		})
	}
}

func (m *Membership) setTags() {
	m.tagging.take()
	defer m.tagging.give()
	s, _, ok := m.running()
	if !ok {
		return
	}
	if err := s.SetTags(m.tags().encode()); err != nil {
		m.cfg.Logger.Debug("gossip tags have not left yet", "err", err)
	}
}

func (m *Membership) offerRecords(ctx context.Context, peer grid.PeerID, records [][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	client, err := m.cfg.Clients(peer)
	if err != nil {
		return fmt.Errorf("records: %w", err)
	}
	if _, err := client.OfferRecords(ctx, &gridv1.OfferRecordsRequest{Records: records}); err != nil {
		return fmt.Errorf("records: %w", err)
	}
	return nil
}

// syncRecords exchanges records with one peer until neither has newer ones.
func (m *Membership) syncRecords(ctx context.Context, peer grid.PeerID) error {
	client, err := m.cfg.Clients(peer)
	if err != nil {
		return fmt.Errorf("records: %w", err)
	}
	for range syncRounds {
		more, err := m.recordsRound(ctx, peer, client)
		if err != nil {
			return fmt.Errorf("records: %w", err)
		}
		if !more {
			break
		}
	}
	return nil
}

func (m *Membership) recordsRound(ctx context.Context, peer grid.PeerID, client gridv1.GridClient) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	answer, err := client.Records(ctx, &gridv1.RecordsRequest{Have: m.recordNumbers()})
	if err != nil {
		return false, err
	}
	more, err = m.takeRecords(answer.GetRecords())
	if err != nil {
		m.cfg.Logger.Debug("record not taken", "peer", peer, "err", err)
	}
	wanted, err := parsePeers(answer.GetWant())
	if err != nil {
		return false, err
	}
	var offer [][]byte
	for _, id := range wanted {
		if _, encoded, ok := m.cfg.Records.Get(id); ok {
			offer = append(offer, encoded)
		}
	}
	if offer = limitBytes(offer); len(offer) == 0 {
		return more, nil
	}
	_, err = client.OfferRecords(ctx, &gridv1.OfferRecordsRequest{Records: offer})
	return err == nil && (more || len(offer) < len(wanted)), err
}

func (m *Membership) recordNumbers() []*gridv1.RecordNumber {
	var have []*gridv1.RecordNumber
	for _, member := range m.cfg.Roster.View().Members() {
		if r, _, ok := m.cfg.Records.Get(member.ID); ok {
			have = append(have, &gridv1.RecordNumber{Peer: member.ID[:], Number: r.Number})
		}
	}
	return have
}

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
	if r, _, _ := m.cfg.Records.Get(peer); r.Number >= number {
		return
	}
	m.wanted.mu.Lock()
	defer m.wanted.mu.Unlock()
	if w := m.wanted.peers[peer]; w == nil || w.number < number {
		m.wanted.peers[peer] = &want{number: number}
		kick(m.wanted.wake)
	}
}

// due returns the peers whose records are to be fetched now, else how long to
// wait.
func (w *wanted) due(now time.Time) (due []grid.PeerID, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wait = rejoinIdle
	for peer, p := range w.peers {
		if until := p.next.Sub(now); until > 0 {
			wait = min(wait, until)
		} else if len(due) < fetchParallel {
			due = append(due, peer)
		}
	}
	return due, wait
}

// tried notes the outcome of a fetch.
func (w *wanted) tried(peer grid.PeerID, have uint64, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.peers[peer]
	if p == nil {
		return
	}
	p.next = now.Add(fetchWaitMin << p.tries)
	p.tries++
	if have >= p.number || p.tries >= fetchTries {
		delete(w.peers, peer)
	}
}

func (m *Membership) fetchLoop(ctx context.Context) {
	for {
		due, wait := m.wanted.due(time.Now())
		var wg sync.WaitGroup
		for _, peer := range due {
			wg.Go(func() { m.fetchRecord(ctx, peer) })
		}
		wg.Wait()
		if len(due) > 0 && ctx.Err() == nil {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-m.wanted.wake:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// fetchRecord asks the subject of a record and some others for a newer one.
func (m *Membership) fetchRecord(ctx context.Context, peer grid.PeerID) {
	before, _, _ := m.cfg.Records.Get(peer)
	others := slices.DeleteFunc(m.alive(), func(p grid.PeerID) bool { return p == peer })
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	var have uint64
	for _, from := range append([]grid.PeerID{peer}, others[:min(len(others), fetchOthers)]...) {
		if err := m.askRecord(ctx, from, peer); err != nil {
			m.cfg.Logger.Debug("record not fetched", "peer", from, "subject", peer, "err", err)
		}
		r, _, _ := m.cfg.Records.Get(peer)
		if have = r.Number; have > before.Number {
			break
		}
	}
	m.wanted.tried(peer, have, time.Now())
}

func (m *Membership) askRecord(ctx context.Context, from, subject grid.PeerID) error {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	client, err := m.cfg.Clients(from)
	if err != nil {
		return err
	}
	present, _, _ := m.cfg.Records.Get(subject)
	answer, err := client.Records(ctx, &gridv1.RecordsRequest{
		Peers: [][]byte{subject[:]},
		Have:  []*gridv1.RecordNumber{{Peer: subject[:], Number: present.Number}},
	})
	if err != nil {
		return err
	}
	_, err = m.takeRecords(answer.GetRecords())
	return err
}
