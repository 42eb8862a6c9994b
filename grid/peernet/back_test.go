package peernet_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/grid/peernet"
)

// settle lets the peers find out who can dial whom.
const settle = 30 * time.Second

func TestDialBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "bob", "nat")
		ann, nat := all[0], all[2]
		nat.host.DropInbound(true)
		time.Sleep(settle)
		if links := ann.Links(); len(links) != 1 || links[0].Peer != nat.Self() || links[0].Kept {
			t.Fatalf("links at ann: %+v", links)
		}
		if links := nat.Links(); len(links) != 2 || !links[0].Kept || !links[1].Kept {
			t.Fatalf("links at nat: %+v", links)
		}
		if yes, no := nat.Dialable(); yes != 0 || no != 2 {
			t.Errorf("nat: %d can dial, %d cannot", yes, no)
		}
		if yes, no := ann.Dialable(); yes != 2 || no != 0 {
			t.Errorf("ann: %d can dial, %d cannot", yes, no)
		}

		onNat, onAnn := nat.Accept(peernet.ProtoGossip), ann.Accept(peernet.ProtoGossip)
		begin := time.Now()
		c := dial(t, ann, nat.Self(), peernet.ProtoGossip)
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("dial-back took %v", took)
		}
		talk(t, c, accepted(t, onNat), ann.Self(), nat.Self())
		c = dial(t, nat, ann.Self(), peernet.ProtoGossip)
		talk(t, c, accepted(t, onAnn), nat.Self(), ann.Self())

		if _, err := ann.Dial(within(t, time.Minute), nat.Self(), peernet.ProtoGRPC); err == nil {
			t.Error("dialled back on a protocol that is not spoken there")
		}
	})
}

// Members say at once, when asked, whether they can dial a peer.
func TestCheckReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "bob", "nat")
		ann, bob, nat := all[0], all[1], all[2]
		time.Sleep(settle)
		want := func(when string, dialable bool, answers int) {
			t.Helper()
			time.Sleep(settle) // members need not knock twice within seconds
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			reached := nat.CheckReach(ctx, []grid.PeerID{ann.Self(), bob.Self()})
			if len(reached) != answers {
				t.Errorf("%s: %+v", when, reached)
			}
			for _, r := range reached {
				if r.Dialable != dialable {
					t.Errorf("%s: %+v", when, reached)
				}
			}
		}
		want("open", true, 2)
		nat.host.DropInbound(true)
		want("closed", false, 2)
		nat.host.DropInbound(false)
		want("open again", true, 2)
		nat.host.SetDown(true)
		want("nobody answers", true, 0)
	})
}

// A peer that has just come and cannot be dialled is reached over the link that
// it is about to open.
func TestDialWaitsForTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "nat")
		ann, nat := all[0], all[1]
		nat.host.DropInbound(true)
		onAnn, onNat := ann.Accept(peernet.ProtoGossip), nat.Accept(peernet.ProtoGossip)
		c := dial(t, nat, ann.Self(), peernet.ProtoGossip)
		talk(t, c, accepted(t, onAnn), nat.Self(), ann.Self())
		if len(ann.Links()) != 0 {
			t.Fatal("the link is there already")
		}
		c = dial(t, ann, nat.Self(), peernet.ProtoGossip)
		talk(t, c, accepted(t, onNat), ann.Self(), nat.Self())
	})
}

// Links end when they are not needed, and come back when they are.
func TestLinksFollowReachability(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "nat")
		ann, nat := all[0], all[1]
		time.Sleep(settle)
		if n := len(ann.Links()) + len(nat.Links()); n != 0 {
			t.Fatalf("%d links between peers that reach each other", n)
		}
		nat.host.DropInbound(true)
		time.Sleep(2 * peernet.DefaultTimers().LinkCheck)
		if len(ann.Links()) != 1 || len(nat.Links()) != 1 {
			t.Fatalf("links: %v %v", ann.Links(), nat.Links())
		}
		nat.host.CutAll()
		time.Sleep(settle)
		if len(ann.Links()) != 1 || len(nat.Links()) != 1 {
			t.Fatalf("links after a cut: %v %v", ann.Links(), nat.Links())
		}
		nat.host.DropInbound(false)
		nat.host.Move() // the new address is known at once: no waiting for the next check
		nat.book.set(nat.Self(), peernet.Member, nat.addr())
		ann.knows(nat)
		time.Sleep(settle)
		if n := len(ann.Links()) + len(nat.Links()); n != 0 {
			t.Errorf("%d links after the peer can be dialled again", n)
		}
	})
}

// A dead link is noticed without any error of the network.
func TestSilentLinkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "nat")
		ann, nat := all[0], all[1]
		nat.host.DropInbound(true)
		time.Sleep(settle)
		nat.Accept(peernet.ProtoGossip)
		nat.host.SetDown(true)
		if _, err := ann.Dial(within(t, time.Minute), nat.Self(), peernet.ProtoGossip); !errors.Is(err, grid.ErrUnreachable) {
			t.Errorf("dial over a dead link: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if links := ann.Links(); len(links) != 0 {
			t.Errorf("links to a dead peer: %v", links)
		}
		nat.host.SetDown(false)
		time.Sleep(2 * time.Minute)
		dial(t, ann, nat.Self(), peernet.ProtoGossip)
	})
}

// Removing a peer ends its link too.
func TestLinkOfRemovedPeerIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "nat")
		ann, nat := all[0], all[1]
		nat.host.DropInbound(true)
		time.Sleep(settle)
		ann.book.set(nat.Self(), peernet.Removed, nat.addr())
		time.Sleep(time.Second)
		if links := ann.Links(); len(links) != 0 {
			t.Errorf("links: %v", links)
		}
		if _, err := ann.Dial(within(t, time.Minute), nat.Self(), peernet.ProtoGossip); !errors.Is(err, grid.ErrRemoved) {
			t.Errorf("got %v", err)
		}
	})
}

// Everything that waits in a Dial ends when the Net is closed.
func TestCloseEndsDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "nat")
		ann, nat := all[0], all[1]
		nat.host.SetDown(true)
		ended := make(chan error, 1)
		go func() {
			_, err := ann.Dial(context.Background(), nat.Self(), peernet.ProtoGossip)
			ended <- err
		}()
		time.Sleep(time.Second)
		begin := time.Now()
		if err := ann.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err == nil {
			t.Error("dialled a dead peer")
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("Close took %v", took)
		}
	})
}
