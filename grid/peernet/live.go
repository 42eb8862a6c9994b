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
	strangersMax int

	mu        sync.Mutex
	closed    bool
	conns     map[*Conn]struct{}
	perPeer   map[grid.PeerID]int // counted connections of members
	strangers int                 // counted connections on ProtoJoin
}

func newLiveConns(limits Limits) *liveConns {
	return &liveConns{
		perPeerMax:   limits.ConnsPerPeer,
		strangersMax: limits.Strangers,
		conns:        map[*Conn]struct{}{},
		perPeer:      map[grid.PeerID]int{},
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
	return l.perPeer[c.peer] >= l.perPeerMax
}

func (l *liveConns) count(c *Conn, by int) {
	if c.stranger {
		l.strangers += by
		return
	}
	l.perPeer[c.peer] += by
	if l.perPeer[c.peer] == 0 {
		delete(l.perPeer, c.peer)
	}
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

// matching returns the open connections for which keep is true.
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
