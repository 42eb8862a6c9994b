// Package memnet is a network in memory for tests, with latency, partitions,
// firewalls and hosts that move. Whole peers run on it inside a
// testing/synctest bubble without sockets. It stands apart from gridtest, which
// imports all of a peer, so that the lower packages can be tested on it alone.
package memnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Defaults of a Fabric.
const (
	defaultLatency     = time.Millisecond
	defaultBufferBytes = 256 << 10 // in flight, each way of a connection
	firstFreePort      = 40000
	acceptQueue        = 128
)

// Fabric is a network in memory: hosts with addresses, connections with
// latency, partitions, filters of inbound connections, loss of connections. It
// has no goroutines and no sockets and uses the time of its caller, so it works
// inside a testing/synctest bubble.
//
// What cannot pass waits, as on a real network: a dial into a partition hangs
// until its context ends, and bytes sent into one arrive after it has healed.
type Fabric struct {
	mu      sync.Mutex
	latency time.Duration
	buffer  int
	hosts   map[string]*Host     // by name
	byIP    map[netip.Addr]*Host // current addresses
	nextIP  netip.Addr
	groups  map[*Host]int // partition: hosts of different groups do not hear each other
	moved   chan struct{} // closed and replaced when anything above changed
	conns   map[*fabricConn]struct{}
}

// New returns a network without hosts, with a latency of 1 ms each way.
func New() *Fabric {
	return &Fabric{
		latency: defaultLatency,
		buffer:  defaultBufferBytes,
		hosts:   map[string]*Host{},
		byIP:    map[netip.Addr]*Host{},
		nextIP:  netip.MustParseAddr("10.0.0.1"),
		moved:   make(chan struct{}),
		conns:   map[*fabricConn]struct{}{},
	}
}

// SetLatency sets the time that bytes take one way, from now on.
func (f *Fabric) SetLatency(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latency = d
}

// SetBuffer sets how many bytes may be in flight on each way of connections
// made from now on.
func (f *Fabric) SetBuffer(bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buffer = bytes
}

// Host returns the host of that name, making it with an address of its own on
// first use.
func (f *Fabric) Host(name string) *Host {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h, ok := f.hosts[name]; ok {
		return h
	}
	h := &Host{fabric: f, name: name, listeners: map[uint16]*fabricListener{}, nextPort: firstFreePort}
	f.hosts[name] = h
	f.assignIPLocked(h)
	return h
}

func (f *Fabric) assignIPLocked(h *Host) {
	delete(f.byIP, h.ip)
	h.ip = f.nextIP
	f.byIP[h.ip] = h
	f.nextIP = f.nextIP.Next()
}

// changedLocked wakes everything that waits for the network.
func (f *Fabric) changedLocked() {
	close(f.moved)
	f.moved = make(chan struct{})
}

// Partition splits the network: hosts named in different groups, and hosts
// named in none, do not hear each other. It replaces a former partition.
func (f *Fabric) Partition(groups ...[]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups = map[*Host]int{}
	for i, group := range groups {
		for _, name := range group {
			if h, ok := f.hosts[name]; ok {
				f.groups[h] = i + 1
			}
		}
	}
	f.changedLocked()
}

// Heal ends a partition.
func (f *Fabric) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups = nil
	f.changedLocked()
}

// Cut resets all connections between two hosts. New ones may be made.
func (f *Fabric) Cut(a, b string) {
	f.reset(func(c *fabricConn) bool {
		return c.host.name == a && c.peer.host.name == b || c.host.name == b && c.peer.host.name == a
	})
}

func (f *Fabric) reset(which func(*fabricConn) bool) {
	f.mu.Lock()
	var found []*fabricConn
	for c := range f.conns {
		if which(c) {
			found = append(found, c)
		}
	}
	f.mu.Unlock()
	for _, c := range found {
		c.fail(syscall.ECONNRESET)
	}
}

// passable reports whether bytes pass between two hosts now; if not, wait is
// closed when that may have changed.
func (f *Fabric) passable(a, b *Host) (ok bool, wait <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.passableLocked(a, b), f.moved
}

func (f *Fabric) passableLocked(a, b *Host) bool {
	if a == b {
		return true
	}
	if a.down || b.down {
		return false
	}
	return f.groups == nil || f.groups[a] == f.groups[b]
}

// Host is one machine of a Fabric. It is what peernet.Config.Fabric takes.
type Host struct {
	fabric *Fabric
	name   string

	// Guarded by fabric.mu.
	ip        netip.Addr
	down      bool
	noInbound bool
	listeners map[uint16]*fabricListener
	nextPort  uint16
}

// Name returns the name under which the host can be dialled.
func (h *Host) Name() string { return h.name }

// IP returns the present address of the host.
func (h *Host) IP() netip.Addr {
	h.fabric.mu.Lock()
	defer h.fabric.mu.Unlock()
	return h.ip
}

// DropInbound silently drops (or lets in again) new connections to this host,
// as a firewall or address translation does. Open ones stay.
func (h *Host) DropInbound(drop bool) {
	h.fabric.mu.Lock()
	defer h.fabric.mu.Unlock()
	h.noInbound = drop
	h.fabric.changedLocked()
}

