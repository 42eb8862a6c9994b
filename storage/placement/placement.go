// Package placement chooses holders. It is a pure function of what it is given:
// no clock, no randomness, no network.
//
// The choice is weighted rendezvous hashing: each candidate gets a score from
// the segment and its own PeerID, scaled by its pledge, and the highest scores
// win. A peer that appears or disappears therefore moves only the shards that
// it wins or held. Limits for each site are kept on top of that.
package placement

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/storage"
)

// Candidate is a peer that may hold shards. The peer that places is not one,
// and neither is any other on its site.
type Candidate struct {
	Peer   grid.PeerID
	Site   string
	Pledge uint64    // bytes given, in all; the weight
	Free   uint64    // bytes of the pledge still free, as far as known
	Away   bool      // not here now: it counts as a place, and gets nothing yet
	Seen   time.Time // when one that is away was here last
}

// Auto returns the redundancy for a number of other sites with free pledge.
// Without any site it returns the zero value.
func Auto(sites int) storage.Redundancy {
	for _, step := range autoTable {
		if sites >= step.sites {
			return step.redundancy
		}
	}
	return storage.Redundancy{}
}

// autoTable is ordered by falling number of sites. Site limits follow from the
// redundancy (Redundancy.PerSite), so n may exceed the number of sites.
var autoTable = []struct {
	sites      int
	redundancy storage.Redundancy
}{
	{30, storage.Redundancy{K: 10, N: 30}},
	{15, storage.Redundancy{K: 8, N: 20}},
	{10, storage.Redundancy{K: 4, N: 10}},
	{8, storage.Redundancy{K: 3, N: 8}},
	{6, storage.Redundancy{K: 2, N: 6}},
	{5, storage.Redundancy{K: 2, N: 5}},
	{4, storage.Redundancy{K: 2, N: 4}},
	{3, storage.Redundancy{K: 1, N: 3}},
	{2, storage.Redundancy{K: 1, N: 2}},
	{1, storage.Redundancy{K: 1, N: 1}},
}

// Sites counts the sites on which a candidate has room for a shard of
// shardBytes; Auto takes that number.
func Sites(candidates []Candidate, shardBytes uint64) int {
	seen := map[string]bool{}
	for _, c := range candidates {
		if c.Free >= shardBytes && c.Pledge > 0 {
			seen[c.Site] = true
		}
	}
	return len(seen)
}

// Here returns the candidates that are not away.
func Here(candidates []Candidate) []Candidate {
	return slices.DeleteFunc(slices.Clone(candidates), func(c Candidate) bool { return c.Away })
}

// rank returns the candidates with room, best first, each peer once.
func rank(seed [32]byte, shardBytes uint64, candidates []Candidate) []Candidate {
	type scored struct {
		Candidate
		score float64
	}
	all := make([]scored, 0, len(candidates))
	for _, c := range candidates {
		if c.Free < shardBytes || c.Pledge == 0 {
			continue
		}
		all = append(all, scored{c, score(seed, c)})
	}
	slices.SortFunc(all, func(a, b scored) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return a.Peer.Compare(b.Peer)
	})
	out := make([]Candidate, 0, len(all))
	seen := make(map[grid.PeerID]bool, len(all))
	for _, s := range all {
		if !seen[s.Peer] {
			seen[s.Peer] = true
			out = append(out, s.Candidate)
		}
	}
	return out
}

// score is −pledge ÷ ln u with u in (0, 1) from the hash: the chance to have
// the highest score is proportional to the pledge.
func score(seed [32]byte, c Candidate) float64 {
	const mantissa = 53
	u := (float64(rendezvous(seed, c.Peer)>>(64-mantissa)) + 0.5) / (1 << mantissa)
	return -float64(c.Pledge) / math.Log(u)
}

func rendezvous(seed [32]byte, peer grid.PeerID) uint64 {
	var key [64]byte
	copy(key[:32], seed[:])
	copy(key[32:], peer[:])
	sum := blake3.Sum256(key[:])
	return binary.BigEndian.Uint64(sum[:])
}

// Rendezvous orders peers by a seed, without weights. Every peer computes the
// same order; it says who acts first where one of several must.
func Rendezvous(seed [32]byte, peers []grid.PeerID) []grid.PeerID {
	out := slices.Clone(peers)
	slices.SortFunc(out, grid.PeerID.Compare)
	out = slices.Compact(out)
	scores := make(map[grid.PeerID]uint64, len(out))
	for _, peer := range out {
		scores[peer] = rendezvous(seed, peer)
	}
	slices.SortStableFunc(out, func(a, b grid.PeerID) int {
		switch {
		case scores[a] > scores[b]:
			return -1
		case scores[a] < scores[b]:
			return 1
		}
		return 0
	})
	return out
}

// MaxHeadHolders is on how many holders a head is kept.
const MaxHeadHolders = 8

// HeadHolders returns the at most n members that keep the heads of a vault,
// best first.
func HeadHolders(vault storage.VaultID, members []grid.PeerID, n int) []grid.PeerID {
	order := Rendezvous(vault, members)
	return order[:min(max(n, 0), len(order))]
}

// SurvivesSites returns how many sites, whichever they are, may vanish before
// fewer than k shards are left; sites has the site of each shard that is
// stored, −1 means that fewer than k are stored now.
func SurvivesSites(r storage.Redundancy, sites map[int]string) int {
	count := map[string]int{}
	for _, site := range sites {
		count[site]++
	}
	sizes := make([]int, 0, len(count))
	for _, shards := range count {
		sizes = append(sizes, shards)
	}
	slices.Sort(sizes)
	left := len(sites)
	for gone := -1; ; gone++ {
		if left < r.K || len(sizes) == 0 {
			return gone
		}
		left -= sizes[len(sizes)-1]
		sizes = sizes[:len(sizes)-1]
	}
}
