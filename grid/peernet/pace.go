package peernet

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// pieceBytes are sent at once while a limit is in force, so that
	// connections take turns.
	pieceBytes = 16 << 10
	// smallBytes and less never wait: calls and heartbeats get through beside
	// any transfer. They count; those who carry much wait for them too.
	smallBytes = 4 << 10
	// burstBytes may go out at once after a pause.
	burstBytes = 64 << 10
)

// pace bounds the bytes of all gRPC connections together, each way. Gossip and
// joins, which are little, are not counted.
type pace struct {
	up, down bucket
	counts   trafficCounts
}

// bucket is one direction.
type bucket struct {
	limiter atomic.Pointer[rate.Limiter] // nil: no limit
}

// Limit bounds the bytes that gRPC sends and receives each second, all peers
// together; 0 means no limit. It may be called at any time.
func (n *Net) Limit(up, down uint64) {
	n.pace.up.set(up)
	n.pace.down.set(down)
}

func (b *bucket) set(perSecond uint64) {
	if perSecond == 0 {
		b.limiter.Store(nil)
		return
	}
	if l := b.limiter.Load(); l != nil {
		l.SetLimit(rate.Limit(perSecond))
		return
	}
	b.limiter.Store(rate.NewLimiter(rate.Limit(perSecond), burstBytes))
}

// take counts n bytes and waits until they are due, or until done.
func (b *bucket) take(n int, done <-chan struct{}) {
	l := b.limiter.Load()
	if l == nil || n == 0 {
		return
	}
	due := l.ReserveN(time.Now(), min(n, burstBytes)).Delay()
	if n <= smallBytes || due == 0 {
		return
	}
	timer := time.NewTimer(due)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	}
}

// pacedConn is what gRPC reads from and writes to.
type pacedConn struct {
	*Conn
	pace   *pace
	count  *trafficCount
	closed chan struct{}
	once   sync.Once
}

func newPacedConn(c *Conn, p *pace) net.Conn {
	return &pacedConn{Conn: c, pace: p, count: p.counts.of(c.Peer()), closed: make(chan struct{})}
}

// Read implements net.Conn. What has arrived is delivered when it is due, which
// makes the other side wait in turn.
func (c *pacedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.count.received.Add(uint64(n))
	c.pace.down.take(n, c.closed)
	return n, err
}

// Write implements net.Conn.
func (c *pacedConn) Write(b []byte) (written int, err error) {
	for c.pace.up.limiter.Load() != nil && len(b) > pieceBytes {
		n, err := c.writePiece(b[:pieceBytes])
		if written += n; err != nil {
			return written, err
		}
		b = b[pieceBytes:]
	}
	n, err := c.writePiece(b)
	return written + n, err
}

func (c *pacedConn) writePiece(b []byte) (int, error) {
	c.pace.up.take(len(b), c.closed)
	n, err := c.Conn.Write(b)
	c.count.sent.Add(uint64(n))
	return n, err
}

// Close implements net.Conn.
func (c *pacedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
