package membership

import (
	"context"
	"net"
	"time"

	"gotong/grid"

	"github.com/hashicorp/memberlist"
)

// stream is one connection for a push/pull or a stream probe. The transport
// knows the open ones to bound them and to end them.
type stream struct {
	net.Conn
	peer grid.PeerID
	t    *transport
}

// Close ends the stream; it may be called again.
func (s *stream) Close() error {
	s.t.mu.Lock()
	delete(s.t.open, s)
	s.t.mu.Unlock()
	return s.Conn.Close()
}

// track counts a stream; nil, with the connection closed, when there are too
// many or the transport is closed.
func (t *transport) track(conn Conn) *stream {
	s := &stream{Conn: conn, peer: conn.Peer(), t: t}
	t.mu.Lock()
	refused := t.closed || len(t.open) >= maxStreams || t.streamsOf(s.peer) >= maxStreamsPerPeer
	if !refused {
		t.open[s] = true
	}
	t.mu.Unlock()
	if refused {
		_ = conn.Close()
		return nil
	}
	return s
}

// streamsOf counts the open streams of one peer. The caller holds t.mu.
func (t *transport) streamsOf(peer grid.PeerID) (n int) {
	for s := range t.open {
		if s.peer == peer {
			n++
		}
	}
	return n
}

func (t *transport) acceptStream(conn Conn) {
	s := t.track(conn)
	if s == nil {
		return
	}
	t.senders.note(conn.Peer())
	select {
	case t.streams <- s:
	case <-t.ctx.Done():
		_ = s.Close()
	}
}

// DialAddressTimeout opens a stream, whatever the back-off for packets says: a
// probe falls back to it, and so finds a peer that is reachable again.
func (t *transport) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	peer, err := grid.ParsePeerID(addr.Name)
	if err != nil {
		return nil, errNoNodeName
	}
	if !t.allowed(peer) {
		return nil, dialError(peer, grid.ErrNotMember)
	}
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	conn, err := t.network.DialStream(ctx, peer)
	if err != nil {
		return nil, dialError(peer, err)
	}
	s := t.track(conn)
	if s == nil {
		return nil, dialError(peer, errTooManyStream)
	}
	t.retry(peer)
	return s, nil
}
