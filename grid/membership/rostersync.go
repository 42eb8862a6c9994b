package membership

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/roster"
	gridv1 "gotong/proto/grid/v1"
)

// Bounds of the exchange of roster and records.
const (
	// answerBytes of statements or records go into one message.
	answerBytes = 1 << 20
	// maxHave hashes or numbers are read from one request.
	maxHave = 1 << 16
	// syncRounds bounds one exchange with one peer.
	syncRounds = 64
	// syncTimeout bounds one call, the dial included.
	syncTimeout = 20 * time.Second
	// pushFanout members are told directly of a change; gossip tells the rest.
	pushFanout = 16
	// hintPause spreads pulls after a hint that reaches all at once.
	hintPause = 250 * time.Millisecond
	// maxHints waiting at once.
	maxHints = 64
	// askAgain is how long an unknown PeerID is not asked about again.
	askAgain = time.Minute
	// maxAsked unknown PeerIDs are remembered.
	maxAsked = 256
)

type digest = [32]byte

// hints are the members to pull the roster from, with the digest that they
// announced; and the PeerIDs that were asked about lately.
type hints struct {
	mu    sync.Mutex
	pulls map[grid.PeerID]digest
	asked map[grid.PeerID]time.Time
	wake  chan struct{}
}

func newHints() *hints {
	return &hints{pulls: make(map[grid.PeerID]digest), asked: make(map[grid.PeerID]time.Time), wake: make(chan struct{}, 1)}
}

func (h *hints) add(from grid.PeerID, d digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pulls) < maxHints {
		h.pulls[from] = d
		kick(h.wake)
	}
}

func (h *hints) take() map[grid.PeerID]digest {
	h.mu.Lock()
	defer h.mu.Unlock()
	pulls := h.pulls
	h.pulls = make(map[grid.PeerID]digest)
	return pulls
}

// mayAsk reports whether to ask about an unknown PeerID now.
func (h *hints) mayAsk(about grid.PeerID, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if last, ok := h.asked[about]; ok && now.Sub(last) < askAgain {
		return false
	}
	if len(h.asked) >= maxAsked {
		clear(h.asked)
	}
	h.asked[about] = now
	return true
}

// askAbout is told of a PeerID in gossip that the roster does not list. It runs
// under memberlist's lock. Whoever sent packets last knows more.
func (m *Membership) askAbout(peer grid.PeerID) {
	if m.cfg.Roster.View().Status(peer) != roster.StatusUnknown || !m.hints.mayAsk(peer, time.Now()) {
		return
	}
	for _, sender := range m.senders.latest() {
		m.hints.add(sender, digest{})
	}
}

// rosterPayload is the body of the user event: the digest of the roster after
// the change, and who has it.
func rosterPayload(d digest, self grid.PeerID) []byte { return append(d[:], self[:]...) }

func parseRosterPayload(b []byte) (d digest, from grid.PeerID, ok bool) {
	if len(b) != len(d)+len(from) {
		return d, from, false
	}
	copy(d[:], b)
	copy(from[:], b[len(d):])
	return d, from, true
}

// rosterChangedAt takes a hint from gossip; it does not wait.
func (m *Membership) rosterChangedAt(payload []byte) {
	d, from, ok := parseRosterPayload(payload)
	if ok && from != m.self && m.isMember(from) {
		m.hints.add(from, d)
	}
}

// hintLoop pulls the roster from whoever announced another one.
func (m *Membership) hintLoop(ctx context.Context) {
	for {
		select {
		case <-m.hints.wake:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(rand.N(hintPause)):
		case <-ctx.Done():
			return
		}
		for from, d := range m.hints.take() {
			if d == m.cfg.Roster.Digest() {
				continue
			}
			if err := m.syncWith(ctx, from); err != nil {
				m.cfg.Logger.Debug("roster not pulled", "peer", from, "err", err)
			}
		}
	}
}

// followLoop follows roster and records here, whoever changed them: it cuts
// removed peers, announces what was changed here, and tells all who look.
func (m *Membership) followLoop(ctx context.Context) {
	for {
		rosterChanged, recordsChanged := m.cfg.Roster.Changed(), m.cfg.Records.Changed()
		if _, t, ok := m.running(); ok {
			t.retain()
		}
		m.refreshed()
		if m.madeHere() {
			m.AnnounceRoster()
		}
		select {
		case <-rosterChanged:
		case <-recordsChanged:
		case <-ctx.Done():
			return
		}
	}
}

// refreshed tells everyone who looks at members or addresses that they changed.
func (m *Membership) refreshed() {
	if m.cfg.Directory != nil {
		m.cfg.Directory.touch()
	}
	m.changed.fire()
	kick(m.dirty)
	kick(m.rejoinKick)
}

