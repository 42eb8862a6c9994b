package memnet

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// fabricConn is one end of a connection; it behaves like a net.TCPConn.
type fabricConn struct {
	fabric        *Fabric
	host          *Host
	peer          *fabricConn
	local, remote net.Addr
	in, out       *flow
	readBy        deadline
	writeBy       deadline
	reset         atomic.Bool // Close drops what is on its way
}

// Read implements net.Conn.
func (c *fabricConn) Read(p []byte) (int, error) {
	for {
		if at, _ := c.readBy.get(); !at.IsZero() && !at.After(time.Now()) {
			return 0, opError("read", c.remote, os.ErrDeadlineExceeded)
		}
		moved := c.moved() // taken before looking, so that no change is missed
		n, wait, until, err := c.receive(p)
		if n > 0 || len(p) == 0 {
			return n, nil
		}
		if err == io.EOF {
			return 0, err
		}
		if err == nil {
			err = c.readBy.waitFor(until, wait, moved)
		}
		if err != nil {
			return 0, opError("read", c.remote, err)
		}
	}
}

// receive takes what has arrived, which is nothing while the network is split.
func (c *fabricConn) receive(p []byte) (n int, wait <-chan struct{}, until time.Time, err error) {
	if ok, _ := c.fabric.passable(c.host, c.peer.host); ok {
		return c.in.take(p)
	}
	n, wait, _, err = c.in.take(nil)
	if err == io.EOF {
		err = nil // the end has not arrived either
	}
	return n, wait, time.Time{}, err
}

func (c *fabricConn) moved() <-chan struct{} {
	_, moved := c.fabric.passable(c.host, c.peer.host)
	return moved
}

// Write implements net.Conn.
func (c *fabricConn) Write(p []byte) (int, error) {
	written := 0
	for {
		if at, _ := c.writeBy.get(); !at.IsZero() && !at.After(time.Now()) {
			return written, opError("write", c.remote, os.ErrDeadlineExceeded)
		}
		heard, _ := c.fabric.passable(c.host, c.peer.host)
		n, wait, err := c.out.put(p[written:], c.latency(), heard)
		written += n
		if err == nil && written == len(p) {
			return written, nil
		}
		if err == nil {
			err = c.writeBy.waitFor(time.Time{}, wait, nil)
		}
		if err != nil {
			return written, opError("write", c.remote, err)
		}
	}
}

func (c *fabricConn) latency() time.Duration {
	c.fabric.mu.Lock()
	defer c.fabric.mu.Unlock()
	return c.fabric.latency
}

// CloseWrite ends this side's sending.
func (c *fabricConn) CloseWrite() error {
	c.out.end(c.latency())
	return nil
}

// Close implements net.Conn: what was written still arrives, what is written by
// the other side from now on is refused.
func (c *fabricConn) Close() error {
	if c.reset.Load() {
		c.fail(syscall.ECONNRESET)
		return nil
	}
	c.fabric.forget(c)
	c.out.end(c.latency())
	c.in.closeReader()
	return nil
}

// SetLinger with 0 makes Close reset the connection, as on a net.TCPConn.
func (c *fabricConn) SetLinger(seconds int) error {
	c.reset.Store(seconds == 0)
	return nil
}

// fail breaks both directions at once.
func (c *fabricConn) fail(err error) {
	c.fabric.forget(c)
	c.fabric.forget(c.peer)
	c.in.fail(err)
	c.out.fail(err)
}

// LocalAddr implements net.Conn.
func (c *fabricConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *fabricConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *fabricConn) SetDeadline(t time.Time) error {
	c.readBy.set(t)
	c.writeBy.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *fabricConn) SetReadDeadline(t time.Time) error {
	c.readBy.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *fabricConn) SetWriteDeadline(t time.Time) error {
	c.writeBy.set(t)
	return nil
}
