package membership

import (
	"context"
	"time"

	"gotong/grid"

	"github.com/hashicorp/serf/serf"
)

// opinion is what gossip says of a peer.
type opinion struct {
	state  grid.State
	since  time.Time
	record uint64 // number of its newest record, as the peer itself says
}

// rosterEvent is the name of the user event that says that the roster changed.
const rosterEvent = "roster"

// drain empties Serf's event channel and does nothing that could wait: Serf
// sends while it holds the lock that reading its list needs. Member events are
// hints that the list changed; user events are hints to pull the roster.
func (m *Membership) drain(events <-chan serf.Event, done <-chan struct{}) {
	for {
		select {
		case e := <-events:
			switch e := e.(type) {
			case serf.MemberEvent:
				kick(m.dirty)
			case serf.UserEvent:
				if e.Name == rosterEvent {
					m.rosterChangedAt(e.Payload)
				}
			}
		case <-done:
			return
		}
	}
}

// drainRest empties the channel once more after Serf stopped: the goroutine
// behind it may still pass on a few events, and must find room to end.
func drainRest(events <-chan serf.Event) {
	for {
		select {
		case <-events:
		default:
			return
		}
	}
}

// compareLoop compares Serf's list with what was known, on every hint and now
// and then without one.
func (m *Membership) compareLoop(ctx context.Context) {
	ticker := time.NewTicker(compareInterval)
	defer ticker.Stop()
	for {
		m.compare()
		select {
		case <-m.dirty:
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m *Membership) compare() {
	s, t, ok := m.running()
	if !ok {
		return
	}
	now := time.Now()
	next := make(map[grid.PeerID]opinion)
	for _, member := range s.Members() {
		peer, ok := peerOf(member.Name)
		if !ok || peer == m.self || !m.isMember(peer) {
			continue
		}
		o, err := judge(member)
		if err != nil {
			m.cfg.Logger.Debug("gossip tags are not usable", "peer", peer, "err", err)
		}
		o.since = now
		if o.state == grid.StateAlive {
			m.seen.note(peer, now)
		}
		next[peer] = o
	}
	m.addHidden(s, next, now)
	m.replace(next, t)
}

// addHidden adds peers that the failure detector below Serf holds for alive but
// that Serf's list lacks. Any member can make Serf drop an entry, by a forged
// leave with the order to prune, and Serf does not take it up again while the
// peer lives on.
func (m *Membership) addHidden(s *serf.Serf, next map[grid.PeerID]opinion, now time.Time) {
	for _, node := range s.Memberlist().Members() {
		peer, ok := peerOf(node.Name) // the only field that never changes
		if _, listed := next[peer]; !ok || listed || peer == m.self || !m.isMember(peer) {
			continue
		}
		next[peer] = opinion{state: grid.StateAlive, since: now}
		m.seen.note(peer, now)
	}
}

// replace puts the new opinions in place and follows up on the differences.
func (m *Membership) replace(next map[grid.PeerID]opinion, t *transport) {
	m.mu.Lock()
	if m.serf == nil { // ended meanwhile
		m.mu.Unlock()
		return
	}
	before := m.opinions
	differs := len(before) != len(next)
	for peer, o := range next {
		was, known := before[peer]
		if known && was.state == o.state {
			o.since = was.since
			next[peer] = o
		}
		differs = differs || was != o
	}
	m.opinions = next
	m.mu.Unlock()
	if !differs {
		return
	}
	m.logChanges(before, next)
	for peer, o := range next {
		if o.state == grid.StateAlive {
			t.retry(peer)
			m.wantRecord(peer, o.record)
		}
	}
	m.changed.fire()
	kick(m.rejoinKick)
}

func (m *Membership) logChanges(before, next map[grid.PeerID]opinion) {
	for peer, o := range next {
		if was, known := before[peer]; !known || was.state != o.state {
			m.cfg.Logger.Info("peer is "+string(o.state), "peer", peer)
		}
	}
	for peer, o := range before {
		if _, known := next[peer]; !known && o.state == grid.StateAlive {
			m.cfg.Logger.Info("peer is gone", "peer", peer)
		}
	}
}

// judge makes an opinion of one entry of Serf's list. Whoever left gossip may
// just have been switched off; only its own tag says that it does not return.
func judge(member serf.Member) (opinion, error) {
	t, err := parseTags(member.Tags)
	o := opinion{state: grid.StateAway, record: t.record}
	switch {
	case member.Status == serf.StatusAlive && t.state != stateStopping && t.state != stateLeaving:
		o.state = grid.StateAlive
	case t.state == stateLeaving:
		o.state = grid.StateLeft
	}
	return o, err
}

func peerOf(name string) (grid.PeerID, bool) {
	peer, err := grid.ParsePeerID(name)
	return peer, err == nil
}