// madeHere reports whether the roster holds changes that did not come from
// another member, and takes note of them.
func (m *Membership) madeHere() bool {
	m.merging.Lock()
	defer m.merging.Unlock()
	d := m.cfg.Roster.Digest()
	made := d != m.learnt
	m.learnt = d
	return made
}

// AnnounceRoster tells the others that the roster changed here: a hint by
// gossip to all, and soon the change itself to some. Run does so by itself after
// each change. It does not wait.
func (m *Membership) AnnounceRoster() {
	s, _, ok := m.running()
	if !ok {
		return
	}
	payload := rosterPayload(m.cfg.Roster.Digest(), m.self)
	if err := s.UserEvent(rosterEvent, payload, false); err != nil {
		m.cfg.Logger.Warn("change of the roster is not announced", "err", err)
	}
	kick(m.give)
}

// giveLoop gives changes that were made here to some members directly.
func (m *Membership) giveLoop(ctx context.Context) {
	for {
		select {
		case <-m.give:
		case <-ctx.Done():
			return
		}
		m.eachOf(m.alive(), pushFanout, func(peer grid.PeerID) {
			if err := m.syncWith(ctx, peer); err != nil {
				m.cfg.Logger.Debug("roster not given", "peer", peer, "err", err)
			}
		})
	}
}

// eachOf calls f for up to most random peers at once and waits.
func (m *Membership) eachOf(peers []grid.PeerID, most int, f func(grid.PeerID)) {
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	var wg sync.WaitGroup
	for _, peer := range peers[:min(len(peers), most)] {
		wg.Go(func() { f(peer) })
	}
	wg.Wait()
}

// syncLoop exchanges everything with one random member now and then: what
// hints missed arrives by this.
func (m *Membership) syncLoop(ctx context.Context) {
	for {
		wait := m.cfg.Timers.Sync
		select {
		case <-time.After(wait/2 + rand.N(wait)):
		case <-ctx.Done():
			return
		}
		alive := m.alive()
		if len(alive) == 0 {
			continue
		}
		peer := alive[rand.N(len(alive))]
		if err := m.syncWith(ctx, peer); err != nil {
			m.cfg.Logger.Debug("exchange failed", "peer", peer, "err", err)
		}
	}
}

// syncWith exchanges roster and records with one peer.
func (m *Membership) syncWith(ctx context.Context, peer grid.PeerID) error {
	if err := m.syncRoster(ctx, peer); err != nil {
		return err
	}
	return m.syncRecords(ctx, peer)
}

// syncRoster exchanges statements with one peer until both have the same, or
// one takes no more.
func (m *Membership) syncRoster(ctx context.Context, peer grid.PeerID) error {
	client, err := m.cfg.Clients(peer)
	if err != nil {
		return fmt.Errorf("roster: %w", err)
	}
	for range syncRounds {
		more, err := m.rosterRound(ctx, client)
		if err != nil {
			return fmt.Errorf("roster: %w", err)
		}
		if !more {
			break
		}
	}
	return nil
}

func (m *Membership) rosterRound(ctx context.Context, client gridv1.GridClient) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	own := m.cfg.Roster.Digest()
	answer, err := client.SyncRoster(ctx, &gridv1.SyncRosterRequest{Digest: own[:], Have: hashList(m.cfg.Roster.Hashes())})
	if err != nil {
		return false, err
	}
	if slices.Equal(answer.GetDigest(), own[:]) {
		return false, nil
	}
	added, err := m.mergeStatements(answer.GetStatements())
	if err != nil {
		return false, err
	}
	wanted, err := parseHashes(answer.GetWant())
	if err != nil {
		return false, err
	}
	offer := limitBytes(m.cfg.Roster.Statements(wanted))
	if len(offer) > 0 {
		if _, err := client.Offer(ctx, &gridv1.OfferRequest{Statements: offer}); err != nil {
			return false, err
		}
	}
	return added > 0 || len(offer) > 0, nil
}

// mergeStatements adds what another member gave, and remembers that it did not
// arise here.
func (m *Membership) mergeStatements(statements [][]byte) (added int, err error) {
	if len(statements) == 0 {
		return 0, nil
	}
	m.merging.Lock()
	defer m.merging.Unlock()
	before := m.cfg.Roster.Digest()
	added, err = m.cfg.Roster.Merge(statements)
	if before == m.learnt { // else something made here is still to be announced
		m.learnt = m.cfg.Roster.Digest()
	}
	return added, err
}

// limitBytes returns the first elements that fit into one message, at least one.
func limitBytes(list [][]byte) [][]byte {
	total := 0
	for i, b := range list {
		total += len(b)
		if total > answerBytes && i > 0 {
			return list[:i]
		}
	}
	return list
}
