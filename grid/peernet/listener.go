package peernet

import (
	"net"
	"sync"
)

// listener hands the accepted connections of one protocol to its user. A slot
// is reserved before the hello is sent, so that a dialler who was greeted is in
// the queue for sure.
type listener struct {
	proto Protocol
	addr  func() net.Addr
	drop  func() // takes it out of the table of protocols

	slots chan struct{}
	queue chan *Conn
	done  chan struct{}
	once  sync.Once
}

func newListener(proto Protocol, backlog int, addr func() net.Addr, drop func()) *listener {
	return &listener{
		proto: proto,
		addr:  addr,
		drop:  drop,
		slots: make(chan struct{}, backlog),
		queue: make(chan *Conn, backlog),
		done:  make(chan struct{}),
	}
}

// reserve takes a place in the queue; false when it is full or closed.
func (l *listener) reserve() bool {
	select {
	case <-l.done:
		return false
	default:
	}
	select {
	case l.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// cancel gives a reserved place back.
func (l *listener) cancel() { <-l.slots }

// deliver puts c into its reserved place.
func (l *listener) deliver(c *Conn) {
	l.queue <- c
	select {
	case <-l.done:
		l.drain()
	default:
	}
}

// Accept implements net.Listener; every connection is a *Conn. It returns
// net.ErrClosed after Close.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	case c := <-l.queue:
		<-l.slots
		return c, nil
	}
}

// Close implements net.Listener: the protocol is no longer spoken here, and
// connections that nobody accepted are closed.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.drop()
		close(l.done)
		l.drain()
	})
	return nil
}

func (l *listener) drain() {
	for {
		select {
		case c := <-l.queue:
			<-l.slots
			c.cut()
		default:
			return
		}
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr() }
