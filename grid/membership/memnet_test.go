package membership

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	gridv1 "gotong/proto/grid/v1"
)

// memNet is a network in memory: hosts that listen at addresses, with latency,
// partitions that swallow bytes as real ones do, and machines that die.
type memNet struct {
	latency time.Duration

	mu      sync.Mutex
	hosts   map[string]*memHost // by address
	blocked func(a, b grid.PeerID) bool
	dials   int
}

func newMemNet(latency time.Duration) *memNet {
	return &memNet{latency: latency, hosts: make(map[string]*memHost)}
}

// partition swallows everything between peers for which blocked is true; nil heals.
func (n *memNet) partition(blocked func(a, b grid.PeerID) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.blocked = blocked
}

func (n *memNet) cut(a, b grid.PeerID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.blocked != nil && (n.blocked(a, b) || n.blocked(b, a))
}

// memHost is one machine at one address. It implements Network.
type memHost struct {
	net     *memNet
	peer    grid.PeerID
	address string
	book    func(grid.PeerID) []string // where this host looks for others
	packets *memListener
	streams *memListener
	service gridv1.GridServer
	refuses func(grid.PeerID) bool // who is no member here

	mu    sync.Mutex
	conns []*memConn
}

func (n *memNet) host(peer grid.PeerID, address string, book func(grid.PeerID) []string) *memHost {
	h := &memHost{net: n, peer: peer, address: address, book: book, packets: newMemListener(), streams: newMemListener()}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[address] = h
	return h
}

// die takes the host off the network. Its connections fall silent, as those of
// a machine without power; with reset they end.
func (h *memHost) die(reset bool) {
	h.net.mu.Lock()
	if h.net.hosts[h.address] == h {
		delete(h.net.hosts, h.address)
	}
	h.net.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		c.in.mute()
		c.out.mute()
		if reset {
			c.in.close()
			c.out.close()
		}
	}
}

func (h *memHost) Packets() net.Listener { return h.packets }
func (h *memHost) Streams() net.Listener { return h.streams }

func (h *memHost) DialPackets(ctx context.Context, peer grid.PeerID) (Conn, error) {
	return h.dial(ctx, peer, func(to *memHost) *memListener { return to.packets })
}

func (h *memHost) DialStream(ctx context.Context, peer grid.PeerID) (Conn, error) {
	return h.dial(ctx, peer, func(to *memHost) *memListener { return to.streams })
}

func (h *memHost) find(peer grid.PeerID) *memHost {
	for _, address := range h.book(peer) {
		h.net.mu.Lock()
		to := h.net.hosts[address]
		h.net.mu.Unlock()
		if to != nil && to.peer == peer {
			return to
		}
	}
	return nil
}

func (h *memHost) dial(ctx context.Context, peer grid.PeerID, listener func(*memHost) *memListener) (Conn, error) {
	h.net.mu.Lock()
	h.net.dials++
	h.net.mu.Unlock()
	select { // the handshake
	case <-time.After(2 * h.net.latency):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	to := h.find(peer)
	if to == nil {
		return nil, grid.ErrUnreachable
	}
	if h.net.cut(h.peer, peer) {
		<-ctx.Done()
		return nil, errors.Join(grid.ErrUnreachable, ctx.Err())
	}
	if to.refuses != nil && to.refuses(h.peer) {
		return nil, grid.ErrNotMember
	}
	here, there := h.pipe(to)
	select {
	case listener(to).backlog <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (h *memHost) pipe(to *memHost) (here, there *memConn) {
	lost := func() bool { return h.net.cut(h.peer, to.peer) }
	up, down := newMemPipe(h.net.latency, lost), newMemPipe(h.net.latency, lost)
	here, there = &memConn{peer: to.peer, in: down, out: up}, &memConn{peer: h.peer, in: up, out: down}
	h.keep(here)
	to.keep(there)
	return here, there
}

func (h *memHost) keep(c *memConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns = slices.DeleteFunc(h.conns, func(c *memConn) bool { return c.in.ended() })
	h.conns = append(h.conns, c)
}

// openConns counts the connections of the host that have not ended.
func (h *memHost) openConns() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns = slices.DeleteFunc(h.conns, func(c *memConn) bool { return c.in.ended() })
	return len(h.conns)
}

type memListener struct {
	backlog chan net.Conn
	once    sync.Once
	done    chan struct{}
}

func newMemListener() *memListener {
	return &memListener{backlog: make(chan net.Conn), done: make(chan struct{})}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *memListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *memListener) Addr() net.Addr { return &net.TCPAddr{} }

type memConn struct {
	peer    grid.PeerID
	in, out *memPipe
}

func (c *memConn) Peer() grid.PeerID                  { return c.peer }
func (c *memConn) Read(b []byte) (int, error)         { return c.in.read(b) }
func (c *memConn) Write(b []byte) (int, error)        { return c.out.write(b) }
func (c *memConn) Close() error                       { c.in.close(); c.out.close(); return nil }
func (c *memConn) LocalAddr() net.Addr                { return &net.TCPAddr{} }
func (c *memConn) RemoteAddr() net.Addr               { return &net.TCPAddr{} }
func (c *memConn) SetDeadline(t time.Time) error      { return c.SetReadDeadline(t) }
func (c *memConn) SetReadDeadline(t time.Time) error  { c.in.setDeadline(t); return nil }
func (c *memConn) SetWriteDeadline(t time.Time) error { return nil } // writes never block

type memChunk struct {
	at   time.Time
	data []byte
}

// memPipe is one direction of a connection.
type memPipe struct {
	latency time.Duration
	lost    func() bool

	mu       sync.Mutex
	chunks   []memChunk
	closed   bool
	muted    bool
	deadline time.Time
	changed  chan struct{}
}

func newMemPipe(latency time.Duration, lost func() bool) *memPipe {
	return &memPipe{latency: latency, lost: lost, changed: make(chan struct{})}
}

func (p *memPipe) update(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *memPipe) close()                  { p.update(func() { p.closed = true }) }
func (p *memPipe) mute()                   { p.update(func() { p.muted = true }) }
func (p *memPipe) setDeadline(t time.Time) { p.update(func() { p.deadline = t }) }

func (p *memPipe) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

func (p *memPipe) write(b []byte) (int, error) {
	lost := p.lost()
	var err error
	p.update(func() {
		switch {
		case p.closed:
			err = io.ErrClosedPipe
		case !p.muted && !lost:
			p.chunks = append(p.chunks, memChunk{time.Now().Add(p.latency), slices.Clone(b)})
		}
	})
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

func (p *memPipe) read(b []byte) (int, error) {
	for {
		n, wait, changed, err := p.tryRead(b)
		if n > 0 || err != nil {
			return n, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (p *memPipe) tryRead(b []byte) (n int, wait time.Duration, changed chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	wait = time.Hour
	if !p.deadline.IsZero() {
		if !now.Before(p.deadline) {
			return 0, 0, nil, os.ErrDeadlineExceeded
		}
		wait = p.deadline.Sub(now)
	}
	if len(p.chunks) > 0 {
		head := &p.chunks[0]
		if now.Before(head.at) {
			return 0, min(wait, head.at.Sub(now)), p.changed, nil
		}
		n = copy(b, head.data)
		if head.data = head.data[n:]; len(head.data) == 0 {
			p.chunks = p.chunks[1:]
		}
		return n, 0, nil, nil
	}
	if p.closed {
		return 0, 0, nil, io.EOF
	}
	return 0, wait, p.changed, nil
}
