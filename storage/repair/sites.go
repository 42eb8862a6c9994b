package repair

import (
	"gotong/grid"
	"gotong/storage"
	"gotong/storage/placement"
)

// assign chooses one holder for each shard that somebody has, so that as few
// sites as possible hold more than they should, and returns those that are too
// many where they are. It is a matching of shards to sites: duplicates of a
// shard elsewhere count. All peers that see the same choose the same.
func assign(r storage.Redundancy, good [][]grid.PeerID, scene Scene) (chosen, crowded []storage.Holder) {
	m := matching{limit: r.PerSite(), good: good, scene: scene, on: map[string][]int{}, peer: make([]grid.PeerID, len(good))}
	for shard := range good {
		m.place(shard, map[string]bool{})
	}
	for shard, peers := range good {
		switch {
		case len(peers) == 0:
		case !m.peer[shard].IsZero():
			chosen = append(chosen, storage.Holder{Shard: shard, Peer: m.peer[shard]})
		default:
			h := storage.Holder{Shard: shard, Peer: peers[0]}
			chosen, crowded = append(chosen, h), append(crowded, h)
		}
	}
	return chosen, crowded
}

// matching gives each site at most limit shards.
type matching struct {
	limit int
	good  [][]grid.PeerID
	scene Scene
	on    map[string][]int // shards by site
	peer  []grid.PeerID    // by shard; zero: not placed
}

// place finds a site for a shard, moving others along a path if it must.
func (m *matching) place(shard int, tried map[string]bool) bool {
	for _, peer := range m.good[shard] {
		site := m.scene.Peers[peer].Site()
		if tried[site] {
			continue
		}
		tried[site] = true
		if len(m.on[site]) < m.limit {
			m.on[site] = append(m.on[site], shard)
			m.peer[shard] = peer
			return true
		}
		for i, other := range m.on[site] {
			if m.place(other, tried) {
				m.on[site][i] = shard
				m.peer[shard] = peer
				return true
			}
		}
	}
	return false
}

// Survives returns how many sites may vanish, whichever they are, before the
// shards that can be read now no longer suffice; −1 when they do not now.
func (v Verdict) Survives(r storage.Redundancy, peers map[grid.PeerID]grid.Peer) int {
	sites := map[int]string{}
	for _, h := range v.Good {
		sites[h.Shard] = peers[h.Peer].Site()
	}
	return placement.SurvivesSites(r, sites)
}
