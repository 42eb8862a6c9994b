package membership

import (
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
)

func TestManyPeersConverge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 16)
		w.startAll()
		w.within(30*time.Second, "all see all alive", func() bool { return allSee(w.peers, w.peers, grid.StateAlive) })
		w.within(30*time.Second, "all have all rosters and records", func() bool {
			for _, p := range w.peers {
				if p.roster.Digest() != w.peers[0].roster.Digest() {
					return false
				}
				for _, q := range w.peers {
					if r, _, _ := p.records.Get(q.id()); len(r.Addresses) != 1 {
						return false
					}
				}
			}
			return true
		})
		peers := w.peers[3].m.Peers()
		if len(peers) != 16 || peers[0].ID != w.peers[3].id() {
			t.Errorf("%d peers, the first is %s", len(peers), peers[0].ID.Short())
		}
		w.within(5*time.Minute, "round trips are known", func() bool {
			for _, p := range w.peers[3].m.Peers()[1:] {
				if p.RTT < 5*time.Millisecond || p.RTT > 100*time.Millisecond {
					return false
				}
			}
			return true
		})
	})
}
