package peernet

import (
	"net"
	"sync"

	"gotong/grid"
)

// liveConns knows every open connection, bounds those that others opened, and
// finds those to be cut.
type liveConns struct {
	perPeerMax   int
	grpcMax      int
	strangersMax int

	mu        sync.Mutex
	closed    bool
	conns     map[*Conn]struct{}
	perPeer   map[grid.PeerID]int // counted connections of members
	grpc      map[grid.PeerID]int // those of them that speak gRPC
	strangers int                 // counted connections on ProtoJoin
}

func newLiveConns(limits Limits) *liveConns {
	return &liveConns{
		perPeerMax:   limits.ConnsPerPeer,
		grpcMax:      limits.GRPCPerPeer,
		strangersMax: limits.Strangers,
		conns:        map[*Conn]struct{}{},
		perPeer:      map[grid.PeerID]int{},
		grpc:         map[grid.PeerID]int{},
	}
}

// add registers c until it is closed. ErrBusy: c would exceed a limit.
func (l *liveConns) add(c *Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	if c.counted {
		if l.full(c) {
			return ErrBusy
		}
		l.count(c, 1)
	}
	c.onClose = l.remove
	l.conns[c] = struct{}{}
	return nil
}

func (l *liveConns) full(c *Conn) bool {
	if c.stranger {
		return l.strangers >= l.strangersMax
	}
	return l.perPeer[c.peer] >= l.perPeerMax ||
		c.proto == ProtoGRPC && l.grpc[c.peer] >= l.grpcMax
}

func (l *liveConns) count(c *Conn, by int) {
	if c.stranger {
		l.strangers += by
		return
	}
	addTo(l.perPeer, c.peer, by)
	if c.proto == ProtoGRPC {
		addTo(l.grpc, c.peer, by)
	}
}

// room reports whether peer may have one more counted connection of proto.
func (l *liveConns) room(peer grid.PeerID, proto Protocol) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.full(&Conn{peer: peer, proto: proto})
}

func addTo(counts map[grid.PeerID]int, peer grid.PeerID, by int) {
	counts[peer] += by
	if counts[peer] == 0 {
		delete(counts, peer)
	}
}

// become gives a connection of ProtoBack the protocol that was asked for.
// ErrBusy: that would exceed a limit.
func (l *liveConns) become(c *Conn, proto Protocol, counted bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, open := l.conns[c]
	if !open {
		return net.ErrClosed
	}
	if c.counted {
		l.count(c, -1)
	}
	c.proto, c.counted = proto, counted
	if !counted {
		return nil
	}
	if l.full(c) {
		c.counted = false
		return ErrBusy
	}
	l.count(c, 1)
	return nil
}

func (l *liveConns) remove(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.conns[c]; !ok {
		return
	}
	delete(l.conns, c)
	if c.counted {
		l.count(c, -1)
	}
}

// matching returns the open connections for which want is true.
func (l *liveConns) matching(want func(*Conn) bool) []*Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []*Conn
	for c := range l.conns {
		if want(c) {
			found = append(found, c)
		}
	}
	return found
}

// close refuses further connections and cuts all open ones.
func (l *liveConns) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	for _, c := range l.matching(func(*Conn) bool { return true }) {
		c.cut()
	}
}
