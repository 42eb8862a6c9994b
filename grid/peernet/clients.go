package peernet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"gotong/grid"
)

// clientsMax bounds the pool; connections that are idle make room.
const clientsMax = 1024

// Backoff between attempts of a client to reconnect. A change of the directory,
// or the peer dialling here, ends the wait.
const (
	reconnectMin = 500 * time.Millisecond
	reconnectMax = 15 * time.Second
)

// Clients is the pool of gRPC connections to other peers, one for each. They
// connect at the first call, reconnect by themselves, and disconnect when idle.
type Clients struct {
	net       *Net
	opts      []grpc.DialOption
	connected func(grid.PeerID) // may be nil

	mu     sync.Mutex
	closed bool
	byPeer map[grid.PeerID]*client
}

// client is the connection to one peer.
type client struct {
	conn   *grpc.ClientConn
	failed atomic.Pointer[error] // why the last dial failed; nil after one that worked
	hope   hope
}

// NewClients makes an empty pool over n; opts are applied last. Close it before
// n.
func NewClients(n *Net, opts ...grpc.DialOption) *Clients {
	c := &Clients{net: n, opts: opts, byPeer: map[grid.PeerID]*client{}}
	n.hooks.add(c.retryAll, c.Returned)
	return c
}

// OnConnect sets what is called after each dial that worked: the peer is there
// again, whatever failed before. f must not block. Call OnConnect before Conn.
func (c *Clients) OnConnect(f func(grid.PeerID)) { c.connected = f }

// Conn returns the connection to peer without waiting for it; the pool owns
// it. Calls fail with codes.Unavailable while the peer cannot be reached, and
// errors.Is then also finds the reason of Dial (grid.ErrUnreachable and others).
// Conn itself fails for who is no member (grid.ErrUnknownPeer, grid.ErrRemoved),
// when the pool is full of busy connections (ErrBusy), and after Close.
func (c *Clients) Conn(peer grid.PeerID) (*grpc.ClientConn, error) {
	if err := c.net.mayDial(peer, ProtoGRPC); err != nil {
		return nil, fmt.Errorf("call %s: %w", peer.Short(), err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, net.ErrClosed
	}
	if cl, ok := c.byPeer[peer]; ok {
		return cl.conn, nil
	}
	if len(c.byPeer) >= clientsMax && !c.evictLocked() {
		return nil, fmt.Errorf("call %s: pool of clients: %w", peer.Short(), ErrBusy)
	}
	cl, err := c.open(peer)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", peer.Short(), err)
	}
	c.byPeer[peer] = cl
	return cl.conn, nil
}

// evictLocked closes clients that are idle anyway, or of former members.
func (c *Clients) evictLocked() bool {
	evicted := false
	for peer, cl := range c.byPeer {
		former := c.net.cfg.Directory.Status(peer) != Member
		if former || cl.conn.GetState() == connectivity.Idle {
			_ = cl.conn.Close()
			delete(c.byPeer, peer)
			evicted = true
		}
	}
	return evicted
}

func (c *Clients) open(peer grid.PeerID) (*client, error) {
	cl := &client{}
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		for {
			began := time.Now()
			conn, err := c.net.Dial(ctx, peer, ProtoGRPC)
			if err == nil {
				cl.failed.Store(nil)
				if c.connected != nil {
					c.connected(peer)
				}
				return conn, nil
			}
			cl.failed.Store(&err)
			if again := cl.hope.dialFailed(began); !again || ctx.Err() != nil {
				return nil, err
			}
		}
	}
	opts := append(clientOptions(c.net.pace),
		grpc.WithContextDialer(dial),
		grpc.WithAuthority(authority(peer)),
		grpc.WithChainUnaryInterceptor(cl.guardUnary),
		grpc.WithChainStreamInterceptor(cl.guardStream))
	conn, err := grpc.NewClient("passthrough:///"+peer.String(), append(opts, c.opts...)...)
	cl.conn = conn
	return cl, err
}

func clientOptions(p *pace) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(sessionCredentials{p}),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(ConnIdle),
		grpc.WithMaxHeaderListSize(MaxHeaderBytes),
		grpc.WithInitialWindowSize(streamWindowBytes),
		grpc.WithInitialConnWindowSize(connWindowBytes),
		grpc.WithWriteBufferSize(writeBufferBytes),
		grpc.WithReadBufferSize(readBufferBytes),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(MaxMessageBytes),
			grpc.MaxCallSendMsgSize(MaxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:    clientPing,
			Timeout: clientPingTimeout,
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay:  reconnectMin,
				Multiplier: 1.6,
				Jitter:     0.2,
				MaxDelay:   reconnectMax,
			},
			MinConnectTimeout: DefaultTimers().Dial,
		}),
	}
}

// Close closes all connections; calls that run on them fail. It is idempotent.
func (c *Clients) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var faults []error
	for peer, cl := range c.byPeer {
		faults = append(faults, cl.conn.Close())
		delete(c.byPeer, peer)
	}
	return errors.Join(faults...)
}

// Returned tells that peer has just shown that it is there: it is connected to
// at once, and calls wait for that for a moment instead of failing because of
// what was tried before.
func (c *Clients) Returned(peer grid.PeerID) {
	c.mu.Lock()
	cl := c.byPeer[peer]
	c.mu.Unlock()
	if cl != nil {
		cl.hurry()
	}
}

// retryAll ends all waits before the next attempt.
func (c *Clients) retryAll() {
	c.mu.Lock()
	all := make([]*client, 0, len(c.byPeer))
	for _, cl := range c.byPeer {
		all = append(all, cl)
	}
	c.mu.Unlock()
	for _, cl := range all {
		cl.retry()
	}
}

// guardUnary gives every call a deadline.
func (cl *client) guardUnary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultUnaryTimeout)
		defer cancel()
	}
	cl.await(ctx)
	return cl.explain(invoke(ctx, method, req, reply, conn, opts...))
}

// guardStream gives every stream an idle limit.
func (cl *client) guardStream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	cl.await(ctx)
	stream, err := open(ctx, desc, conn, method, opts...)
	if err != nil {
		cancel(nil)
		return nil, cl.explain(err)
	}
	return watchClientStream(ctx, cancel, stream, !desc.ServerStreams), nil
}

// unreachable is a failed call with the reason why its peer was not reached.
type unreachable struct {
	call error // of gRPC, with its status
	dial error
}

func (u *unreachable) Error() string { return u.dial.Error() }

// Unwrap implements errors.Is and As over both.
func (u *unreachable) Unwrap() []error { return []error{u.call, u.dial} }

// GRPCStatus keeps the code for status.FromError and status.Code.
func (u *unreachable) GRPCStatus() *status.Status { return status.Convert(u.call) }

// explain adds the reason of the failed dial to a call that failed for it.
func (cl *client) explain(err error) error {
	dial := cl.failed.Load()
	if dial == nil || status.Code(err) != codes.Unavailable {
		return err
	}
	return &unreachable{call: err, dial: *dial}
}
