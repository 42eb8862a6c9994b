package peernet

import "time"

// Bounds of gRPC between peers.
const (
	// MaxMessageBytes bounds one message, both ways.
	MaxMessageBytes = 4 << 20
	// MaxStreams that one connection may have open at once.
	MaxStreams = 256
	// MaxHeaderBytes bounds the header list of one call.
	MaxHeaderBytes = 16 << 10
	// DefaultUnaryTimeout is the deadline of a unary call that brings none, and
	// the longest that the serving side works on one.
	DefaultUnaryTimeout = 30 * time.Second
	// StreamIdle is how long one side of a stream waits for the other. Streams
	// that are quiet by nature send heartbeats more often than that.
	StreamIdle = 2 * time.Minute
	// ConnIdle is how long a connection without calls is kept.
	ConnIdle = 5 * time.Minute
)

// Flow control and buffers, for shards that stream at the speed of the disk
// and over long distances: a window of 4 MiB fills 320 Mbit/s at 100 ms.
const (
	streamWindowBytes = 4 << 20
	connWindowBytes   = 8 << 20
	writeBufferBytes  = 128 << 10
	readBufferBytes   = 32 << 10
)

const (
	// clientPing finds a dead connection while calls run; the server allows
	// pings up to twice as often.
	clientPing        = 20 * time.Second
	clientPingTimeout = 10 * time.Second
	serverPingMin     = 10 * time.Second
	// serverPing finds a client that vanished.
	serverPing        = 30 * time.Second
	serverPingTimeout = 15 * time.Second
	// preface bounds the HTTP/2 preface after the hello.
	preface = 10 * time.Second
)
