package peernet

import (
	"errors"
	"slices"
	"sync"
	"time"

	"gotong/grid"
)

const (
	// linkWrite bounds the sending of one frame on a link.
	linkWrite = 10 * time.Second
	// pingsMissed is after how many silent ping intervals a link is dead.
	pingsMissed = 3
	// probeAgain is how long the outcome of a probe stands, so that nobody can
	// make this peer knock at some address over and over.
	probeAgain = 5 * time.Second
)

// Link is one connection over which dial-back is asked for.
type Link struct {
	Peer grid.PeerID
	// Kept: this peer keeps the link because Peer cannot dial it. Otherwise
	// Peer keeps it here.
	Kept  bool
	Since time.Time
}

// wire is a link's connection; frames may be sent from several goroutines.
type wire struct {
	conn  *Conn
	since time.Time
	mu    sync.Mutex // one frame at a time
}

func (w *wire) send(f frame) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.conn.SetWriteDeadline(time.Now().Add(linkWrite))
	_, err := w.conn.Write(f.encode())
	return err
}

func (w *wire) receive(patience time.Duration) (frame, error) {
	_ = w.conn.SetReadDeadline(time.Now().Add(patience))
	return readFrame(w.conn)
}

// probed is a remembered answer to "can this peer be dialled from here".
type probed struct {
	at        time.Time
	addresses []string
	dialable  bool
}

// linkTable knows the links in both directions.
type linkTable struct {
	max int

	mu      sync.Mutex
	holding map[grid.PeerID]*wire   // kept here by peers that cannot be dialled
	keepers map[grid.PeerID]*keeper // one for each other member
	arrived chan struct{}           // closed when the next link is held
	told    chan struct{}           // closed when a member next says whether it can dial this peer
	probes  map[grid.PeerID]probed
	seen    map[grid.PeerID]time.Time // when a peer last dialled this one
}

func newLinkTable(limit int) *linkTable {
	return &linkTable{
		max:     limit,
		holding: map[grid.PeerID]*wire{},
		keepers: map[grid.PeerID]*keeper{},
		arrived: make(chan struct{}),
		told:    make(chan struct{}),
		probes:  map[grid.PeerID]probed{},
		seen:    map[grid.PeerID]time.Time{},
	}
}

// held returns the link that peer keeps here, or nil.
func (t *linkTable) held(peer grid.PeerID) *wire {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.holding[peer]
}

// hold makes w the peer's link; a former one is closed. False: no room.
func (t *linkTable) hold(w *wire) bool {
	t.mu.Lock()
	former := t.holding[w.conn.peer]
	if former == nil && len(t.holding) >= t.max {
		t.mu.Unlock()
		return false
	}
	t.holding[w.conn.peer] = w
	close(t.arrived)
	t.arrived = make(chan struct{})
	t.mu.Unlock()
	if former != nil {
		former.conn.cut()
	}
	return true
}

// nextArrival returns a channel that is closed when a link is held from now on.
func (t *linkTable) nextArrival() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.arrived
}

func (t *linkTable) release(w *wire) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.holding[w.conn.peer] == w {
		delete(t.holding, w.conn.peer)
	}
}

// dialledUs notes that peer can dial this one.
func (t *linkTable) dialledUs(peer grid.PeerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen[peer] = time.Now()
}

func (t *linkTable) dialledUsWithin(peer grid.PeerID, d time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, ok := t.seen[peer]
	return ok && time.Since(at) < d
}

// lastProbe returns a fresh enough answer for the same addresses.
func (t *linkTable) lastProbe(peer grid.PeerID, addresses []string) (dialable, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.probes[peer]
	ok = ok && time.Since(p.at) < probeAgain && slices.Equal(p.addresses, addresses)
	return p.dialable, ok
}

func (t *linkTable) setProbe(peer grid.PeerID, addresses []string, dialable bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.probes[peer] = probed{time.Now(), addresses, dialable}
}

// prune forgets who is no longer a member, which bounds the tables.
func (t *linkTable) prune(d Directory) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for peer := range t.probes {
		if d.Status(peer) != Member {
			delete(t.probes, peer)
		}
	}
	for peer := range t.seen {
		if d.Status(peer) != Member {
			delete(t.seen, peer)
		}
	}
}

// Links returns the links as they are now, ordered by peer.
func (n *Net) Links() []Link {
	t := n.links
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Link, 0, len(t.holding))
	for peer, w := range t.holding {
		all = append(all, Link{Peer: peer, Since: w.since})
	}
	for peer, k := range t.keepers {
		if since, verdict := k.state(); verdict == notDialable && !since.IsZero() {
			all = append(all, Link{Peer: peer, Kept: true, Since: since})
		}
	}
	slices.SortFunc(all, func(a, b Link) int { return a.Peer.Compare(b.Peer) })
	return all
}

// Dialable returns how many members said that they can dial this peer, and how
// many that they cannot.
func (n *Net) Dialable() (yes, no int) {
	t := n.links
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range t.keepers {
		switch _, v := k.state(); v {
		case dialable:
			yes++
		case notDialable:
			no++
		}
	}
	return yes, no
}

// serveLink is the side of a link that may ask for dial-back. It first tries
// whether the keeper can be dialled after all.
func (n *Net) serveLink(c *Conn) {
	w := &wire{conn: c, since: time.Now()}
	defer c.Close()
	if !n.links.hold(w) {
		return
	}
	defer n.links.release(w)
	probing := make(chan struct{}, 1)
	n.probeFor(w, probing)
	for {
		f, err := w.receive(pingsMissed * n.cfg.Timers.LinkPing)
		if err != nil {
			return
		}
		switch f.kind {
		case framePing:
			err = w.send(frame{kind: framePong})
		case frameCheck:
			n.probeFor(w, probing)
		case frameRefusal:
			n.backs.resolve(f.nonce, c.peer, outcome{err: errBackRefused})
		}
		if err != nil {
			return
		}
	}
}

// probeFor probes the keeper of w, one probe at a time, and tells it the
// verdict. A peer that can be dialled needs no link, so it is not used any more.
func (n *Net) probeFor(w *wire, probing chan struct{}) {
	select {
	case probing <- struct{}{}:
	default:
		return // the running probe answers this one too
	}
	n.group.spawn(func() {
		defer func() { <-probing }()
		ok := n.probe(w.conn.peer)
		if ok {
			n.links.release(w)
		}
		if err := w.send(frame{kind: frameVerdict, dialable: ok}); err != nil {
			w.conn.cut()
		}
	})
}

// probe reports whether peer can be dialled at its addresses from here.
func (n *Net) probe(peer grid.PeerID) bool {
	addresses := n.cfg.Directory.Addresses(peer)
	if ok, known := n.links.lastProbe(peer, addresses); known {
		return ok
	}
	ctx, cancel := n.dialContext(n.ctx)
	defer cancel()
	ctx, cancelProbe := withTimeout(ctx, n.cfg.Timers.Handshake, cancel)
	defer cancelProbe()
	c, err := n.try(ctx, peer, n.directAttempts(peer, protoProbe))
	if err == nil {
		_ = c.Close()
	}
	// Busy is an answer of the peer itself: it was reached.
	ok := err == nil || errors.Is(err, ErrBusy)
	n.links.setProbe(peer, addresses, ok)
	return ok
}
