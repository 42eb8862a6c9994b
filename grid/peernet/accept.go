package peernet

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
)

const (
	// acceptPauseMax bounds the wait after a failed accept, for instance when
	// the process is out of file descriptors.
	acceptPauseMin = 5 * time.Millisecond
	acceptPauseMax = time.Second

	// refusalDrainBytes and refusalDrain bound what is still read from a refused
	// dialler: closing with unread bytes would reset the connection and could
	// overtake the alert that tells it why.
	refusalDrainBytes = 16 << 10
	refusalDrain      = time.Second
)

// acceptLoop takes raw connections until the listener is closed.
func (n *Net) acceptLoop(bound net.Listener) {
	pause := acceptPauseMin
	for {
		raw, err := bound.Accept()
		if err == nil {
			pause = acceptPauseMin
			if !n.group.spawn(func() { n.welcome(raw) }) {
				_ = raw.Close()
			}
			continue
		}
		if n.ctx.Err() != nil {
			return
		}
		n.log.Warn("accept failed", "err", err)
		if !n.pause(pause) {
			return
		}
		pause = min(2*pause, acceptPauseMax)
	}
}

// pause waits; false when the Net was closed meanwhile.
func (n *Net) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-n.ctx.Done():
		return false
	}
}

// welcome takes one raw connection through handshake and hello to its user.
func (n *Net) welcome(raw net.Conn) {
	key := addressKey(raw.RemoteAddr())
	ticket := n.gate.enter(key, func() { _ = raw.Close() })
	defer n.gate.leave(ticket)

	_ = raw.SetDeadline(time.Now().Add(n.cfg.Timers.Handshake))
	c, err := n.handshakeInbound(raw)
	if err != nil {
		n.log.Debug("handshake refused", "addr", raw.RemoteAddr(), "err", err)
		drain(raw)
		return
	}
	if err := n.receive(c); err != nil {
		n.log.Debug("connection refused", "peer", c.peer.Short(), "protocol", c.proto, "err", err)
		_ = c.Close()
	}
}

// drain lets the refusal arrive before the connection is closed.
func drain(raw net.Conn) {
	if w, ok := raw.(interface{ CloseWrite() error }); ok && w.CloseWrite() == nil {
		_ = raw.SetReadDeadline(time.Now().Add(refusalDrain))
		_, _ = io.CopyN(io.Discard, raw, refusalDrainBytes)
	}
	_ = raw.Close()
}

// handshakeInbound runs TLS as the accepting side.
func (n *Net) handshakeInbound(raw net.Conn) (*Conn, error) {
	under := newBufferedConn(raw)
	session := tls.Server(under, n.server.Load())
	ctx, cancel := context.WithTimeout(n.ctx, n.cfg.Timers.Handshake)
	defer cancel()
	if err := session.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return newConn(session, under, false)
}

func newConn(session *tls.Conn, under *bufferedConn, outbound bool) (*Conn, error) {
	cs := session.ConnectionState()
	key, err := identity.PeerKey(cs)
	if err != nil {
		return nil, err
	}
	proto := Protocol(cs.NegotiatedProtocol)
	return &Conn{
		Conn:     session,
		tls:      session,
		under:    under,
		raw:      under.Conn,
		peer:     grid.PeerIDOf(key),
		key:      key,
		proto:    proto,
		stranger: proto == ProtoJoin,
		counted:  !outbound,
	}, nil
}

// receive admits an authenticated connection, greets it and hands it on.
func (n *Net) receive(c *Conn) error {
	if err := n.admit(c); err != nil {
		_ = writeHello(c, helloBusy)
		return err
	}
	switch c.proto {
	case protoProbe:
		return n.greetAndClose(c)
	case protoLink, protoBack:
		return n.receiveInternal(c)
	default:
		return n.receiveFor(c, n.listenerOf(c.proto))
	}
}

// admit applies the limits and registers c. Membership is looked at again
// after c is registered: a removal before that moment did not see c.
func (n *Net) admit(c *Conn) error {
	standing := n.cfg.Directory.Status(c.peer)
	if c.stranger && standing != Member && !n.joins.allow(addressKey(c.raw.RemoteAddr())) {
		return ErrBusy
	}
	if c.stranger {
		c.lifetime = time.AfterFunc(n.cfg.Timers.Stranger, c.cut)
	}
	if err := n.live.add(c); err != nil {
		return err
	}
	if c.stranger {
		return nil
	}
	if err := n.cfg.Directory.Status(c.peer).err(); err != nil {
		c.cut()
		return err
	}
	n.links.dialledUs(c.peer)
	n.hooks.peerSeen(c.peer)
	return nil
}

func (n *Net) greetAndClose(c *Conn) error {
	err := writeHello(c, helloMember)
	_ = c.Close()
	return err
}

// receiveFor puts c into the queue of a protocol's listener.
func (n *Net) receiveFor(c *Conn, l *listener) error {
	if l == nil || !l.reserve() {
		_ = writeHello(c, helloBusy)
		return ErrBusy
	}
	if err := n.greet(c); err != nil {
		l.cancel()
		return err
	}
	l.deliver(c)
	return nil
}

// greet sends the hello and ends the time limit of the handshake.
func (n *Net) greet(c *Conn) error {
	if err := writeHello(c, helloFor(n.cfg.Directory.Status(c.peer))); err != nil {
		return err
	}
	return c.raw.SetDeadline(time.Time{})
}
