package keeper

import (
	"slices"
	"testing"
	"time"
)

// TestLostCopyIsReplacedAfterTheEnd: a keeper that dies when the job is over is
// replaced by the others, one after the other, without the owner, and whoever has
// the job then has all of it.
func TestLostCopyIsReplacedAfterTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		job := w.nodes[0].submit(func(p *Plan) { p.Retention = 10 * time.Hour })
		w.nodes[0].kill()
		w.over(job)
		dead := []*machine{w.nodes[0]}
		for range 3 {
			lost := w.keepersOf(job)[0]
			lost.kill()
			dead = append(dead, lost)
			w.wait("another keeper with all of the job", 4*time.Minute, func() bool {
				return len(w.keepersOf(job)) == Copies && w.agreed(job)
			})
		}
		time.Sleep(10 * time.Minute)
		if n := len(w.keepersOf(job)); n != Copies {
			t.Errorf("%d keepers%s", n, w.describe())
		}
		w.check(t, job)
		for _, m := range dead { // they find themselves replaced
			m.start()
		}
		w.wait("one list of keepers everywhere", 4*time.Minute, func() bool { return len(w.lists(job)) == 1 })
		if owner := w.nodes[0].up(); owner.job(job) != nil {
			t.Error("the submitter keeps it")
		}
		time.Sleep(time.Hour)
		if n := len(w.copiesOf(job)); n > Copies+len(dead)-1 {
			t.Errorf("%d copies", n)
		}
		w.wait("forgotten after its retention", 20*time.Hour, func() bool { return len(w.copiesOf(job)) == 0 })
		time.Sleep(time.Hour)
		if len(w.copiesOf(job)) > 0 {
			t.Error("the job came back")
		}
	}, 0, 1, 2, 3, 4, 5, 6)
}

// lists returns the lists of keepers of a job that its keepers go by.
func (w *world) lists(job [32]byte) (out []List) {
	for _, m := range w.keepersOf(job) {
		j := m.up().job(job)
		j.mu.Lock()
		l := j.list
		j.mu.Unlock()
		if !slices.ContainsFunc(out, func(o List) bool { return o.By == l.By && o.Number == l.Number }) {
			out = append(out, l)
		}
	}
	return out
}

// TestReplacedKeepersDriveARetry: keepers that came after the end go on when the
// owner wants what failed to be run again.
func TestReplacedKeepersDriveARetry(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		job := w.nodes[0].submit(func(p *Plan) { p.Retention, p.Keepers = 10*time.Hour, KeepersFriends })
		w.over(job)
		for range 3 {
			w.keepersOf(job)[0].kill()
			w.wait("another keeper", 4*time.Minute, func() bool { return len(w.keepersOf(job)) == Copies && w.agreed(job) })
		}
		if _, err := w.nodes[0].up().Say(t.Context(), job, KindRetry, ""); err != nil {
			t.Fatal(err)
		}
		w.wait("the end of the second generation", 3*time.Minute, func() bool {
			for _, m := range w.keepersOf(job) {
				if f := fold(t, w.copiesOf(job)[m]); !f.ended[1] {
					return false
				}
			}
			return w.agreed(job)
		})
		if len(w.lists(job)) != 1 {
			t.Errorf("keepers do not agree who they are%s", w.describe())
		}
		w.check(t, job)
	}, 0, 1, 2, 3, 4, 5, 6)
}

// TestClockOfADriverThatIsBehind: the results of a job are kept although its
// driver's clock says that it ended long ago.
func TestClockOfADriverThatIsBehind(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.behind = 3 * time.Hour
		job := w.nodes[0].submit(nil)
		w.over(job)
		time.Sleep(30 * time.Minute)
		if n := len(w.keepersOf(job)); n != Copies {
			t.Errorf("%d keepers, half an hour before its retention is over", n)
		}
		w.wait("forgotten after its retention", time.Hour, func() bool { return len(w.keepersOf(job)) == 0 })
	}, 0, 1, 2, 3)
}
