package peernet_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/grid/peernet"
)

func TestDialByPeerID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "bob")
		ann, bob := all[0], all[1]
		l := bob.Accept(peernet.ProtoGossip)
		c := dial(t, ann, bob.Self(), peernet.ProtoGossip)
		talk(t, c, accepted(t, l), ann.Self(), bob.Self())
	})
}

func TestDialTriesAllAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		all := w.members("ann", "bob", "eve")
		ann, bob, eve := all[0], all[1], all[2]
		l := bob.Accept(peernet.ProtoGossip)
		eve.Accept(peernet.ProtoGossip)
		// Nobody has the first, another peer answers at the second, the third
		// is a name that is not known, the fourth a port that nobody listens on.
		ann.book.set(bob.Self(), peernet.Member,
			"10.9.9.9:7000", eve.addr(), "nowhere:7000", bob.host.IP().String()+":1", bob.addr())
		begin := time.Now()
		c := dial(t, ann, bob.Self(), peernet.ProtoGossip)
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
		talk(t, c, accepted(t, l), ann.Self(), bob.Self())

		begin = time.Now()
		dial(t, ann, bob.Self(), peernet.ProtoGossip)
		accepted(t, l)
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("the address that worked was not tried first: %v", took)
		}
	})
}

func TestDialErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		all := w.members("ann", "bob", "eve")
		ann, bob, eve := all[0], all[1], all[2]
		bob.Accept(peernet.ProtoGossip)
		stranger := newKey(t).PeerID()
		try := func(to grid.PeerID, proto peernet.Protocol, want error) {
			t.Helper()
			c, err := ann.Dial(within(t, time.Minute), to, proto)
			if !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
			if c != nil {
				t.Error("a connection besides an error")
			}
		}
		try(ann.Self(), peernet.ProtoGossip, peernet.ErrSelf)
		try(stranger, peernet.ProtoGossip, grid.ErrUnknownPeer)
		try(bob.Self(), peernet.ProtoGRPC, peernet.ErrProtocol)
		try(bob.Self(), "gotong-link/1", peernet.ErrProtocol)

		ann.book.set(bob.Self(), peernet.Member, eve.addr())
		try(bob.Self(), peernet.ProtoGossip, peernet.ErrProtocol) // not eve's either
		eve.Accept(peernet.ProtoGossip)
		try(bob.Self(), peernet.ProtoGossip, peernet.ErrWrongPeer)
		try(bob.Self(), peernet.ProtoGossip, grid.ErrUnreachable)
		ann.book.set(bob.Self(), peernet.Member)
		try(bob.Self(), peernet.ProtoGossip, grid.ErrUnreachable)
		ann.book.set(bob.Self(), peernet.Removed, bob.addr())
		try(bob.Self(), peernet.ProtoGossip, grid.ErrRemoved)

		ann.knows(bob)
		bob.host.SetDown(true)
		begin := time.Now()
		try(bob.Self(), peernet.ProtoGossip, grid.ErrUnreachable)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := ann.Dial(ctx, bob.Self(), peernet.ProtoGossip); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled dial: %v", err)
		}
		if took := time.Since(begin); took > time.Minute+2*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// The roster of the other side is what counts, whatever the dialler believes.
func TestStrangerGetsNothingButJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bob, mallory := w.machine("bob"), w.machine("mallory")
		mallory.knows(bob)
		protocols := []peernet.Protocol{peernet.ProtoGRPC, peernet.ProtoGossip, peernet.ProtoGossipStream}
		for _, proto := range protocols {
			l := bob.Accept(proto)
			go func() {
				if c, err := l.Accept(); err == nil {
					t.Errorf("a stranger was accepted on %s: %v", proto, c.RemoteAddr())
				}
			}()
			_, err := mallory.Dial(within(t, time.Minute), bob.Self(), proto)
			if !errors.Is(err, grid.ErrNotMember) {
				t.Errorf("%s: %v, want ErrNotMember", proto, err)
			}
		}
		join := bob.Accept(peernet.ProtoJoin)
		c, err := mallory.DialAddr(within(t, time.Minute), bob.addr(), bob.Self(), peernet.ProtoJoin)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		talk(t, c, accepted(t, join), mallory.Self(), bob.Self())

		bob.book.set(mallory.Self(), peernet.Removed)
		if _, err = mallory.Dial(within(t, time.Minute), bob.Self(), peernet.ProtoGossip); err == nil {
			t.Error("a removed peer was accepted")
		}
	})
}

func TestRemovedPeerLearnsThatItWasRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "bob")
		ann, bob := all[0], all[1]
		bob.Accept(peernet.ProtoGossip)
		bob.Accept(peernet.ProtoJoin)
		bob.book.set(ann.Self(), peernet.Removed)
		if _, err := ann.Dial(within(t, time.Minute), bob.Self(), peernet.ProtoGossip); !errors.Is(err, grid.ErrRemoved) {
			t.Errorf("got %v, want ErrRemoved", err)
		}
	})
}

func TestRemovedMemberIsCutAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "bob", "cat")
		ann, bob, cat := all[0], all[1], all[2]
		l := bob.Accept(peernet.ProtoGossip)
		c := dial(t, ann, bob.Self(), peernet.ProtoGossip)
		onBob := accepted(t, l)
		other := dial(t, cat, bob.Self(), peernet.ProtoGossip)
		onBobOther := accepted(t, l)

		wrote := make(chan error, 1)
		go func() { // nobody reads: the writer is stuck when the cut comes
			_, err := onBob.Write(make([]byte, 4<<20))
			wrote <- err
		}()
		synctest.Wait()
		begin := time.Now()
		bob.book.set(ann.Self(), peernet.Removed)
		if err := <-wrote; err == nil {
			t.Error("a write to a removed member succeeded")
		}
		if _, err := io.Copy(io.Discard, c); err == nil {
			t.Error("the removed member saw a clean end")
		}
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("cut after %v", took)
		}
		talk(t, other, onBobOther, cat.Self(), bob.Self())
	})
}

// A member whose admission the other side has not heard of introduces itself.
func TestIntroduceThenRedial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bob := w.machine("bob")
		var introductions atomic.Int32
		ann := w.machine("ann", func(c *peernet.Config) {
			c.Introduce = func(_ context.Context, conn *peernet.Conn) error {
				introductions.Add(1)
				_, err := conn.Write([]byte("statements"))
				if err != nil {
					return err
				}
				_, err = conn.Read(make([]byte, 1))
				return err
			}
		})
		ann.knows(bob)
		l := bob.Accept(peernet.ProtoGossip)
		join := bob.Accept(peernet.ProtoJoin)
		go func() {
			c := accepted(t, join)
			_, _ = io.ReadFull(c, make([]byte, len("statements")))
			bob.knows(ann)
			_, _ = c.Write([]byte{1})
		}()
		c := dial(t, ann, bob.Self(), peernet.ProtoGossip)
		talk(t, c, accepted(t, l), ann.Self(), bob.Self())
		if n := introductions.Load(); n != 1 {
			t.Errorf("%d introductions", n)
		}
	})
}

// An introduction that does not help is not repeated by every dial.
func TestFailedIntroductionRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bob := w.machine("bob")
		refused := errors.New("nobody here trusts your inviter")
		var introductions atomic.Int32
		ann := w.machine("ann", func(c *peernet.Config) {
			c.Introduce = func(context.Context, *peernet.Conn) error { introductions.Add(1); return refused }
		})
		ann.knows(bob)
		synctest.Wait()
		bob.Accept(peernet.ProtoGossip)
		bob.Accept(peernet.ProtoJoin)
		for range 3 {
			_, err := ann.Dial(within(t, time.Minute), bob.Self(), peernet.ProtoGossip)
			if !errors.Is(err, grid.ErrNotMember) || !errors.Is(err, refused) {
				t.Errorf("got %v", err)
			}
		}
		if n := introductions.Load(); n != 1 {
			t.Errorf("%d introductions, want 1", n)
		}
		time.Sleep(time.Minute)
		_, _ = ann.Dial(within(t, time.Minute), bob.Self(), peernet.ProtoGossip)
		if n := introductions.Load(); n != 2 {
			t.Errorf("%d introductions after a rest, want 2", n)
		}
	})
}
