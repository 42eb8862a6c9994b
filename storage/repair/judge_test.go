package repair

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
)

// drawScene draws members, some of them away, on a few sites.
func drawScene(t *rapid.T) Scene {
	s := Scene{Now: time.Unix(1_800_000_000, 0), Grace: 24 * time.Hour, Peers: map[grid.PeerID]grid.Peer{}, Silent: map[grid.PeerID]time.Time{}}
	for i := range rapid.IntRange(1, 10).Draw(t, "peers") {
		p := grid.Peer{ID: peerN(byte(i)), Owner: grid.OwnerID{byte(rapid.IntRange(0, 4).Draw(t, "owner"))}, State: grid.StateAlive,
			Record: grid.Record{Site: string(rune('a' + rapid.IntRange(0, 5).Draw(t, "site")))}}
		age := time.Duration(rapid.Int64Range(0, int64(48*time.Hour)).Draw(t, "age"))
		if rapid.Bool().Draw(t, "away") {
			p.State, p.Since = grid.StateAway, s.Now.Add(-age)
		} else if rapid.Bool().Draw(t, "silent") {
			s.Silent[p.ID] = s.Now.Add(-age)
		}
		s.Peers[p.ID] = p
	}
	s.Self = peerN(0)
	return s
}

// drawEvidence draws answers and hints, of strangers too.
func drawEvidence(t *rapid.T) Evidence {
	n := rapid.IntRange(1, 8).Draw(t, "n")
	e := Evidence{ID: storage.SegmentID{byte(rapid.IntRange(0, 255).Draw(t, "id"))}, Owner: grid.OwnerID{0},
		Redundancy: storage.Redundancy{K: rapid.IntRange(1, n).Draw(t, "k"), N: n}, Copies: make([][]segments.Copy, n)}
	states := []storage.ShardState{storage.ShardStored, storage.ShardStored, storage.ShardBad, storage.ShardTrash, storage.ShardDeleted}
	for i := range e.Copies {
		for range rapid.IntRange(0, 3).Draw(t, "copies") {
			e.Copies[i] = append(e.Copies[i], segments.Copy{Peer: peerN(byte(rapid.IntRange(0, 12).Draw(t, "peer"))), State: rapid.SampledFrom(states).Draw(t, "state")})
		}
	}
	hints := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) storage.Holder {
		return storage.Holder{Shard: rapid.IntRange(0, n-1).Draw(t, "shard"), Peer: peerN(byte(rapid.IntRange(0, 12).Draw(t, "peer")))}
	}), 0, 8)
	e.Refused, e.Silent = hints.Draw(t, "refused"), hints.Draw(t, "silent")
	return e
}

func shardsOf(holders []storage.Holder) []int {
	var out []int
	for _, h := range holders {
		out = append(out, h.Shard)
	}
	return out
}

// TestJudgeSortsEachShardOnce: each shard is in exactly one list, a shard that
// a trusted member has is never rebuilt, and nobody gets one who must not.
func TestJudgeSortsEachShardOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scene, e := drawScene(t), drawEvidence(t)
		distrusted := peerN(byte(rapid.IntRange(0, 12).Draw(t, "distrusted")))
		scene.Distrusted = func(peer grid.PeerID, _ storage.ShardID) bool { return peer == distrusted }
		v := Judge(e, scene)
		all := slices.Concat(shardsOf(v.Good), shardsOf(v.Away), v.Lost)
		slices.Sort(all)
		for i := range e.Redundancy.N {
			if i >= len(all) || all[i] != i || len(all) != e.Redundancy.N {
				t.Fatalf("shards %v in the lists, want each once", all)
			}
		}
		for shard, copies := range e.Copies {
			has := slices.ContainsFunc(copies, func(c segments.Copy) bool {
				_, member := scene.Peers[c.Peer]
				return member && c.Peer != distrusted && c.State == storage.ShardStored
			})
			if has != slices.Contains(shardsOf(v.Good), shard) {
				t.Fatalf("shard %d: stored at a trusted member: %v", shard, has)
			}
		}
		for shard, peer := range v.Back {
			if v.Avoid[peer] || !slices.Contains(v.Lost, shard) {
				t.Fatalf("shard %d goes back to %s", shard, peer)
			}
		}
		for _, h := range v.Crowded {
			if !slices.Contains(v.Good, h) {
				t.Fatalf("crowded %v is not among the good", h)
			}
		}
	})
}

// TestLossOnlyGrowsWithTime: what is lost now is lost later, what is away
// becomes lost at the time that Until says and not before, and the grace counts
// from when the holder was last seen.
func TestLossOnlyGrowsWithTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scene, e := drawScene(t), drawEvidence(t)
		scene.Silent = map[grid.PeerID]time.Time{}
		for id, p := range scene.Peers { // who is alive and silent has a beginning
			if p.State == grid.StateAlive {
				scene.Silent[id] = scene.Now
			}
		}
		now := Judge(e, scene)
		later := scene
		later.Now = scene.Now.Add(time.Duration(rapid.Int64Range(0, int64(48*time.Hour)).Draw(t, "passed")))
		then := Judge(e, later)
		for _, shard := range now.Lost {
			if !slices.Contains(then.Lost, shard) {
				t.Fatalf("shard %d was lost and is not any more", shard)
			}
		}
		if len(now.Away) == 0 {
			return
		}
		if grew := len(then.Lost) > len(now.Lost); grew != !later.Now.Before(now.Until) {
			t.Fatalf("more lost: %v, at %s, until %s", grew, later.Now, now.Until)
		}
	})
}

