package peernet_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/peernet"
)

func limits(l peernet.Limits) func(*peernet.Config) {
	return func(c *peernet.Config) { c.Limits = l }
}

// Connections that open and say nothing are gone in time, and do not keep
// members out meanwhile.
func TestSlowHandshakesDoNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bob := w.machine("bob", limits(peernet.Limits{Handshakes: 8, HandshakesPerAddress: 4}))
		ann := w.machine("ann")
		ann.knows(bob)
		bob.knows(ann)
		l := bob.Accept(peernet.ProtoGossip)
		var idle []net.Conn
		for _, name := range []string{"m1", "m2", "m3"} {
			for range 6 {
				c, err := w.fabric.Host(name).Dial(t.Context(), bob.addr())
				if err != nil {
					t.Fatal(err)
				}
				idle = append(idle, c)
			}
		}
		synctest.Wait()
		open := 0
		for _, c := range idle {
			_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
				_ = c.Close()
			} else {
				open++
			}
		}
		if open != 8 {
			t.Errorf("%d silent connections are open, want 8", open)
		}
		c := dial(t, ann, bob.Self(), peernet.ProtoGossip)
		talk(t, c, accepted(t, l), ann.Self(), bob.Self())

		time.Sleep(peernet.DefaultTimers().Handshake + 2*time.Second)
		for _, c := range idle {
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Errorf("a silent connection outlived the time for handshakes: %v", err)
			}
			_ = c.Close()
		}
	})
}

func TestConnectionsPerPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bob := w.machine("bob", limits(peernet.Limits{ConnsPerPeer: 3}))
		ann, cat := w.machine("ann"), w.machine("cat")
		for _, m := range []*machine{ann, cat} {
			m.knows(bob)
			bob.knows(m)
		}
		l := bob.Accept(peernet.ProtoGossip)
		var last, lastOnBob *peernet.Conn
		for range 3 {
			last = dial(t, ann, bob.Self(), peernet.ProtoGossip)
			lastOnBob = accepted(t, l)
		}
		if _, err := ann.Dial(within(t, time.Minute), bob.Self(), peernet.ProtoGossip); !errors.Is(err, peernet.ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
		dial(t, cat, bob.Self(), peernet.ProtoGossip)
		onBob := accepted(t, l)
		if onBob.Peer() != cat.Self() {
			t.Error("who is this?")
		}
		// The place is free again once both ends are closed.
		_ = last.Close()
		_ = lastOnBob.Close()
		dial(t, ann, bob.Self(), peernet.ProtoGossip)
	})
}

// Connections that a peer asks for by dial-back count as its own.
func TestGRPCConnectionsPerPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, behindNAT := range []bool{false, true} {
			w := newWorld(t)
			all := w.members("ann", "bob")
			ann, bob := all[0], all[1]
			bob.host.DropInbound(behindNAT)
			time.Sleep(settle)
			l := bob.Accept(peernet.ProtoGRPC)
			for range peernet.DefaultLimits().GRPCPerPeer {
				dial(t, ann, bob.Self(), peernet.ProtoGRPC)
				accepted(t, l)
			}
			_, err := ann.Dial(within(t, time.Minute), bob.Self(), peernet.ProtoGRPC)
			if err == nil || !behindNAT && !errors.Is(err, peernet.ErrBusy) {
				t.Errorf("one too many: %v", err)
			}
			bob.Accept(peernet.ProtoGossip)
			dial(t, ann, bob.Self(), peernet.ProtoGossip)
		}
	})
}

func TestBacklogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bob := w.machine("bob", limits(peernet.Limits{Backlog: 2}))
		ann := w.machine("ann")
		ann.knows(bob)
		bob.knows(ann)
		l := bob.Accept(peernet.ProtoGossip)
		for range 2 {
			dial(t, ann, bob.Self(), peernet.ProtoGossip)
		}
		if _, err := ann.Dial(within(t, time.Minute), bob.Self(), peernet.ProtoGossip); !errors.Is(err, peernet.ErrBusy) {
			t.Errorf("queue is full: %v", err)
		}
		accepted(t, l)
		waiting := dial(t, ann, bob.Self(), peernet.ProtoGossip)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := io.Copy(io.Discard, waiting); err == nil {
			t.Error("a connection that nobody accepted ended well")
		}
		if _, err := ann.Dial(within(t, time.Minute), bob.Self(), peernet.ProtoGossip); !errors.Is(err, peernet.ErrProtocol) {
			t.Errorf("listener is closed: %v", err)
		}
		again := bob.Accept(peernet.ProtoGossip)
		c := dial(t, ann, bob.Self(), peernet.ProtoGossip)
		talk(t, c, accepted(t, again), ann.Self(), bob.Self())
	})
}

func TestStrangersAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bob := w.machine("bob", limits(peernet.Limits{JoinsPerAddress: 2, JoinsPerMinute: 1, Strangers: 3}))
		join := bob.Accept(peernet.ProtoJoin)
		try := func(m *machine) error {
			c, err := m.DialAddr(within(t, time.Minute), bob.addr(), bob.Self(), peernet.ProtoJoin)
			if err == nil {
				t.Cleanup(func() { _ = c.Close() })
				accepted(t, join)
			}
			return err
		}
		m1, m2 := w.machine("m1"), w.machine("m2")
		for range 2 {
			if err := try(m1); err != nil {
				t.Error(err)
			}
		}
		if err := try(m1); !errors.Is(err, peernet.ErrBusy) {
			t.Errorf("faster than the rate: %v", err)
		}
		if err := try(m2); err != nil {
			t.Error(err)
		}
		if err := try(m2); !errors.Is(err, peernet.ErrBusy) {
			t.Errorf("more strangers than allowed: %v", err)
		}
		// All of them are cut after a while, and the rate has recovered.
		time.Sleep(peernet.DefaultTimers().Stranger + time.Second)
		if err := try(m1); err != nil {
			t.Error(err)
		}
	})
}

// Clients that bring no ALPN, another certificate, an older TLS or garbage get
// nothing.
func TestHostileHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bob, ann := w.machine("bob"), w.machine("ann")
		bob.knows(ann)
		bob.Accept(peernet.ProtoGossip)
		cert, err := identity.Certificate(ann.key.Private())
		if err != nil {
			t.Fatal(err)
		}
		good := tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}, NextProtos: []string{string(peernet.ProtoGossip)}}
		attempt := func(change func(*tls.Config)) error {
			raw, err := w.fabric.Host("mallory").Dial(t.Context(), bob.addr())
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			cfg := good.Clone()
			change(cfg)
			_, err = io.ReadFull(tls.Client(raw, cfg), make([]byte, 8))
			return err
		}
		if err := attempt(func(*tls.Config) {}); err != nil {
			t.Fatalf("a good handshake by hand: %v", err)
		}
		for name, change := range map[string]func(*tls.Config){
			"no ALPN":        func(c *tls.Config) { c.NextProtos = nil },
			"TLS 1.2":        func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 },
			"no certificate": func(c *tls.Config) { c.Certificates = nil },
			"two certificates": func(c *tls.Config) {
				two := cert
				two.Certificate = append(two.Certificate, cert.Certificate[0])
				c.Certificates = []tls.Certificate{two}
			},
			"another key behind the certificate": func(c *tls.Config) {
				stolen := cert
				stolen.PrivateKey = newKey(t).Private()
				c.Certificates = []tls.Certificate{stolen}
			},
			"bob's own key": func(c *tls.Config) {
				own, err := identity.Certificate(bob.key.Private())
				if err != nil {
					t.Fatal(err)
				}
				c.Certificates = []tls.Certificate{own}
			},
		} {
			if err := attempt(change); err == nil {
				t.Errorf("%s: was let in", name)
			}
		}

		raw, err := w.fabric.Host("mallory").Dial(t.Context(), bob.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		if _, err := raw.Write(bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 1000)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, raw) // ends
	})
}

// A listener at the address that is no peer at all must not hold a dial for
// longer than the time for handshakes.
func TestSilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ann := w.machine("ann")
		l, err := w.fabric.Host("tarpit").Listen(t.Context(), port)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		peer := newKey(t).PeerID()
		ann.book.set(peer, peernet.Member, "tarpit"+port)
		begin := time.Now()
		if _, err := ann.Dial(t.Context(), peer, peernet.ProtoGossip); !errors.Is(err, grid.ErrUnreachable) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begin); took > peernet.DefaultTimers().Handshake+time.Second {
			t.Errorf("took %v", took)
		}
	})
}
