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
	// relayFanout members are given a record that was given here. Each member
	// does so once for each new record, so that it reaches all in a few steps.
	relayFanout = 5
	// relayPause gathers records that arrive together into one message.
	relayPause = 100 * time.Millisecond
)

// relays are the subjects of records to pass on; as many as there are members.
type relays struct {
	mu    sync.Mutex
	peers map[grid.PeerID]bool
	wake  chan struct{}
}

func newRelays() *relays {
	return &relays{peers: make(map[grid.PeerID]bool), wake: make(chan struct{}, 1)}
}

func (r *relays) add(subjects []grid.PeerID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, peer := range subjects {
		r.peers[peer] = true
	}
	kick(r.wake)
}

func (r *relays) take() []grid.PeerID {
	r.mu.Lock()
	defer r.mu.Unlock()
	peers := slices.Collect(maps.Keys(r.peers))
	clear(r.peers)
	return peers
}

// relayLoop passes on what arrived.
func (m *Membership) relayLoop(ctx context.Context) {
	for {
		select {
		case <-m.relays.wake:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(rand.N(relayPause)):
		case <-ctx.Done():
			return
		}
		records := limitBytes(m.encodedRecords(m.relays.take()))
		m.eachOf(m.alive(), relayFanout, func(peer grid.PeerID) { m.giveRecords(ctx, peer, records) })
	}
}

// encodedRecords returns the records of the peers, as far as they are here.
func (m *Membership) encodedRecords(peers []grid.PeerID) (records [][]byte) {
	for _, id := range peers {
		if _, encoded, ok := m.cfg.Records.Get(id); ok {
			records = append(records, encoded)
		}
	}
	return records
}

// giveRecords offers records to a peer; whoever misses them gets them later.
func (m *Membership) giveRecords(ctx context.Context, peer grid.PeerID, records [][]byte) {
	if len(records) == 0 {
		return
	}
	if err := m.offerRecords(ctx, peer, records); err != nil {
		m.cfg.Logger.Debug("records not given", "peer", peer, "err", err)
	}
}