// TestGraceIsShortWhenNothingMoreMayBeLost: with k shards left the tenth part
// of the grace suffices.
func TestGraceIsShortWhenNothingMoreMayBeLost(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	scene := Scene{Now: now, Grace: 10 * time.Hour, Peers: map[grid.PeerID]grid.Peer{
		peerN(1): {ID: peerN(1), State: grid.StateAlive}, peerN(2): {ID: peerN(2), State: grid.StateAlive},
		peerN(3): {ID: peerN(3), State: grid.StateAway, Since: now.Add(-2 * time.Hour)},
	}}
	stored := func(p byte) []segments.Copy { return []segments.Copy{{Peer: peerN(p), State: storage.ShardStored}} }
	e := Evidence{Redundancy: storage.Redundancy{K: 1, N: 3}, Copies: [][]segments.Copy{stored(1), stored(2), nil}, Silent: []storage.Holder{{Shard: 2, Peer: peerN(3)}}}
	if v := Judge(e, scene); len(v.Lost) != 0 || !v.Until.Equal(now.Add(8*time.Hour)) {
		t.Errorf("with one to spare: %+v", v)
	}
	e.Redundancy.K = 2
	if v := Judge(e, scene); !slices.Equal(v.Lost, []int{2}) {
		t.Errorf("with none to spare: %+v", v)
	}
}

// TestTurnsDiffer: peers that see the same have different turns, the owner's
// peers come first, and somebody has the first turn.
func TestTurnsDiffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scene, e := drawScene(t), drawEvidence(t)
		v := Judge(e, scene)
		actors := map[grid.PeerID]bool{}
		for _, copies := range e.Copies {
			for _, c := range copies {
				if _, member := scene.Peers[c.Peer]; member && c.State == storage.ShardStored {
					actors[c.Peer] = true
				}
			}
		}
		for id, p := range scene.Peers {
			if p.State == grid.StateAlive && p.Owner == e.Owner {
				actors[id] = true
			}
		}
		turns := map[int]grid.PeerID{}
		for id := range actors {
			scene.Self = id
			turn := Turn(e, v, scene)
			if other, taken := turns[turn]; taken {
				t.Fatalf("%s and %s both have turn %d", id, other, turn)
			}
			turns[turn] = id
		}
		for turn := range len(actors) {
			if _, ok := turns[turn]; !ok {
				t.Fatalf("nobody has turn %d of %d", turn, len(actors))
			}
			if turn > 0 && scene.Peers[turns[turn]].Owner == e.Owner && scene.Peers[turns[turn-1]].Owner != e.Owner {
				t.Fatal("a stranger comes before a peer of the owner")
			}
		}
	})
}

// TestCrowdedIsNeeded: no choice of copies has fewer shards beyond the limits
// of the sites than the one that was made.
func TestCrowdedIsNeeded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scene, e := drawScene(t), drawEvidence(t)
		v := Judge(e, scene)
		if got, want := len(v.Crowded), fewestCrowded(e, scene, 0, map[string]int{}); got != want {
			t.Fatalf("%d crowded, %d suffice", got, want)
		}
	})
}

// fewestCrowded tries every choice.
func fewestCrowded(e Evidence, scene Scene, shard int, load map[string]int) int {
	if shard == e.Redundancy.N {
		return 0
	}
	best := -1
	for _, c := range e.Copies[shard] {
		p, member := scene.Peers[c.Peer]
		if !member || c.State != storage.ShardStored {
			continue
		}
		next := maps.Clone(load)
		next[p.Site()]++
		over := 0
		if next[p.Site()] > e.Redundancy.PerSite() {
			over = 1
		}
		if n := over + fewestCrowded(e, scene, shard+1, next); best < 0 || n < best {
			best = n
		}
	}
	if best < 0 { // nobody has it
		return fewestCrowded(e, scene, shard+1, load)
	}
	return best
}

// TestOneCopyIsChosen: whoever looks at the same answers finds the same copy of a
// shard to be the one that stays, which somebody trusted has; and what may be let go
// leaves a whole segment.
func TestOneCopyIsChosen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scene, e := drawScene(t), drawEvidence(t)
		for shard := range e.Redundancy.N {
			stays := chosen(e, shard, scene)
			for id := range scene.Peers {
				scene.Self = id
				if other := chosen(e, shard, scene); other != stays {
					t.Fatalf("shard %d: %s stays for one, %s for another", shard, stays, other)
				}
				if withoutMine(e, shard, scene) != chanceGood {
					continue
				}
				rest := Judge(e.less(shard, func(p grid.PeerID) bool { return p == id }), scene)
				if len(rest.Good) != e.Redundancy.N || rest.Survives(e.Redundancy, scene.Peers) < 1 || stays.IsZero() {
					t.Fatalf("shard %d may go from %s, which leaves %+v", shard, id, rest)
				}
			}
		}
	})
}
