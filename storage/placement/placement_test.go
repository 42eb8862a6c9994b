package placement_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/storage"
	"gotong/storage/placement"
)

const shardBytes = 1000

func peer(i int) grid.PeerID { return blake3.Sum256(fmt.Append(nil, "peer ", i)) }

func seed(i int) [32]byte { return blake3.Sum256(fmt.Append(nil, "segment ", i)) }

// group makes peers on sites, all with the same pledge and room for many shards.
func group(peers, sites int) []placement.Candidate {
	out := make([]placement.Candidate, peers)
	for i := range out {
		out[i] = placement.Candidate{Peer: peer(i), Site: fmt.Sprint("site ", i%sites), Pledge: 1 << 30, Free: 1 << 30}
	}
	return out
}

func choose(t require, s [32]byte, r storage.Redundancy, candidates []placement.Candidate) *placement.Plan {
	plan, err := placement.Choose(s, r, shardBytes, candidates)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

type require interface{ Fatal(args ...any) }

func TestAuto(t *testing.T) {
	want := map[int]string{
		0: "0+0", 1: "1+0", 2: "1+1", 3: "1+2", 4: "2+2", 5: "2+3", 6: "2+4", 7: "2+4", 8: "3+5", 9: "3+5",
		10: "4+6", 14: "4+6", 15: "8+12", 24: "8+12", 25: "8+12", 29: "8+12", 30: "10+20", 1000: "10+20",
	}
	for sites, r := range want {
		if got := placement.Auto(sites); got.String() != r {
			t.Errorf("%d sites: %s, want %s", sites, got, r)
		}
	}
}

// TestAutoKeepsSiteLimits: on its own number of sites the automatic choice
// never needs an exception.
func TestAutoKeepsSiteLimits(t *testing.T) {
	for sites := 1; sites <= 40; sites++ {
		r := placement.Auto(sites)
		if plan := choose(t, seed(sites), r, group(sites, sites)); plan.Problem != "" {
			t.Errorf("%s on %d sites: %s", r, sites, plan.Problem)
		}
	}
}

func drawCandidates(t *rapid.T) []placement.Candidate {
	out := group(rapid.IntRange(1, 60).Draw(t, "peers"), rapid.IntRange(1, 40).Draw(t, "sites"))
	for i := range out {
		out[i].Pledge = rapid.Uint64Range(1, 1<<40).Draw(t, "pledge")
		out[i].Free = rapid.Uint64Range(0, 40*shardBytes).Draw(t, "free")
	}
	return out
}

func drawRedundancy(t *rapid.T) storage.Redundancy {
	n := rapid.IntRange(1, storage.MaxShards).Draw(t, "n")
	return storage.Redundancy{K: rapid.IntRange(1, n).Draw(t, "k"), N: n}
}

// TestBounds: nobody gets more than fits, a site gets more than its limit only
// when the sites with room cannot take n within it, and this is said.
func TestBounds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		candidates, r := drawCandidates(rt), drawRedundancy(rt)
		shuffled := rapid.Permutation(candidates).Draw(rt, "order")
		room, within := capacity(candidates, r)
		plan, err := placement.Choose(seed(1), r, shardBytes, candidates)
		if room < r.N {
			if !errors.Is(err, storage.ErrTooFewPeers) {
				rt.Fatalf("%d shards fit, %s wanted: %v", room, r, err)
			}
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		if !slices.Equal(plan.Peers, choose(rt, seed(1), r, shuffled).Peers) {
			rt.Fatal("the order of candidates matters")
		}
		shards, sites := map[grid.PeerID]int{}, map[string]int{}
		for _, p := range plan.Peers {
			shards[p]++
		}
		for _, c := range candidates {
			if shards[c.Peer] > 0 {
				sites[c.Site] += shards[c.Peer]
			}
			if uint64(shards[c.Peer])*shardBytes > c.Free {
				rt.Fatalf("%d shards on a peer with room for %d bytes", shards[c.Peer], c.Free)
			}
		}
		if over := most(sites) > r.PerSite(); over != (within < r.N) || over != (plan.Problem != "") {
			rt.Fatalf("%s: %d on one site, %d fit within the limits: %q", r, most(sites), within, plan.Problem)
		}
		if plan.Sites != len(sites) {
			rt.Fatalf("%d sites, plan says %d", len(sites), plan.Sites)
		}
	})
}

