package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"gotong/grid"

	"github.com/hashicorp/memberlist"
)

const (
	// incomingPackets that memberlist has not taken yet, all peers together;
	// when full, connections are not read until it has.
	incomingPackets = 256
	// incomingStreams that memberlist has not taken yet.
	incomingStreams = 16
	// maxStreams open at once, both ways; a further one is refused.
	maxStreams        = 128
	maxStreamsPerPeer = 8
	// acceptPause after a failed Accept, so that an error that stays does not
	// spin.
	acceptPause = 100 * time.Millisecond
)

var (
	errNoNodeName    = errors.New("gossip needs the name of the peer, not its address alone")
	errTooManyStream = errors.New("too many gossip streams")
)

// transport is memberlist's way to other peers. Packets go over one connection
// per pair, each push/pull over one of its own. Nothing in it blocks
// memberlist's probe and gossip loops: packets are queued, and dialled for in
// the background.
type transport struct {
	self        grid.PeerID
	network     Network
	allowed     func(grid.PeerID) bool // is an active member
	dialTimeout time.Duration
	log         *slog.Logger

	ctx     context.Context
	cancel  context.CancelFunc
	packets chan *memberlist.Packet
	streams chan net.Conn
	senders *recentSenders

	wg     sync.WaitGroup
	mu     sync.Mutex
	closed bool
	links  map[grid.PeerID]*link
	open   map[*stream]bool
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

// newTransport starts to accept connections. Shutdown ends it.
func newTransport(self grid.PeerID, network Network, allowed func(grid.PeerID) bool, dialTimeout time.Duration, senders *recentSenders, log *slog.Logger) *transport {
	ctx, cancel := context.WithCancel(context.Background())
	t := &transport{
		self: self, network: network, allowed: allowed, dialTimeout: dialTimeout, senders: senders, log: log,
		ctx: ctx, cancel: cancel,
		packets: make(chan *memberlist.Packet, incomingPackets),
		streams: make(chan net.Conn, incomingStreams),
		links:   make(map[grid.PeerID]*link),
		open:    make(map[*stream]bool),
	}
	packets, streams := network.Packets(), network.Streams()
	context.AfterFunc(ctx, func() {
		_ = packets.Close()
		_ = streams.Close()
	})
	t.spawn(func() { t.accept(packets, t.acceptPackets) })
	t.spawn(func() { t.accept(streams, t.acceptStream) })
	return t
}

// spawn runs f in a goroutine that Shutdown waits for; false when closed.
func (t *transport) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(f)
	return true
}

func (t *transport) accept(l net.Listener, take func(Conn)) {
	for t.ctx.Err() == nil {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			t.log.Debug("gossip accept failed", "err", err)
			select {
			case <-time.After(acceptPause):
			case <-t.ctx.Done():
			}
			continue
		}
		known, ok := conn.(Conn)
		if !ok || known.Peer() == t.self || !t.allowed(known.Peer()) {
			_ = conn.Close()
			continue
		}
		take(known)
	}
}

func (t *transport) acceptPackets(conn Conn) {
	l := t.link(conn.Peer())
	if l == nil {
		_ = conn.Close()
		return
	}
	_, _ = l.adopt(conn, false) // adopt closes what it does not take
}

// link returns the link to a peer, nil when the transport is closed. Links are
// as many as there are members: retain drops the others.
func (t *transport) link(peer grid.PeerID) *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	l := t.links[peer]
	if l == nil {
		l = &link{peer: peer, t: t, open: make(map[*session]bool)}
		t.links[peer] = l
	}
	return l
}

// retain cuts every connection of peers that are no members any more.
func (t *transport) retain() {
	t.mu.Lock()
	var gone []*link
	for peer, l := range t.links {
		if !t.allowed(peer) {
			gone = append(gone, l)
			delete(t.links, peer)
		}
	}
	var streams []*stream
	for s := range t.open {
		if !t.allowed(s.peer) {
			streams = append(streams, s)
		}
	}
	t.mu.Unlock()
	for _, l := range gone {
		l.shut()
	}
	for _, s := range streams {
		_ = s.Close()
	}
}

// connect makes sure that there is a gossip connection to the peer, whatever
// its back-off says.
func (t *transport) connect(ctx context.Context, peer grid.PeerID) error {
	l := t.link(peer)
	if l == nil {
		return net.ErrClosed
	}
	l.mu.Lock()
	connected := l.current != nil
	l.mu.Unlock()
	if connected {
		return nil
	}
	_, err := l.dial(ctx)
	return err
}

// retry ends the back-off of a peer, as after news of its addresses.
func (t *transport) retry(peer grid.PeerID) {
	t.mu.Lock()
	l := t.links[peer]
	t.mu.Unlock()
	if l != nil {
		l.reachable()
	}
}

// WriteToAddress queues a packet. It never blocks and never dials.
func (t *transport) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	peer, err := grid.ParsePeerID(addr.Name)
	if err != nil {
		return time.Time{}, errors.Join(errNoNodeName, err)
	}
	if len(b) == 0 || len(b) > maxPacketBytes {
		return time.Time{}, fmt.Errorf("gossip packet of %d bytes", len(b))
	}
	if !t.allowed(peer) {
		return time.Time{}, dialError(peer, grid.ErrNotMember)
	}
	l := t.link(peer)
	if l == nil {
		return time.Time{}, net.ErrClosed
	}
	if err := l.enqueue(b); err != nil {
		return time.Time{}, dialError(peer, err)
	}
	return time.Now(), nil
}

// dialError has the one type that makes memberlist's probe suspect the peer;
// on any other it gives up without an opinion.
func dialError(peer grid.PeerID, err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: syntheticAddr(peer), Err: err}
}

// WriteTo refuses: an address alone names no peer.
func (t *transport) WriteTo([]byte, string) (time.Time, error) { return time.Time{}, errNoNodeName }

// DialTimeout refuses: an address alone names no peer.
func (t *transport) DialTimeout(string, time.Duration) (net.Conn, error) { return nil, errNoNodeName }

// FinalAdvertiseAddr returns this peer's synthetic address.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return syntheticIP(t.self), syntheticPort, nil
}

// PacketCh is where memberlist takes packets from.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh is where memberlist takes accepted streams from.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown closes everything and waits until every goroutine of the transport
// has ended. It may be called again.
func (t *transport) Shutdown() error {
	t.mu.Lock()
	t.closed = true
	links, streams := make([]*link, 0, len(t.links)), make([]*stream, 0, len(t.open))
	for _, l := range t.links {
		links = append(links, l)
	}
	for s := range t.open {
		streams = append(streams, s)
	}
	t.mu.Unlock()
	t.cancel()
	for _, l := range links {
		l.shut()
	}
	for _, s := range streams {
		_ = s.Close()
	}
	t.wg.Wait()
	for {
		select {
		case c := <-t.streams:
			_ = c.Close()
		default:
			return nil
		}
	}
}

// recentSendersLen bounds the list of who sent packets last.
const recentSendersLen = 8

// recentSenders remembers who sent packets last, latest first. Memberlist does
// not tell from whom an alive message came; whoever sent packets just now is
// the one to ask about a PeerID that nobody here knows.
type recentSenders struct {
	mu   sync.Mutex
	list []grid.PeerID
}

func (r *recentSenders) note(peer grid.PeerID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.list, peer); i >= 0 {
		r.list = slices.Delete(r.list, i, i+1)
	}
	r.list = slices.Insert(r.list, 0, peer)
	r.list = r.list[:min(len(r.list), recentSendersLen)]
}

func (r *recentSenders) latest() []grid.PeerID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}
