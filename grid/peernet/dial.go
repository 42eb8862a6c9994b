package peernet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"gotong/grid"
)

// Dial connects to a member by its id: over a link that the peer keeps here, at
// its addresses, whichever answers first. It returns once the other side has
// said hello. When the other side does not know this peer, Config.Introduce is
// called once and the dial repeated.
//
// Errors: grid.ErrUnknownPeer (not a member in this peer's roster),
// grid.ErrRemoved (in either roster), grid.ErrNotMember (in the other side's
// roster), grid.ErrUnreachable, ErrBusy, ErrProtocol, ErrSelf, net.ErrClosed.
func (n *Net) Dial(ctx context.Context, peer grid.PeerID, proto Protocol) (*Conn, error) {
	if proto.internal() {
		return nil, fmt.Errorf("dial %s: %w: %s", peer.Short(), ErrProtocol, proto)
	}
	return n.dialPeer(ctx, peer, proto, n.attempts(peer, proto))
}

// DialAddr is DialAny with one address.
func (n *Net) DialAddr(ctx context.Context, addr string, want grid.PeerID, proto Protocol) (*Conn, error) {
	return n.DialAny(ctx, []string{addr}, want, proto)
}

// DialAny connects to one of the addresses and expects want there: each gets a
// head start before the next is tried too, and whichever answers first wins. It
// is how a joiner, whose roster is still empty, reaches its inviter; on any
// other protocol than ProtoJoin want must be a member. Errors are those of Dial.
func (n *Net) DialAny(ctx context.Context, addresses []string, want grid.PeerID, proto Protocol) (*Conn, error) {
	if proto.internal() {
		return nil, fmt.Errorf("dial %s: %w: %s", want.Short(), ErrProtocol, proto)
	}
	var all []attempt
	for _, addr := range addresses[:min(len(addresses), grid.MaxAddresses)] {
		all = append(all, n.direct(addr, want, proto))
	}
	return n.dialPeer(ctx, want, proto, all)
}

// dialPeer checks the roster, tries, and introduces this peer when needed.
func (n *Net) dialPeer(ctx context.Context, peer grid.PeerID, proto Protocol, attempts []attempt) (*Conn, error) {
	if err := n.mayDial(peer, proto); err != nil {
		return nil, fmt.Errorf("dial %s: %w", peer.Short(), err)
	}
	ctx, cancel := n.dialContext(ctx)
	defer cancel()
	c, err := n.try(ctx, peer, attempts)
	if proto == ProtoJoin || !errors.Is(err, grid.ErrNotMember) {
		return c, err
	}
	if why := n.introduce(ctx, peer); why != nil {
		return nil, fmt.Errorf("dial %s: %w", peer.Short(), why)
	}
	return n.try(ctx, peer, attempts)
}

func (n *Net) mayDial(peer grid.PeerID, proto Protocol) error {
	if n.ctx.Err() != nil {
		return net.ErrClosed
	}
	if peer == n.self {
		return ErrSelf
	}
	if proto == ProtoJoin {
		return nil
	}
	err := n.cfg.Directory.Status(peer).err()
	if errors.Is(err, grid.ErrNotMember) {
		return grid.ErrUnknownPeer // the fault is not the other side's opinion of us
	}
	return err
}

// dialContext ends with ctx, with the Net, and in any case after a while.
func (n *Net) dialContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if _, bounded := ctx.Deadline(); !bounded {
		ctx, cancel = withTimeout(ctx, n.cfg.Timers.Dial, cancel)
	}
	stop := context.AfterFunc(n.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

func withTimeout(ctx context.Context, d time.Duration, outer context.CancelFunc) (context.Context, context.CancelFunc) {
	ctx, inner := context.WithTimeout(ctx, d)
	return ctx, func() { inner(); outer() }
}

// attempts lists the ways to a peer: first over its link, if it keeps one, then
// its addresses, the one that worked last before the others; then, if it is
// connected here otherwise, what comes up within a moment.
func (n *Net) attempts(peer grid.PeerID, proto Protocol) []attempt {
	tried := n.cfg.Directory.Addresses(peer)
	direct := n.directAttempts(peer, proto)
	if proto == ProtoJoin {
		return direct
	}
	if n.links.held(peer) != nil {
		return append([]attempt{func(ctx context.Context) (*Conn, error) { return n.dialBack(ctx, peer, proto) }}, direct...)
	}
	ended := whenAllEnd(direct)
	return append(direct, func(ctx context.Context) (*Conn, error) { return n.dialSoon(ctx, peer, proto, tried, ended) })
}

// whenAllEnd wraps the attempts in place; the channel is closed when each has
// been made and has ended.
func whenAllEnd(attempts []attempt) <-chan struct{} {
	ended := make(chan struct{})
	var left atomic.Int64
	left.Store(int64(len(attempts)))
	if len(attempts) == 0 {
		close(ended)
	}
	for i, a := range attempts {
		attempts[i] = func(ctx context.Context) (*Conn, error) {
			defer func() {
				if left.Add(-1) == 0 {
					close(ended)
				}
			}()
			return a(ctx)
		}
	}
	return ended
}

func (n *Net) directAttempts(peer grid.PeerID, proto Protocol) []attempt {
	var all []attempt
	addresses := n.nearest.sort(peer, n.cfg.Directory.Addresses(peer))
	for _, addr := range addresses[:min(len(addresses), grid.MaxAddresses)] {
		all = append(all, n.direct(addr, peer, proto))
	}
	return all
}

// direct is the attempt at one address.
func (n *Net) direct(addr string, want grid.PeerID, proto Protocol) attempt {
	return func(ctx context.Context) (*Conn, error) {
		raw, err := n.cfg.Fabric.Dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		c, err := n.handshakeOutbound(ctx, raw, want, proto)
		if err != nil {
			_ = raw.Close()
			return nil, fmt.Errorf("%s: %w", addr, err)
		}
		n.nearest.set(want, addr)
		return c, nil
	}
}

// handshakeOutbound runs TLS as the dialling side and waits for the hello.
func (n *Net) handshakeOutbound(ctx context.Context, raw net.Conn, want grid.PeerID, proto Protocol) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timers.Handshake)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()

	under := newBufferedConn(raw)
	session := tls.Client(under, n.clientTLS(want, proto))
	if err := session.HandshakeContext(ctx); err != nil {
		if isRemoteAlert(err) { // nothing but the protocol can displease it yet
			err = fmt.Errorf("%w: %s (%w)", ErrProtocol, proto, err)
		}
		return nil, err
	}
	standing, err := readHello(session)
	if isRemoteAlert(err) {
		err = fmt.Errorf("%w (%w)", grid.ErrNotMember, err)
	}
	if err == nil && proto != ProtoJoin {
		err = standing.err()
	}
	if err != nil {
		return nil, err
	}
	return n.registerOutbound(session, under, standing, stop)
}

// registerOutbound makes the greeted session one of the live connections. stop
// disarms the closing of raw by the dial's context.
func (n *Net) registerOutbound(session *tls.Conn, under *bufferedConn, standing Standing, stop func() bool) (*Conn, error) {
	c, err := newConn(session, under, true)
	if err != nil {
		return nil, err
	}
	c.standing = standing
	if err := n.live.add(c); err != nil {
		return nil, err
	}
	if !stop() {
		c.cut()
		return nil, context.Canceled
	}
	if !c.stranger && n.cfg.Directory.Status(c.peer) != Member {
		c.cut()
		return nil, grid.ErrRemoved
	}
	return c, nil
}
