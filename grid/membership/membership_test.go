package membership

import (
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/roster"
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

// crossing reports for every pair whether it is on two sides of a cut.
func crossing(side []*testPeer) func(a, b grid.PeerID) bool {
	in := make(map[grid.PeerID]bool)
	for _, p := range side {
		in[p.id()] = true
	}
	return func(a, b grid.PeerID) bool { return in[a] != in[b] }
}

func TestPartitionHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 7)
		w.startAll()
		w.within(30*time.Second, "all see all alive", func() bool { return allSee(w.peers, w.peers, grid.StateAlive) })
		four, three := w.peers[:4], w.peers[4:]
		w.net.partition(crossing(four))
		w.within(2*time.Minute, "each side sees the other away", func() bool {
			return allSee(four, three, grid.StateAway) && allSee(three, four, grid.StateAway) &&
				allSee(four, four, grid.StateAlive) && allSee(three, three, grid.StateAlive)
		})
		time.Sleep(5 * time.Minute)
		for _, p := range w.peers {
			if n := len(p.m.Peers()); n != 7 {
				t.Fatalf("%d members during the partition", n)
			}
		}
		w.net.partition(nil)
		w.within(3*time.Minute, "healed", func() bool { return allSee(w.peers, w.peers, grid.StateAlive) })
	})
}

func TestDeadPeerIsAwayAndComesBackElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		w.startAll()
		w.within(30*time.Second, "all see all alive", func() bool { return allSee(w.peers, w.peers, grid.StateAlive) })
		mover, rest := w.peers[3], w.peers[:3]
		number := func(p *testPeer) uint64 { r, _, _ := p.records.Get(mover.id()); return r.Number }
		before := number(mover)
		mover.stop()
		died := time.Now()
		w.within(time.Minute, "the dead one is away", func() bool {
			return allSee(rest, []*testPeer{mover}, grid.StateAway)
		})
		time.Sleep(5 * time.Minute)
		if p, _ := rest[0].m.Peer(mover.id()); p.Since.Sub(died).Abs() > time.Minute {
			t.Errorf("away since %v, died %v", p.Since, died)
		}
		mover.restart("192.168.7.7:9")
		w.within(10*time.Second, "found at its new address", func() bool {
			return allSee(w.peers, []*testPeer{mover}, grid.StateAlive) && allSee([]*testPeer{mover}, w.peers, grid.StateAlive)
		})
		w.within(10*time.Second, "all know the new address", func() bool {
			for _, p := range w.peers {
				if got := p.dirBook.Addresses(mover.id()); len(got) != 1 || got[0] != "192.168.7.7:9" {
					return false
				}
			}
			return true
		})
		if number(rest[0]) <= before {
			t.Error("the number of the record did not grow")
		}
	})
}

func TestMoveWithoutRestartWhileConnectionsFallSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5)
		w.startAll()
		w.within(30*time.Second, "all see all alive", func() bool { return allSee(w.peers, w.peers, grid.StateAlive) })
		laptop := w.peers[2]
		old := laptop.host
		old.die(false) // unplugged; old connections swallow everything
		w.net.mu.Lock()
		old.address = "172.16.0.9:7000"
		w.net.hosts[old.address] = old
		w.net.mu.Unlock()
		if err := laptop.m.UpdateRecord(func(r *grid.Record) { r.Addresses = []string{old.address} }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.within(2*time.Minute, "alive at the new address", func() bool {
			return allSee(w.peers, w.peers, grid.StateAlive)
		})
		if got := w.peers[4].dirBook.Addresses(laptop.id()); len(got) != 1 || got[0] != "172.16.0.9:7000" {
			t.Errorf("addresses %v", got)
		}
	})
}

func TestNoPeerIsSpecial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5)
		w.startAll()
		w.within(30*time.Second, "all see all alive", func() bool { return allSee(w.peers, w.peers, grid.StateAlive) })
		time.Sleep(2 * time.Minute) // records everywhere
		for _, p := range w.peers {
			p.stop()
		}
		rest := w.peers[1:] // without the founder, in another order
		for i := range rest {
			p := rest[len(rest)-1-i]
			p.restart(p.host.address)
		}
		w.within(20*time.Second, "the others find each other", func() bool { return allSee(rest, rest, grid.StateAlive) })
	})
}

func TestAwayForWeeks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		w.timers.Probe, w.timers.Gossip, w.timers.PushPull = time.Minute, time.Minute, time.Hour // days pass quickly
		w.timers.Sync, w.timers.RejoinMax = 30*time.Minute, 30*time.Minute
		w.startAll()
		w.within(30*time.Second, "all see all alive", func() bool { return allSee(w.peers, w.peers, grid.StateAlive) })
		traveller, rest := w.peers[3], w.peers[:3]
		traveller.stop()
		time.Sleep(forgetAfter + 2*time.Hour) // Serf has forgotten it
		if !allSee(rest, []*testPeer{traveller}, grid.StateAway) {
			t.Fatal("not away")
		}
		traveller.restart("10.9.9.9:1")
		w.within(10*time.Second, "back", func() bool { return allSee(w.peers, w.peers, grid.StateAlive) })
	})
}

func TestNewMemberSpreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 9)
		late := w.peers[8]
		w.peers = w.peers[:8]
		w.startAll()
		w.within(30*time.Second, "all see all alive", func() bool { return allSee(w.peers, w.peers, grid.StateAlive) })

		newcomer := &testPeer{w: w, dir: t.TempDir(), node: must(identity.NewNodeKey()), owner: must(identity.NewPhrase()).OwnerKey()}
		w.admit(newcomer)
		newcomer.roster = must(roster.Import(newcomer.path("roster"), w.peers[0].roster.View().Grid(), w.peers[0].roster.All()))
		newcomer.records = must(roster.OpenRecords(newcomer.path("records"), newcomer.roster.View().Grid()))
		newcomer.dirBook = NewDirectory(newcomer.roster, newcomer.records)
		newcomer.moveTo("10.1.1.1:1")
		newcomer.meets(w.peers[0])
		newcomer.start()
		w.peers = append(w.peers, newcomer)
		w.within(3*time.Second, "everyone knows the newcomer", func() bool { return allSee(w.peers, w.peers, grid.StateAlive) })
		w.peers = append(w.peers, late)
	})
}

func TestRemovedMemberIsCutEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 8)
		w.startAll()
		w.within(30*time.Second, "all see all alive", func() bool { return allSee(w.peers, w.peers, grid.StateAlive) })
		bad, rest := w.peers[7], w.peers[:7]
		if err := w.peers[0].roster.Remove(w.peers[0].node, roster.RemoveParams{Peer: bad.id()}); err != nil {
			t.Fatal(err)
		}
		w.within(5*time.Second, "nobody lists it", func() bool {
			for _, p := range rest {
				if _, ok := p.m.Peer(bad.id()); ok {
					return false
				}
			}
			return true
		})
		time.Sleep(2 * time.Second)
		if n := bad.host.openConns(); n != 0 {
			t.Errorf("%d connections of the removed peer are open", n)
		}
		time.Sleep(3 * time.Minute)
		if !allSee(rest, rest, grid.StateAlive) {
			t.Error("the others suffered")
		}
		for _, p := range rest {
			if removed := p.m.Removed(); len(removed) != 1 || removed[0].ID != bad.id() || removed[0].State != grid.StateRemoved {
				t.Errorf("removed: %v", removed)
			}
			s, _, _ := p.m.running()
			for _, member := range s.Members() {
				if member.Name == bad.id().String() {
					t.Error("gossip still knows it")
				}
			}
		}
	})
}

func TestLeaveShowsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5)
		w.startAll()
		w.within(30*time.Second, "all see all alive", func() bool { return allSee(w.peers, w.peers, grid.StateAlive) })
		stopping, leaving, rest := w.peers[1], w.peers[2], []*testPeer{w.peers[0], w.peers[3], w.peers[4]}
		start := time.Now()
		if err := stopping.m.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		stopping.stop()
		if err := leaving.m.LeaveForGood(t.Context()); err != nil {
			t.Fatal(err)
		}
		leaving.stop()
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("leaving took %v", took)
		}
		w.within(2*time.Second, "one is away, one has left", func() bool {
			return allSee(rest, []*testPeer{stopping}, grid.StateAway) && allSee(rest, []*testPeer{leaving}, grid.StateLeft)
		})
		time.Sleep(3 * time.Minute)
		stopping.restart(stopping.host.address)
		w.within(10*time.Second, "the stopped one is back", func() bool {
			return allSee(append(rest, stopping), append(rest, stopping), grid.StateAlive)
		})
	})
}

func TestPrunedPeerStaysVisible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		w.startAll()
		w.within(30*time.Second, "all see all alive", func() bool { return allSee(w.peers, w.peers, grid.StateAlive) })
		victim := w.peers[2]
		s, _, _ := w.peers[3].m.running()
		_ = s.RemoveFailedNodePrune(victim.id().String()) // what a hostile member can send
		time.Sleep(time.Minute)
		w.within(time.Second, "the victim is still there", func() bool { return allSee(w.peers, w.peers, grid.StateAlive) })
		victim.stop()
		w.within(time.Minute, "and is away when it is", func() bool {
			return allSee([]*testPeer{w.peers[0], w.peers[1]}, []*testPeer{victim}, grid.StateAway)
		})
	})
}
