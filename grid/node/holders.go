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
	loads map[grid.PeerID]knownLoad // none older than seenLately
}

// knownLoad is what a peer said of its free space, or that it said nothing when
// it was asked: it is not asked again at once, else one that hangs would hold up
// each segment.
type knownLoad struct {
	free     uint64
	answered bool
	stale    bool // to be asked again whatever its age
	at       time.Time
}

// Shards returns the store of a peer, this one's own included.
func (h *gridHolders) Shards(id grid.PeerID) (storage.RemoteShards, error) {
	if id == h.peer.ID() {
		return h.peer.store, nil
	}
	conn, err := h.peer.clients.Conn(id)
	if err != nil {
		return nil, err
	}
	return shardrpc.NewClient(conn, id, shardrpc.ClientConfig{}), nil
}

// Members returns all active members, this peer too.
func (h *gridHolders) Members() []grid.PeerID {
	members := h.peer.roster.View().Members()
	out := make([]grid.PeerID, 0, len(members))
	for _, m := range members {
		out = append(out, m.ID)
	}
	return out
}

// Site returns the failure domain of a member, and "" for anybody else.
func (h *gridHolders) Site(id grid.PeerID) string {
	if p, ok := h.peer.membership.Peer(id); ok {
		return p.Site()
	}
	return ""
}

// seenLately is for how long a friend who is away still counts as a place for
// shards: a reboot or a weekend does not lower the redundancy of a backup.
const seenLately = 7 * 24 * time.Hour

// Candidates returns the peers that give disk on sites other than the signer's,
// or than all of the owner's while the signer is no member, each with the space
// that it said it has. Those who are away and were seen lately are marked. Who
// failed audits lately counts with a part of its pledge, or not at all while
// anybody else is here.
func (h *gridHolders) Candidates(ctx context.Context, owner grid.OwnerID, signer grid.PeerID) []placement.Candidate {
	peers := h.peer.membership.Peers()
	own := sitesOf(peers, owner, signer)
	var out, bad []placement.Candidate
	for _, p := range peers {
		away := p.State != grid.StateAlive
		gone := p.State == grid.StateLeft || (away && time.Since(p.Seen) > seenLately)
		weight := h.peer.repair.Weight(p.ID)
		refused := p.ID == h.peer.ID() && !h.peer.store.Takes(owner)
		if gone || refused || own[p.Site()] || p.Record.PledgeBytes == 0 {
			continue
		}
		pledge := max(1, uint64(weight*float64(p.Record.PledgeBytes)))
		c := placement.Candidate{Peer: p.ID, Site: p.Site(), Pledge: pledge, Free: p.Record.PledgeBytes, Away: away, Seen: p.Seen}
		if p.ID == h.peer.ID() {
			c.Free = uint64(max(h.peer.store.Free(), 0))
		}
		if weight == 0 {
			bad = append(bad, c)
		} else {
			out = append(out, c)
		}
	}
	if len(placement.Here(out)) == 0 { // better than no backup at all
		out = append(out, bad...)
	}
	h.fillFree(ctx, out)
	return out
}

// sitesOf returns the sites on which nothing of a segment may be: that of the
// peer that signed for it, else of all peers of its owner.
func sitesOf(peers []grid.Peer, owner grid.OwnerID, signer grid.PeerID) map[string]bool {
	for _, p := range peers {
		if p.ID == signer {
			return map[string]bool{p.Site(): true}
		}
	}
	sites := map[string]bool{}
	for _, p := range peers {
		if p.Owner == owner {
			sites[p.Site()] = true
		}
	}
	return sites
}

// fillFree asks those who are here and whose load is not known, and uses what
// is known of the others. Who does not answer counts with its pledge: the put
// itself will tell.
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
		h.loads[ids[i]] = knownLoad{free: load.FreeBytes, answered: err == nil, at: time.Now()}
	})
}

// forgetAnswers makes the next Candidates ask again whoever answered: a donor
// may have made room since. Who hangs is not asked earlier.
func (h *gridHolders) forgetAnswers() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, known := range h.loads {
		known.stale = known.answered
		h.loads[id] = known
	}
}

// stale returns whose load has to be asked. Of those who are away the last
// answer stands until it is too old to matter.
func (h *gridHolders) stale(candidates []placement.Candidate) []grid.PeerID {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.loads, func(_ grid.PeerID, known knownLoad) bool { return time.Since(known.at) > seenLately })
	var out []grid.PeerID
	for _, c := range candidates {
		known := h.loads[c.Peer]
		if c.Peer != h.peer.ID() && !c.Away && (known.stale || time.Since(known.at) >= loadFresh) {
			out = append(out, c.Peer)
		}
	}
	return out
}

// nameOf returns what a peer calls itself.
func (p *Peer) nameOf(id grid.PeerID) string {
	if id == p.ID() {
		return p.cfg().Name
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