// capacity returns how many shards fit at all, and how many within site limits.
func capacity(candidates []placement.Candidate, r storage.Redundancy) (room, within int) {
	sites := map[string]int{}
	for _, c := range candidates {
		room += int(c.Free / shardBytes)
		sites[c.Site] += int(c.Free / shardBytes)
	}
	for _, shards := range sites {
		within += min(shards, r.PerSite())
	}
	return room, within
}

func most(sites map[string]int) (worst int) {
	for _, shards := range sites {
		worst = max(worst, shards)
	}
	return worst
}

// TestStability: a peer that holds nothing may vanish without moving a shard,
// and one that holds one moves only that one, where no limit binds.
func TestStability(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := drawRedundancy(rt)
		count := rapid.IntRange(r.N+1, 60).Draw(rt, "peers")
		candidates := group(count, count)
		before := choose(rt, seed(2), r, candidates).Peers
		gone := rapid.IntRange(0, count-1).Draw(rt, "gone")
		after := choose(rt, seed(2), r, slices.Delete(slices.Clone(candidates), gone, gone+1)).Peers
		moved := 0
		for _, p := range after {
			if !slices.Contains(before, p) {
				moved++
			}
		}
		if want := map[bool]int{true: 1, false: 0}[slices.Contains(before, peer(gone))]; moved != want {
			rt.Fatalf("%d shards moved, want %d", moved, want)
		}
	})
}

// TestWeights: over many segments shards follow the pledges.
func TestWeights(t *testing.T) {
	candidates := group(4, 4)
	total := 0.0
	for i := range candidates {
		candidates[i].Pledge = uint64(i+1) << 30
		total += float64(i + 1)
	}
	got := map[grid.PeerID]int{}
	const segments = 4000
	for i := range segments {
		got[choose(t, seed(i), storage.Redundancy{K: 1, N: 1}, candidates).Peers[0]]++
	}
	for i, c := range candidates {
		want := segments * float64(i+1) / total
		if diff := math.Abs(float64(got[c.Peer]) - want); diff > 0.1*want+30 {
			t.Errorf("pledge %d: %d of %d segments, want about %.0f", i+1, got[c.Peer], segments, want)
		}
	}
}

func TestSites(t *testing.T) {
	candidates := group(6, 3)
	candidates[0].Free, candidates[3].Pledge = shardBytes-1, 0 // both of site 0
	if got := placement.Sites(candidates, shardBytes); got != 2 {
		t.Fatalf("%d sites with room, want 2", got)
	}
}

func TestSurvivesSites(t *testing.T) {
	cases := []struct {
		k, n  int
		sites []string
		want  int
	}{
		{4, 6, []string{"a", "b", "c", "d", "e", "f"}, 2},
		{4, 6, []string{"a", "a", "b", "b", "c", "c"}, 1},
		{4, 6, []string{"a", "a", "a", "b", "c", "d"}, 0},
		{4, 6, []string{"a", "b", "c", "d"}, 0},
		{4, 6, []string{"a", "b", "c"}, -1},
		{1, 1, []string{"a"}, 0},
		{1, 3, []string{"a", "b", "c"}, 2},
		{1, 3, nil, -1},
	}
	for _, c := range cases {
		sites := map[int]string{}
		for shard, site := range c.sites {
			sites[shard] = site
		}
		if got := placement.SurvivesSites(storage.Redundancy{K: c.k, N: c.n}, sites); got != c.want {
			t.Errorf("%d of %d on %v: %d, want %d", c.k, c.n, c.sites, got, c.want)
		}
	}
}

func TestHeadHolders(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		count := rapid.IntRange(0, 30).Draw(rt, "members")
		var members []grid.PeerID
		for i := range count {
			members = append(members, peer(i))
		}
		vault := storage.VaultID(seed(rapid.IntRange(0, 100).Draw(rt, "vault")))
		shuffled := rapid.Permutation(members).Draw(rt, "order")
		got := placement.HeadHolders(vault, members, placement.MaxHeadHolders)
		if len(got) != min(count, placement.MaxHeadHolders) || !slices.Equal(got, placement.HeadHolders(vault, shuffled, placement.MaxHeadHolders)) {
			rt.Fatalf("%d of %d members, or the order matters", len(got), count)
		}
	})
}

func BenchmarkChoose(b *testing.B) {
	for _, peers := range []int{10, 100, 1000} {
		candidates := group(peers, peers)
		b.Run(fmt.Sprint(peers), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				choose(b, seed(1), storage.Redundancy{K: 4, N: 6}, candidates)
			}
		})
	}
}
