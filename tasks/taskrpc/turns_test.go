package taskrpc

import (
	"math"
	"testing"
	"time"

	"gotong/grid"
	"gotong/tasks/scheduler"
)

// simulate gives one slot to owners who always have tasks of these lengths, and
// returns how long each had it.
func simulate(t *turns, lengths map[grid.OwnerID]time.Duration, total time.Duration) map[grid.OwnerID]time.Duration {
	got := map[grid.OwnerID]time.Duration{}
	for owner := range lengths {
		t.join(owner)
	}
	for now := time.Duration(0); now < total; {
		var first grid.OwnerID
		var best *turn
		for owner := range lengths {
			if o := t.owners[owner]; best == nil || o.before(best) || !best.before(o) && owner.String() < first.String() {
				first, best = owner, o
			}
		}
		charged := best.start(time.Second)
		t.finish(first, charged, lengths[first])
		got[first] += lengths[first]
		now += lengths[first]
	}
	return got
}

// TestOwnersShareTheTime: whoever has long tasks gets no more than the others, and
// who weighs more gets more.
func TestOwnersShareTheTime(t *testing.T) {
	long, small, friend := grid.OwnerID{1}, grid.OwnerID{2}, grid.OwnerID{3}
	turns := newTurns(func(o grid.OwnerID) float64 {
		if o == friend {
			return 4
		}
		return 1
	})
	got := simulate(&turns, map[grid.OwnerID]time.Duration{long: time.Minute, small: time.Second, friend: 10 * time.Second}, 10*time.Hour)
	for owner, share := range map[grid.OwnerID]float64{long: 1. / 6, small: 1. / 6, friend: 4. / 6} {
		if part := got[owner].Hours() / 10; math.Abs(part-share) > 0.02 {
			t.Errorf("owner %d had %.2f of the time, want %.2f", owner[0], part, share)
		}
	}
}

// TestOwnFirst: the owner of the machine goes before all others, always.
func TestOwnFirst(t *testing.T) {
	own := grid.OwnerID{9}
	turns := newTurns(func(o grid.OwnerID) float64 {
		if o == own {
			return math.Inf(1)
		}
		return 1
	})
	got := simulate(&turns, map[grid.OwnerID]time.Duration{own: time.Second, {1}: time.Second}, time.Hour)
	if got[own] != time.Hour {
		t.Errorf("%v", got)
	}
}

// TestNobodySavesTurns: who comes later has no turns from before, and who left and
// came back has none either.
func TestNobodySavesTurns(t *testing.T) {
	turns := newTurns(nil)
	first := map[grid.OwnerID]time.Duration{{1}: time.Second}
	simulate(&turns, first, time.Hour)
	got := simulate(&turns, map[grid.OwnerID]time.Duration{{1}: time.Second, {2}: time.Second}, time.Minute)
	if d := got[grid.OwnerID{1}] - got[grid.OwnerID{2}]; d < -2*time.Second || d > 2*time.Second {
		t.Errorf("%v", got)
	}
	for owner, n := range map[grid.OwnerID]int{{1}: 2, {2}: 1} {
		for range n {
			turns.leave(owner)
		}
	}
	if len(turns.owners) != 0 {
		t.Errorf("%d owners are remembered", len(turns.owners))
	}
}

// TestPriorityOrdersTheJobsOfOneOwner, and not those of others.
func TestPriorityOrdersTheJobsOfOneOwner(t *testing.T) {
	s := &Service{turns: newTurns(nil)}
	mine, other := grid.OwnerID{1}, grid.OwnerID{2}
	add := func(owner grid.OwnerID, caller byte, priority int) *claim {
		c := &claim{
			job: Job{Asker: Asker{Peer: grid.PeerID{caller}, Owner: owner}}, turn: s.turns.join(owner),
			header: scheduler.Header{Priority: priority}, queue: make([]queued, 3),
		}
		s.claims = append(s.claims, c)
		return c
	}
	low, high, same, others := add(mine, 1, -1), add(mine, 2, 5), add(mine, 3, 5), add(other, 4, 1000)
	var mineInTurn []*claim
	count := map[*claim]int{}
	for i := range 12 {
		c := s.next()
		c.pop()
		c.turn.start(time.Second)
		s.lastInTurn(c)
		count[c]++
		if c != others {
			mineInTurn = append(mineInTurn, c)
		}
		if i == 3 && count[others] != 2 {
			t.Errorf("another owner with a high priority had %d of 4 turns", count[others])
		}
	}
	for i, c := range mineInTurn {
		if want := i >= 6; (c == low) != want {
			t.Errorf("turn %d: low priority %v, want %v", i, c == low, want)
		}
	}
	if mineInTurn[0] == mineInTurn[1] || count[high] != 3 || count[same] != 3 {
		t.Error("jobs of one priority do not take turns")
	}
}
