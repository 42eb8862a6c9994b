package placement

import (
	"fmt"

	"gotong/grid"
	"gotong/storage"
)

// Plan says who is to hold each shard of one segment, and who comes next when
// one of them refuses. It is not for concurrent use.
type Plan struct {
	Redundancy storage.Redundancy
	Peers      []grid.PeerID // by shard
	Sites      int           // how many different sites they are on
	Problem    string        // what could not be kept to, in words; empty: nothing

	shardBytes uint64
	ranked     []Candidate
	chosen     []int // index into ranked, by shard; −1: nobody
	refused    map[grid.PeerID]bool
}

// Choose picks a holder for each of the n shards of a segment: one shard to a
// peer and at most Redundancy.PerSite to a site where there is a choice, else
// more, which Problem then says. The seed is the SegmentID. Nobody gets more
// than fits; when n shards do not fit the error is storage.ErrTooFewPeers.
func Choose(seed [32]byte, r storage.Redundancy, shardBytes int, candidates []Candidate) (*Plan, error) {
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("placement: %w", err)
	}
	p := &Plan{
		Redundancy: r,
		Peers:      make([]grid.PeerID, r.N),
		shardBytes: uint64(max(shardBytes, 0)),
		chosen:     make([]int, r.N),
		refused:    map[grid.PeerID]bool{},
	}
	p.ranked = rank(seed, p.shardBytes, candidates)
	if len(p.ranked) == 0 {
		return nil, fmt.Errorf("placement: no peer has room for a shard of %d bytes: %w", shardBytes, storage.ErrTooFewPeers)
	}
	for shard := range p.chosen {
		p.chosen[shard] = -1
	}
	for shard := range p.chosen {
		i := p.next()
		if i < 0 {
			return nil, fmt.Errorf("placement: %d shards of %d bytes fit, %d needed: %w", shard, shardBytes, r.N, storage.ErrTooFewPeers)
		}
		p.assign(shard, i)
	}
	p.describe()
	return p, nil
}

// Refuse notes that the holder of a shard does not take it, now or at all, and
// names another one that has refused nothing: ok is false when nobody is left.
func (p *Plan) Refuse(shard int) (next grid.PeerID, ok bool) {
	if i := p.chosen[shard]; i >= 0 {
		p.refused[p.ranked[i].Peer] = true
		p.chosen[shard], p.Peers[shard] = -1, grid.PeerID{}
	}
	i := p.next()
	if i < 0 {
		return grid.PeerID{}, false
	}
	p.assign(shard, i)
	p.describe()
	return p.Peers[shard], true
}

// Site returns the site of the holder of a shard; empty when it has none.
func (p *Plan) Site(shard int) string {
	if i := p.chosen[shard]; i >= 0 {
		return p.ranked[i].Site
	}
	return ""
}

func (p *Plan) assign(shard, i int) {
	p.chosen[shard] = i
	p.Peers[shard] = p.ranked[i].Peer
}

// next returns the best candidate for one more shard: on the site that is
// least above its limit, then the peer with the fewest shards, then the
// highest score. −1: nobody is left.
func (p *Plan) next() int {
	onSite, onPeer := p.load()
	best, bestOver, bestShards := -1, 0, 0
	for i, c := range p.ranked {
		shards := onPeer[c.Peer]
		if p.refused[c.Peer] || c.Free/uint64(shards+1) < p.shardBytes {
			continue
		}
		over := max(0, onSite[c.Site]+1-p.Redundancy.PerSite())
		if best < 0 || over < bestOver || (over == bestOver && shards < bestShards) {
			best, bestOver, bestShards = i, over, shards
		}
	}
	return best
}

func (p *Plan) load() (onSite map[string]int, onPeer map[grid.PeerID]int) {
	onSite, onPeer = map[string]int{}, map[grid.PeerID]int{}
	for _, i := range p.chosen {
		if i >= 0 {
			onSite[p.ranked[i].Site]++
			onPeer[p.ranked[i].Peer]++
		}
	}
	return onSite, onPeer
}

// describe says in words what the choice could not keep to.
func (p *Plan) describe() {
	onSite, _ := p.load()
	worst := 0
	for _, shards := range onSite {
		worst = max(worst, shards)
	}
	p.Sites, p.Problem = len(onSite), ""
	if limit := p.Redundancy.PerSite(); worst > limit {
		p.Problem = fmt.Sprintf("too few sites have room: of %d shards one site holds %d, where at most %d should be",
			p.Redundancy.N, worst, limit)
	}
}
