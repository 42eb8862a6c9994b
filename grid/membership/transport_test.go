package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"

	"github.com/hashicorp/memberlist"
)

// pair is two transports that know each other.
type pair struct {
	net          *memNet
	hosts        [2]*memHost
	a, b         *transport
	aID, bID     grid.PeerID
	notMember    map[grid.PeerID]bool
	addrA, addrB memberlist.Address
}

func newPair(t *testing.T) *pair {
	p := &pair{net: newMemNet(5 * time.Millisecond), aID: grid.PeerID{1}, bID: grid.PeerID{2}, notMember: make(map[grid.PeerID]bool)}
	book := func(id grid.PeerID) []string { return []string{fmt.Sprint("host", id[0])} }
	allowed := func(id grid.PeerID) bool { return !p.notMember[id] }
	for i, id := range []grid.PeerID{p.aID, p.bID} {
		p.hosts[i] = p.net.host(id, book(id)[0], book)
	}
	log := slog.New(slog.DiscardHandler)
	p.a = newTransport(p.aID, p.hosts[0], allowed, 10*time.Second, new(recentSenders), log)
	p.b = newTransport(p.bID, p.hosts[1], allowed, 10*time.Second, new(recentSenders), log)
	p.addrA = memberlist.Address{Name: p.aID.String(), Addr: syntheticAddr(p.aID).String()}
	p.addrB = memberlist.Address{Name: p.bID.String(), Addr: syntheticAddr(p.bID).String()}
	t.Cleanup(func() { p.close(t) })
	return p
}

func (p *pair) close(t *testing.T) {
	for _, tr := range []*transport{p.a, p.b} {
		if err := tr.Shutdown(); err != nil {
			t.Error(err)
		}
	}
}

func write(t *testing.T, tr *transport, to memberlist.Address, text string) {
	t.Helper()
	if _, err := tr.WriteToAddress([]byte(text), to); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, tr *transport, from grid.PeerID, text string) {
	t.Helper()
	select {
	case p := <-tr.PacketCh():
		if string(p.Buf) != text || p.From.String() != syntheticAddr(from).String() {
			t.Fatalf("got %q from %v", p.Buf, p.From)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("packet %q did not arrive", text)
	}
}

func TestPacketsUseOneConnectionBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		write(t, p.a, p.addrB, "hello")
		expect(t, p.b, p.aID, "hello")
		write(t, p.b, p.addrA, "hello back")
		expect(t, p.a, p.bID, "hello back")
		if p.net.dials != 1 {
			t.Errorf("%d dials for one pair", p.net.dials)
		}
	})
}

func TestCrossedDialsLeaveOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		write(t, p.a, p.addrB, "from a")
		write(t, p.b, p.addrA, "from b")
		expect(t, p.a, p.bID, "from b")
		expect(t, p.b, p.aID, "from a")
		time.Sleep(2 * retireLinger)
		if n := p.hosts[0].openConns(); n != 1 {
			t.Errorf("%d connections stayed open", n)
		}
		write(t, p.a, p.addrB, "still")
		expect(t, p.b, p.aID, "still")
		write(t, p.b, p.addrA, "there")
		expect(t, p.a, p.bID, "there")
		if p.net.dials != 2 {
			t.Errorf("%d dials", p.net.dials)
		}
	})
}

func TestWriteNeverBlocksAndTheQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.net.partition(func(a, b grid.PeerID) bool { return true }) // the dial hangs
		start := time.Now()
		for i := range 10 * packetQueueLen {
			write(t, p.a, p.addrB, fmt.Sprint(i))
		}
		if time.Since(start) != 0 {
			t.Errorf("writes took %v", time.Since(start))
		}
		l := p.a.link(p.bID)
		l.mu.Lock()
		queued, dropped, newest := len(l.queue), l.dropped, l.queue[len(l.queue)-1]
		l.mu.Unlock()
		if queued != packetQueueLen || dropped != 9*packetQueueLen {
			t.Errorf("%d queued, %d dropped", queued, dropped)
		}
		if !bytes.HasSuffix(newest, []byte(fmt.Sprint(10*packetQueueLen-1))) {
			t.Error("the newest packet was dropped instead of the oldest")
		}
	})
}

func TestDialBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.hosts[1].die(true)
		write(t, p.a, p.addrB, "lost")
		time.Sleep(100 * time.Millisecond)
		_, err := p.a.WriteToAddress([]byte("x"), p.addrB)
		op, ok := err.(*net.OpError) // memberlist looks at the type itself
		if !ok || op.Op != "dial" || op.Net != "tcp" {
			t.Fatalf("in back-off: %#v", err)
		}
		for range 600 { // one minute of gossip at 100 ms
			_, _ = p.a.WriteToAddress([]byte("x"), p.addrB)
			time.Sleep(100 * time.Millisecond)
		}
		if p.net.dials > 12 {
			t.Errorf("%d dials in a minute", p.net.dials)
		}
		p.a.retry(p.bID)
		write(t, p.a, p.addrB, "after news of an address")
	})
}

func TestSilentConnectionIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		write(t, p.a, p.addrB, "hello")
		expect(t, p.b, p.aID, "hello")
		old := p.hosts[1]
		old.die(false) // cable pulled: nothing ends
		p.hosts[1] = p.net.host(p.bID, old.address, old.book)
		_ = p.b.Shutdown()
		p.b = newTransport(p.bID, p.hosts[1], p.b.allowed, time.Second, new(recentSenders), p.b.log)
		for range 100 {
			_, _ = p.a.WriteToAddress([]byte("again"), p.addrB)
			time.Sleep(200 * time.Millisecond)
		}
		expect(t, p.b, p.aID, "again")
	})
}

func TestQuietConnectionIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		for range 10 { // one-way traffic with pauses
			write(t, p.a, p.addrB, "tick")
			expect(t, p.b, p.aID, "tick")
			time.Sleep(time.Minute)
		}
		if p.net.dials != 1 {
			t.Errorf("%d dials", p.net.dials)
		}
	})
}

func TestRemovedPeerIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		write(t, p.b, p.addrA, "hello")
		expect(t, p.a, p.bID, "hello")
		synctest.Wait()
		p.notMember[p.bID] = true
		p.a.retain()
		time.Sleep(time.Second)
		if n := p.hosts[0].openConns(); n != 0 {
			t.Errorf("%d connections of a removed peer", n)
		}
		if _, err := p.a.WriteToAddress([]byte("x"), p.addrB); !errors.As(err, new(*net.OpError)) {
			t.Errorf("write to a removed peer: %v", err)
		}
		if _, err := p.a.DialAddressTimeout(p.addrB, time.Second); err == nil {
			t.Error("stream to a removed peer")
		}
		_, _ = p.b.WriteToAddress([]byte("let me in"), p.addrA)
		time.Sleep(time.Second)
		select {
		case got := <-p.a.PacketCh():
			t.Errorf("gossip of a removed peer: %q", got.Buf)
		default:
		}
	})
}

func TestStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		out, err := p.a.DialAddressTimeout(p.addrB, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		in := <-p.b.StreamCh()
		if _, err := out.Write([]byte("state")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 5)
		if _, err := in.Read(buf); err != nil || string(buf) != "state" {
			t.Fatalf("%q, %v", buf, err)
		}
		for range maxStreamsPerPeer + 3 { // never taken by the other side
			_, _ = p.a.DialAddressTimeout(p.addrB, time.Second)
		}
		p.a.mu.Lock()
		n := len(p.a.open)
		p.a.mu.Unlock()
		if n > maxStreamsPerPeer {
			t.Errorf("%d streams to one peer", n)
		}
	})
}

func TestConnectIgnoresBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		b := p.hosts[1]
		b.die(true)
		if err := p.a.connect(context.Background(), p.bID); !errors.Is(err, grid.ErrUnreachable) {
			t.Fatalf("connect to a dead peer: %v", err)
		}
		p.net.mu.Lock()
		p.net.hosts[b.address] = b
		p.net.mu.Unlock()
		if err := p.a.connect(context.Background(), p.bID); err != nil {
			t.Fatal(err)
		}
		write(t, p.a, p.addrB, "hello")
		expect(t, p.b, p.aID, "hello")
	})
}
