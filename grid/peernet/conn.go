package peernet

import (
	"crypto/ed25519"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"gotong/grid"
)

// closeGrace is how long Close waits for room to say goodbye on a connection
// whose other side does not read; crypto/tls alone would wait 5 s.
const closeGrace = 200 * time.Millisecond

// Conn is an authenticated connection to one peer. It is a net.Conn; whoever
// got it from Dial or Accept closes it. A connection of a peer that stops
// being a member is closed under its user.
type Conn struct {
	net.Conn // the TLS session

	tls      *tls.Conn
	under    *bufferedConn // what TLS runs on
	raw      net.Conn      // what that runs on
	peer     grid.PeerID
	key      ed25519.PublicKey
	proto    Protocol
	standing Standing // of this peer as the accepting side sees it; dialling side only
	stranger bool     // on ProtoJoin, where membership is not asked for
	counted  bool     // towards the limits of the peer or of strangers
	lifetime *time.Timer

	closeOnce sync.Once
	onClose   func(*Conn)
}

// Peer returns who is at the other end, proved by its node key.
func (c *Conn) Peer() grid.PeerID { return c.peer }

// PeerKey returns the node key of the other end.
func (c *Conn) PeerKey() ed25519.PublicKey { return c.key }

// Standing returns how the accepting side sees this peer. It is the dialling
// side's to ask.
func (c *Conn) Standing() Standing { return c.standing }

// Protocol returns what is spoken on the connection.
func (c *Conn) Protocol() Protocol { return c.proto }

// ExportKeyingMaterial returns n bytes that both ends of this very TLS session,
// and nobody else, can derive (RFC 5705).
func (c *Conn) ExportKeyingMaterial(label string, context []byte, n int) ([]byte, error) {
	cs := c.tls.ConnectionState()
	return cs.ExportKeyingMaterial(label, context, n)
}

// Write implements net.Conn. All of p is on its way when it returns.
func (c *Conn) Write(p []byte) (int, error) {
	c.under.cork()
	n, err := c.tls.Write(p)
	if flushErr := c.under.uncork(); err == nil && flushErr != nil {
		return 0, flushErr
	}
	return n, err
}

// Close ends the connection. It is idempotent and returns within a fraction of
// a second even if the other side does not read.
func (c *Conn) Close() error {
	err := net.ErrClosed
	c.closeOnce.Do(func() {
		hurry := time.AfterFunc(closeGrace, func() { _ = c.raw.Close() })
		err = c.tls.Close()
		hurry.Stop()
		c.ended()
	})
	return err
}

// cut ends the connection at once and drops what is still to be sent: the TCP
// connection is closed under the TLS session.
func (c *Conn) cut() {
	if l, ok := c.raw.(interface{ SetLinger(seconds int) error }); ok {
		_ = l.SetLinger(0)
	}
	_ = c.raw.Close()
	c.closeOnce.Do(c.ended)
}

func (c *Conn) ended() {
	if c.lifetime != nil {
		c.lifetime.Stop()
	}
	if c.onClose != nil {
		c.onClose(c)
	}
}
