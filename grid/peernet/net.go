package peernet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"gotong/grid"
	"gotong/grid/identity"
)

// Net is this peer's end of all connections. Its methods may be called from
// any goroutine.
type Net struct {
	cfg    Config
	self   grid.PeerID
	cert   tls.Certificate
	log    *slog.Logger
	server atomic.Pointer[tls.Config]

	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	closeOnce sync.Once
	group     group

	live    *liveConns
	gate    *gate
	joins   *joinRates
	backs   *backWaits
	links   *linkTable
	intros  *introductions
	nearest *lastGood
	hooks   hooks
	pace    *pace

	mu        sync.Mutex
	bound     net.Listener
	listeners map[Protocol]*listener
}

// New checks cfg and prepares a Net; it starts nothing. Close it even if Run is
// never called.
func New(cfg Config) (*Net, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cert, err := identity.Certificate(cfg.Node.Private())
	if err != nil {
		return nil, fmt.Errorf("peernet: %w", err)
	}
	n := &Net{
		cfg:       cfg,
		self:      cfg.Node.PeerID(),
		cert:      cert,
		log:       cfg.Logger,
		live:      newLiveConns(cfg.Limits),
		gate:      newGate(cfg.Limits),
		joins:     newJoinRates(cfg.Limits),
		backs:     newBackWaits(),
		links:     newLinkTable(cfg.Limits.Links),
		intros:    newIntroductions(),
		nearest:   newLastGood(),
		pace:      new(pace),
		listeners: map[Protocol]*listener{},
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.updateProtocolsLocked()
	return n, nil
}

// Self returns the id of this peer.
func (n *Net) Self() grid.PeerID { return n.self }

// Listen binds the listening port. Connections are served once Run is called.
func (n *Net) Listen() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.bound != nil {
		return errors.New("peernet: already listening")
	}
	l, err := n.cfg.Fabric.Listen(n.ctx, n.cfg.ListenAddr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", n.cfg.ListenAddr, err)
	}
	n.bound = l
	return nil
}

// Addr returns the bound address, or nil before Listen.
func (n *Net) Addr() net.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.bound == nil {
		return nil
	}
	return n.bound.Addr()
}

// Accept returns the listener of one protocol; its connections are *Conn. Until
// it is called, and after the listener was closed, the protocol is refused. A
// second call returns the same listener.
func (n *Net) Accept(proto Protocol) net.Listener {
	if proto.internal() {
		panic("peernet: Accept of an internal protocol")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if l, ok := n.listeners[proto]; ok {
		return l
	}
	l := newListener(proto, n.cfg.Limits.Backlog, n.Addr, func() { n.dropListener(proto) })
	n.listeners[proto] = l
	n.updateProtocolsLocked()
	return l
}

func (n *Net) dropListener(proto Protocol) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.listeners, proto)
	n.updateProtocolsLocked()
}

func (n *Net) listenerOf(proto Protocol) *listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.listeners[proto]
}

// Run serves until ctx ends or Close is called, then closes everything and
// returns nil once all goroutines have ended. Call Listen first.
func (n *Net) Run(ctx context.Context) error {
	n.mu.Lock()
	bound := n.bound
	n.mu.Unlock()
	if bound == nil {
		return errors.New("peernet: Run before Listen")
	}
	n.group.spawn(func() { n.acceptLoop(bound) })
	n.group.spawn(n.watchDirectory)
	n.group.spawn(n.keepLinks)
	select {
	case <-ctx.Done():
	case <-n.ctx.Done():
	}
	return n.Close()
}

// Close stops listening, cuts all connections and waits for every goroutine.
// It is idempotent.
func (n *Net) Close() error {
	n.closeOnce.Do(func() {
		n.cancel()
		n.mu.Lock()
		bound := n.bound
		all := make([]*listener, 0, len(n.listeners))
		for _, l := range n.listeners {
			all = append(all, l)
		}
		n.mu.Unlock()
		if bound != nil {
			_ = bound.Close()
		}
		for _, l := range all {
			_ = l.Close()
		}
		n.live.close()
		n.group.close()
	})
	return nil
}

// watchDirectory cuts the connections of whoever is no longer a member, as soon
// as the roster says so.
func (n *Net) watchDirectory() {
	for {
		changed := n.cfg.Directory.Changed()
		n.cutFormerMembers()
		n.intros.forget()
		n.nearest.prune(n.cfg.Directory)
		n.links.prune(n.cfg.Directory)
		n.hooks.directoryChanged()
		select {
		case <-changed:
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Net) cutFormerMembers() {
	former := n.live.matching(func(c *Conn) bool {
		return !c.stranger && n.cfg.Directory.Status(c.peer) != Member
	})
	for _, c := range former {
		n.log.Info("cut connection: not a member any more", "peer", c.peer.Short())
		c.cut()
	}
}

// hooks are called on events that tell clients that trying again may help.
type hooks struct {
	mu      sync.Mutex
	changed []func()
	seen    []func(grid.PeerID)
}

func (h *hooks) add(changed func(), seen func(grid.PeerID)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changed = append(h.changed, changed)
	h.seen = append(h.seen, seen)
}

func (h *hooks) directoryChanged() {
	h.mu.Lock()
	all := h.changed
	h.mu.Unlock()
	for _, f := range all {
		f()
	}
}

func (h *hooks) peerSeen(id grid.PeerID) {
	h.mu.Lock()
	all := h.seen
	h.mu.Unlock()
	for _, f := range all {
		f(id)
	}
}

// Linked reports whether a peer keeps a link here, which it does because it
// cannot be dialled from here.
func (n *Net) Linked(peer grid.PeerID) bool { return n.links.held(peer) != nil }
