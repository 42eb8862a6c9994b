// Package memnet is a network in memory for tests, with latency, partitions,
// firewalls and hosts that move. Whole peers run on it inside a
// testing/synctest bubble without sockets. It stands apart from gridtest, which
// imports all of a peer, so that the lower packages can be tested on it alone.
package memnet

import (
	"net"
	"net/netip"
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