// SetDown takes the cable out or puts it in: nothing passes, nothing breaks.
func (h *Host) SetDown(down bool) {
	h.fabric.mu.Lock()
	defer h.fabric.mu.Unlock()
	h.down = down
	h.fabric.changedLocked()
}

// Move gives the host another address, as when a laptop changes networks. Its
// connections are reset; its listeners listen on the new address.
func (h *Host) Move() {
	h.fabric.mu.Lock()
	h.fabric.assignIPLocked(h)
	h.fabric.changedLocked()
	h.fabric.mu.Unlock()
	h.CutAll()
}

// CutAll resets all connections of the host.
func (h *Host) CutAll() {
	h.fabric.reset(func(c *fabricConn) bool { return c.host == h })
}

// Listen binds HOST:PORT; the host part is not looked at, port 0 takes a free
// port.
func (h *Host) Listen(_ context.Context, addr string) (net.Listener, error) {
	_, port, err := splitPort(addr)
	if err != nil {
		return nil, err
	}
	h.fabric.mu.Lock()
	defer h.fabric.mu.Unlock()
	if port == 0 {
		port = h.freePortLocked()
	}
	if h.listeners[port] != nil {
		return nil, opError("listen", nil, syscall.EADDRINUSE)
	}
	l := &fabricListener{host: h, port: port, queue: make(chan *fabricConn, acceptQueue), done: make(chan struct{})}
	h.listeners[port] = l
	return l, nil
}

// freePortLocked hands out ports in turn, leaving out those that are bound.
func (h *Host) freePortLocked() uint16 {
	for {
		port := h.nextPort
		if h.nextPort++; h.nextPort == 0 {
			h.nextPort = firstFreePort
		}
		if h.listeners[port] == nil {
			return port
		}
	}
}

// Dial connects to HOST:PORT, where HOST is an address or a host's name.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	name, port, err := splitPort(addr)
	if err != nil {
		return nil, opError("dial", nil, err)
	}
	for {
		target, wait, err := h.fabric.route(h, name)
		if err != nil {
			return nil, opError("dial", nil, err)
		}
		if wait == nil {
			return h.connect(ctx, target, port)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, opError("dial", nil, ctx.Err())
		}
	}
}

// route finds the host; wait is not nil while a SYN would be lost.
func (f *Fabric) route(from *Host, name string) (target *Host, wait <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ip, notIP := netip.ParseAddr(name)
	if notIP == nil {
		target = f.byIP[ip]
	} else if target = f.hosts[name]; target == nil {
		return nil, nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	if target == nil || !f.passableLocked(from, target) || (target.noInbound && target != from) {
		return nil, f.moved, nil
	}
	return target, nil, nil
}

func (h *Host) connect(ctx context.Context, target *Host, port uint16) (net.Conn, error) {
	h.fabric.mu.Lock()
	roundTrip := 2 * h.fabric.latency
	h.fabric.mu.Unlock()
	t := time.NewTimer(roundTrip)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return nil, opError("dial", nil, ctx.Err())
	}
	mine, theirs := h.fabric.pair(h, target, port)
	h.fabric.mu.Lock()
	l := target.listeners[port]
	h.fabric.mu.Unlock()
	if l == nil || !l.offer(theirs) {
		mine.fail(net.ErrClosed)
		return nil, opError("dial", theirs.local, syscall.ECONNREFUSED)
	}
	return mine, nil
}

// pair makes the two ends of a connection.
func (f *Fabric) pair(from, to *Host, port uint16) (mine, theirs *fabricConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out, in := newFlow(f.buffer), newFlow(f.buffer)
	local := tcpAddr(from.ip, from.freePortLocked())
	remote := tcpAddr(to.ip, port)
	mine = &fabricConn{fabric: f, host: from, local: local, remote: remote, in: in, out: out}
	theirs = &fabricConn{fabric: f, host: to, local: remote, remote: local, in: out, out: in}
	mine.peer, theirs.peer = theirs, mine
	f.conns[mine], f.conns[theirs] = struct{}{}, struct{}{}
	return mine, theirs
}

func (f *Fabric) forget(c *fabricConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
}

// fabricListener is a bound port.
type fabricListener struct {
	host  *Host
	port  uint16
	queue chan *fabricConn
	done  chan struct{}
	once  sync.Once
}

func (l *fabricListener) offer(c *fabricConn) bool {
	select {
	case <-l.done:
		return false
	default:
	}
	select {
	case l.queue <- c:
		return true
	default:
		return false
	}
}

func (l *fabricListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, opError("accept", l.Addr(), net.ErrClosed)
	}
}

func (l *fabricListener) Close() error {
	l.once.Do(func() {
		l.host.fabric.mu.Lock()
		delete(l.host.listeners, l.port)
		l.host.fabric.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.queue:
				c.fail(syscall.ECONNRESET)
			default:
				return
			}
		}
	})
	return nil
}

func (l *fabricListener) Addr() net.Addr { return tcpAddr(l.host.IP(), l.port) }

func tcpAddr(ip netip.Addr, port uint16) net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, port))
}

func splitPort(addr string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q: %w", text, errors.Unwrap(err))
	}
	return host, uint16(n), nil
}

func opError(op string, addr net.Addr, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: addr, Err: err}
}
