package peernet

import (
	"net"
	"sync"
)

const (
	// rawReadMin and rawReadMax bound what is read from the network at once;
	// it grows on connections that carry much. crypto/tls alone asks for each
	// record in two small reads.
	rawReadMin = 4 << 10
	rawReadMax = 64 << 10
	// rawWriteBytes of records are gathered before they are written: those of
	// one full write of gRPC. crypto/tls alone writes each record of 16 KiB by
	// itself.
	rawWriteBytes = writeBufferBytes + 2<<10
)

// writeBuffers are in use only while somebody writes, so idle connections hold
// none.
var writeBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, rawWriteBytes)
	return &b
}}

// bufferedConn lies under the TLS session and saves system calls: on the way
// in by reading ahead, on the way out by gathering the records of one
// Conn.Write, between cork and uncork.
type bufferedConn struct {
	net.Conn

	ahead       []byte // read ahead: what is between first and last
	first, last int

	mu     sync.Mutex // held while writing to the network
	corked int        // how many Conn.Write run
	buf    *[]byte    // nil when nothing waits
	err    error      // of an earlier write: what follows would be garbage
}

func newBufferedConn(raw net.Conn) *bufferedConn {
	return &bufferedConn{Conn: raw, ahead: make([]byte, rawReadMin)}
}

// Read implements net.Conn. As crypto/tls does, it is called by one goroutine
// at a time.
func (c *bufferedConn) Read(p []byte) (int, error) {
	if c.first == c.last {
		if len(p) >= len(c.ahead) {
			return c.Conn.Read(p)
		}
		if c.last == len(c.ahead) && c.last < rawReadMax { // filled by the last read
			c.ahead = make([]byte, min(4*len(c.ahead), rawReadMax))
		}
		n, err := c.Conn.Read(c.ahead)
		c.first, c.last = 0, n
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, c.ahead[c.first:c.last])
	c.first += n
	return n, nil
}

// Write implements net.Conn. While corked it keeps p for later.
func (c *bufferedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.corked == 0 && c.buf == nil {
		return c.writeLocked(p)
	}
	if c.buf == nil {
		c.buf = writeBuffers.Get().(*[]byte)
	}
	if len(*c.buf)+len(p) > cap(*c.buf) {
		if err := c.flushLocked(); err != nil {
			return 0, err
		}
		c.buf = writeBuffers.Get().(*[]byte)
	}
	*c.buf = append(*c.buf, p...)
	return len(p), nil
}

func (c *bufferedConn) writeLocked(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.Conn.Write(p)
	c.err = err
	return n, err
}

func (c *bufferedConn) flushLocked() error {
	if c.buf == nil {
		return c.err
	}
	_, err := c.writeLocked(*c.buf)
	*c.buf = (*c.buf)[:0]
	writeBuffers.Put(c.buf)
	c.buf = nil
	return err
}

func (c *bufferedConn) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked++
}

// uncork writes what has gathered.
func (c *bufferedConn) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked--
	return c.flushLocked()
}
