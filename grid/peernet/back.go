package peernet

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"gotong/grid"
)

// backWaits pairs the connections that were asked for with those who wait.
type backWaits struct {
	mu    sync.Mutex
	waits map[nonce]backWait // one per running dialBack
}

type backWait struct {
	peer grid.PeerID
	got  chan outcome // room for one
}

func newBackWaits() *backWaits { return &backWaits{waits: map[nonce]backWait{}} }

func (b *backWaits) add(peer grid.PeerID) (nonce, chan outcome) {
	var id nonce
	_, _ = rand.Read(id[:]) // never fails
	got := make(chan outcome, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waits[id] = backWait{peer, got}
	return id, got
}

// resolve hands o to whoever waits for id from that very peer; false: nobody.
func (b *backWaits) resolve(id nonce, peer grid.PeerID, o outcome) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	w, ok := b.waits[id]
	if !ok || w.peer != peer {
		return false
	}
	delete(b.waits, id)
	w.got <- o
	return true
}

// remove ends the wait. A connection that came in the last moment is closed.
func (b *backWaits) remove(id nonce, got chan outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.waits, id)
	select {
	case o := <-got:
		if o.conn != nil {
			o.conn.cut()
		}
	default:
	}
}

// soon is how long a dial waits for a way to a peer that is connected here but
// cannot be dialled yet: it has started a moment ago, and its link or its
// addresses are on their way.
const soon = 3 * time.Second

// dialSoon waits until peer keeps a link here or has other addresses than those
// tried, and uses that. It waits as long as the direct attempts run, and then a
// little longer if the peer is connected here otherwise.
func (n *Net) dialSoon(ctx context.Context, peer grid.PeerID, proto Protocol, tried []string, directs <-chan struct{}) (*Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var patience <-chan time.Time
	var fresh chan outcome // of the addresses that came meanwhile; nil: none came
	defer func() {
		if fresh != nil {
			n.discard(fresh, 1)
		}
	}()
	for {
		arrived, changed := n.links.nextArrival(), n.cfg.Directory.Changed()
		if n.links.held(peer) != nil {
			return n.dialBack(ctx, peer, proto)
		}
		if now := n.cfg.Directory.Addresses(peer); fresh == nil && !slices.Equal(now, tried) {
			tried, fresh = now, make(chan outcome, 1)
			if !n.start(ctx, func(ctx context.Context) (*Conn, error) { return n.try(ctx, peer, n.directAttempts(peer, proto)) }, fresh) {
				return nil, net.ErrClosed
			}
		}
		select {
		case <-arrived:
		case <-changed:
		case o := <-fresh:
			fresh = nil
			if o.err == nil {
				return o.conn, nil
			}
		case <-directs:
			if fresh == nil && !n.connectedHere(peer) {
				return nil, errNoLink
			}
			directs, patience = nil, time.After(soon)
		case <-patience:
			return nil, errNoLink
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// connectedHere reports whether there is any connection with peer.
func (n *Net) connectedHere(peer grid.PeerID) bool {
	return len(n.live.matching(func(c *Conn) bool { return c.peer == peer })) > 0
}

// dialBack asks a peer over its link to dial this one, and returns that
// connection.
func (n *Net) dialBack(ctx context.Context, peer grid.PeerID, proto Protocol) (*Conn, error) {
	w := n.links.held(peer)
	if w == nil {
		return nil, errNoLink
	}
	id, got := n.backs.add(peer)
	defer n.backs.remove(id, got)
	if err := w.send(frame{kind: frameRequest, nonce: id, protocol: proto}); err != nil {
		w.conn.cut()
		return nil, fmt.Errorf("link: %w", err)
	}
	select {
	case o := <-got:
		if o.err != nil {
			return nil, o.err
		}
		if err := n.live.become(o.conn, proto, false); err != nil {
			return nil, err
		}
		return o.conn, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// receiveInternal takes accepted connections of the protocols of this package.
func (n *Net) receiveInternal(c *Conn) error {
	if c.proto == protoBack {
		return n.receiveBack(c)
	}
	if err := n.greet(c); err != nil {
		return err
	}
	if !n.group.spawn(func() { n.serveLink(c) }) {
		c.cut()
	}
	return nil
}

// receiveBack reads the nonce, which tells for whom the connection is.
func (n *Net) receiveBack(c *Conn) error {
	if err := writeHello(c, helloFor(n.cfg.Directory.Status(c.peer))); err != nil {
		return err
	}
	var id nonce
	if _, err := io.ReadFull(c, id[:]); err != nil {
		return err
	}
	if err := c.raw.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if !n.backs.resolve(id, c.peer, outcome{conn: c}) {
		return errNoLink
	}
	return nil
}

// answerRequest dials back, or says that it will not.
func (n *Net) answerRequest(k *keeper, w *wire, f frame) {
	select {
	case k.slots <- struct{}{}:
	default:
		n.refuseBack(w, f)
		return
	}
	ok := n.group.spawn(func() {
		defer func() { <-k.slots }()
		if err := n.connectBack(k.peer, f); err != nil {
			n.log.Debug("dial-back failed", "peer", k.peer.Short(), "protocol", f.protocol, "err", err)
			n.refuseBack(w, f)
		}
	})
	if !ok {
		<-k.slots
	}
}

func (n *Net) refuseBack(w *wire, f frame) {
	if err := w.send(frame{kind: frameRefusal, nonce: f.nonce}); err != nil {
		w.conn.cut()
	}
}

// connectBack makes the connection that was asked for and accepts it here as
// if the other side had dialled.
func (n *Net) connectBack(peer grid.PeerID, f frame) error {
	l := n.listenerOf(f.protocol)
	if l == nil || f.protocol == ProtoJoin {
		return fmt.Errorf("%w: %s", ErrProtocol, f.protocol)
	}
	if !n.live.room(peer, f.protocol) || !l.reserve() {
		return ErrBusy
	}
	c, err := n.openBack(peer, f.nonce)
	if err != nil {
		l.cancel()
		return err
	}
	if err := n.live.become(c, f.protocol, true); err != nil {
		l.cancel()
		c.cut()
		return err
	}
	l.deliver(c)
	return nil
}

func (n *Net) openBack(peer grid.PeerID, id nonce) (*Conn, error) {
	ctx, cancel := n.dialContext(n.ctx)
	defer cancel()
	c, err := n.try(ctx, peer, n.directAttempts(peer, protoBack))
	if err != nil {
		return nil, err
	}
	_ = c.SetWriteDeadline(time.Now().Add(linkWrite))
	if _, err := c.Write(id[:]); err != nil {
		c.cut()
		return nil, err
	}
	return c, c.SetWriteDeadline(time.Time{})
}
