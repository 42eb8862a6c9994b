package node

import (
	"context"
	"maps"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/membership"
	"gotong/storage"
	"gotong/storage/placement"
	"gotong/storage/shardrpc"
)

// loadFresh is how long what a peer said of its free space is believed.
const loadFresh = 30 * time.Second

// gridHolders gives the storage layer access to the other peers. It implements
// segments.Holders.
type gridHolders struct {
	peer *Peer

	mu    sync.Mutex
	loads map[grid.PeerID]knownLoad // of members only
}

// knownLoad is what a peer said of its free space, or that it said nothing when
// it was asked: it is not asked again at once, else one that hangs would hold up
// each segment.
type knownLoad struct {
	free     uint64
	answered bool
	at       time.Time
}

// Shards returns the store of another peer.
func (h *gridHolders) Shards(id grid.PeerID) (storage.RemoteShards, error) {
	conn, err := h.peer.clients.Conn(id)
	if err != nil {
		return nil, err
	}
	return shardrpc.NewClient(conn, id, shardrpc.ClientConfig{}), nil
}

// Members returns all active members but this peer.
func (h *gridHolders) Members() []grid.PeerID {
	var out []grid.PeerID
	for _, m := range h.peer.roster.View().Members() {
		if m.ID != h.peer.ID() {
			out = append(out, m.ID)
		}
	}
	return out
}

// Candidates returns the peers on other sites that are alive and give disk,
// each with the space that it said it has.
func (h *gridHolders) Candidates(ctx context.Context) []placement.Candidate {
	peers := h.peer.membership.Peers()
	site := peers[0].Site() // this peer comes first
	var out []placement.Candidate
	for _, p := range peers[1:] {
		if p.State == grid.StateAlive && p.Site() != site && p.Record.PledgeBytes > 0 {
			out = append(out, placement.Candidate{Peer: p.ID, Site: p.Site(), Pledge: p.Record.PledgeBytes, Free: p.Record.PledgeBytes})
		}
	}
	h.fillFree(ctx, out)
	return out
}

// fillFree asks those whose load is not known, and uses what is known of the
// others. Who does not answer counts with its pledge: the put itself will tell.
func (h *gridHolders) fillFree(ctx context.Context, candidates []placement.Candidate) {
	h.refresh(ctx, candidates)
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, c := range candidates {
		if known := h.loads[c.Peer]; known.answered {
			candidates[i].Free = known.free
		}
	}
}

func (h *gridHolders) refresh(ctx context.Context, candidates []placement.Candidate) {
	ids := h.stale(candidates)
	h.peer.askAll(ctx, ids, func(i int, load membership.Info, err error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.loads[ids[i]] = knownLoad{load.FreeBytes, err == nil, time.Now()}
	})
}

// forgetAnswers makes the next Candidates ask again whoever answered: a donor
// may have made room since. Who hangs is not asked earlier.
func (h *gridHolders) forgetAnswers() {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.loads, func(_ grid.PeerID, known knownLoad) bool { return known.answered })
}

// stale returns whose load has to be asked, and forgets who is no candidate.
func (h *gridHolders) stale(candidates []placement.Candidate) []grid.PeerID {
	h.mu.Lock()
	defer h.mu.Unlock()
	fresh := make(map[grid.PeerID]knownLoad, len(candidates))
	var out []grid.PeerID
	for _, c := range candidates {
		if known, ok := h.loads[c.Peer]; ok && time.Since(known.at) < loadFresh {
			fresh[c.Peer] = known
		} else {
			out = append(out, c.Peer)
		}
	}
	h.loads = fresh
	return out
}

// nameOf returns what a peer calls itself.
func (p *Peer) nameOf(id grid.PeerID) string {
	if id == p.ID() {
		return p.cfg.Name
	}
	if record, _, ok := p.records.Get(id); ok && record.Name != "" {
		return record.Name
	}
	return id.Short()
}

// forget lets a peer be asked anew what it has room for.
func (h *gridHolders) forget(id grid.PeerID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.loads, id)
}
