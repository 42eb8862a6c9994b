package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"time"

	"gotong/grid"
	"gotong/grid/roster"
	gridv1 "gotong/proto/grid/v1"
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
	if known && saysTheSame(next, present) {
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
	return nil
}

// saysTheSame compares records but for number and time.
func saysTheSame(a, b grid.Record) bool {
	if !slices.Equal(a.Addresses, b.Addresses) || !bytes.Equal(a.BoxKey, b.BoxKey) {
		return false
	}
	for _, r := range []*grid.Record{&a, &b} {
		r.Addresses, r.BoxKey, r.Number, r.Created = nil, nil, 0, time.Time{}
	}
	return reflect.DeepEqual(a, b)
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

// takeRecords stores records that another member gave, and returns the subjects
// of those that were news. Records of peers that the roster does not list are
// left out: the roster may come later, and with it the record again.
func (m *Membership) takeRecords(encoded [][]byte) (news []grid.PeerID, err error) {
	before := make(map[grid.PeerID]uint64, len(encoded))
	for _, b := range encoded {
		if r, err := roster.ParseRecord(b); err == nil {
			present, _, _ := m.cfg.Records.Get(r.Peer)
			before[r.Peer] = present.Number
		}
	}
	if _, err = m.cfg.Records.PutAll(encoded, m.cfg.Roster.View()); err != nil {
		err = fmt.Errorf("records not taken: %w", err)
	}
	_, t, running := m.running()
	for peer, number := range before {
		if r, _, _ := m.cfg.Records.Get(peer); r.Number == number {
			continue
		}
		news = append(news, peer)
		if running {
			t.retry(peer) // at its new addresses
		}
	}
	if len(news) == 0 {
		return nil, err
	}
	return news, errors.Join(err, m.reclaim())
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
		own := m.encodedRecords([]grid.PeerID{m.self})
		m.eachOf(m.alive(), pushFanout, func(peer grid.PeerID) { m.giveRecords(ctx, peer, own) })
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
	news, err := m.takeRecords(answer.GetRecords())
	if err != nil {
		m.cfg.Logger.Debug("record not taken", "peer", peer, "err", err)
	}
	more = len(news) > 0
	wanted, err := parsePeers(answer.GetWant())
	if err != nil {
		return false, err
	}
	offer := limitBytes(m.encodedRecords(wanted))
	if len(offer) == 0 {
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
