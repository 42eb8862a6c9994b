package peernet

import (
	"context"
	"net"
	"time"
)

// Fabric makes raw connections; TLS runs on top. TCP is the real one, and tests
// use the one in memory of gotong/grid/gridtest/memnet.
type Fabric interface {
	// Listen binds addr (HOST:PORT; port 0 takes a free one).
	Listen(ctx context.Context, addr string) (net.Listener, error)
	// Dial connects to addr (HOST:PORT) or fails when ctx ends.
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// Keepalive of TCP itself, below the keepalives of the protocols: it finds a
// machine that vanished without a word, and keeps address translation alive.
const (
	tcpKeepAliveIdle     = 20 * time.Second
	tcpKeepAliveInterval = 10 * time.Second
	tcpKeepAliveCount    = 4
)

func tcpKeepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{
		Enable:   true,
		Idle:     tcpKeepAliveIdle,
		Interval: tcpKeepAliveInterval,
		Count:    tcpKeepAliveCount,
	}
}

// TCP is the Fabric of real sockets.
type TCP struct{}

// Listen implements Fabric.
func (TCP) Listen(ctx context.Context, addr string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: tcpKeepAlive()}
	return lc.Listen(ctx, "tcp", addr)
}

// Dial implements Fabric.
func (TCP) Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: tcpKeepAlive()}
	return d.DialContext(ctx, "tcp", addr)
}
