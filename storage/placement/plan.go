package placement

import (
	"fmt"

	"gotong/grid"
	"gotong/storage"
)

// Plan says who is to hold each shard of one segment.
type Plan struct {
	Redundancy storage.Redundancy
	Peers      []grid.PeerID // by shard
	Sites      int           // how many different sites they are on
	Problem    string        // what could not be kept to, in words; empty: nothing

	shardBytes uint64
	ranked     []Candidate
	chosen     []int // index into ranked, by shard
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
		Peers:      make([]grid.PeerID, 0, r.N),
		shardBytes: uint64(max(shardBytes, 0)),
		chosen:     make([]int, 0, r.N),
	}
	p.ranked = rank(seed, p.shardBytes, candidates)
	if len(p.ranked) == 0 {
		return nil, fmt.Errorf("placement: no peer has room for a shard of %d bytes: %w", shardBytes, storage.ErrTooFewPeers)
	}
	for shard := range r.N {
		i := p.next()
		if i < 0 {
			return nil, fmt.Errorf("placement: %d shards of %d bytes fit, %d needed: %w", shard, shardBytes, r.N, storage.ErrTooFewPeers)
		}
		p.chosen = append(p.chosen, i)
		p.Peers = append(p.Peers, p.ranked[i].Peer)
	}
	p.describe()
	return p, nil
}

// next returns the best candidate for one more shard: on the site that is
// least above its limit, then the peer with the fewest shards, then the
// highest score. −1: nobody has room.
func (p *Plan) next() int {
	onSite, onPeer := p.load()
	best, bestOver, bestShards := -1, 0, 0
	for i, c := range p.ranked {
		shards := onPeer[c.Peer]
		if c.Free/uint64(shards+1) < p.shardBytes {
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
		onSite[p.ranked[i].Site]++
		onPeer[p.ranked[i].Peer]++
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
