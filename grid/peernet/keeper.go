package peernet

import (
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"gotong/grid"
)

const (
	// linkStart is the mean wait before the first link to a member: gossip
	// usually dials meanwhile and so answers the question.
	linkStart = time.Second
	// linkRetryMin is the first wait after a failed or lost link.
	linkRetryMin = time.Second
)

// verdict is whether one member can dial this peer.
type verdict int

const (
	notKnown verdict = iota
	dialable
	notDialable
)

// keeper finds out whether one member can dial this peer, and keeps a link to
// it when it cannot.
type keeper struct {
	peer  grid.PeerID
	print string        // of the addresses of both sides; guarded by linkTable.mu
	poke  chan struct{} // something changed, check now
	slots chan struct{} // running dial-backs

	mu      sync.Mutex
	since   time.Time // start of the link; zero: none
	verdict verdict
	told    time.Time // when the peer last said it
}

func (k *keeper) state() (time.Time, verdict) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.since, k.verdict
}

func (k *keeper) setVerdict(v verdict) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.verdict, k.told = v, time.Now()
}

func (k *keeper) setSince(t time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.since = t
}

// keepLinks has one keeper for each other member, as many as the limit allows,
// and pokes those for which an address changed.
func (n *Net) keepLinks() {
	for {
		changed := n.cfg.Directory.Changed()
		own := strings.Join(n.cfg.Directory.Addresses(n.self), " ")
		for _, peer := range n.cfg.Directory.Members() {
			if peer != n.self {
				n.ensureKeeper(peer, own+"|"+strings.Join(n.cfg.Directory.Addresses(peer), " "))
			}
		}
		select {
		case <-changed:
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Net) ensureKeeper(peer grid.PeerID, print string) {
	n.links.mu.Lock()
	defer n.links.mu.Unlock()
	k, ok := n.links.keepers[peer]
	switch {
	case ok && k.print == print:
	case ok:
		k.print = print
		select {
		case k.poke <- struct{}{}:
		default: // one poke is waiting already
		}
	case len(n.links.keepers) < n.links.max:
		k = &keeper{
			peer:  peer,
			print: print,
			poke:  make(chan struct{}, 1),
			slots: make(chan struct{}, n.cfg.Limits.BackPerLink),
		}
		if n.group.spawn(func() { n.runKeeper(k) }) {
			n.links.keepers[peer] = k
		}
	}
}

// runKeeper works until the peer is no longer a member.
func (n *Net) runKeeper(k *keeper) {
	defer func() {
		n.links.mu.Lock()
		defer n.links.mu.Unlock()
		delete(n.links.keepers, k.peer)
	}()
	retry, changed := linkRetryMin, false
	for wait := linkStart; ; {
		poked, alive := n.waitPoked(k, jitter(wait))
		if !alive || n.cfg.Directory.Status(k.peer) != Member {
			return
		}
		if changed = changed || poked; changed {
			retry = linkRetryMin
		}
		err := n.keepLink(k, changed)
		wait, changed = n.cfg.Timers.LinkCheck, false
		if err != nil {
			n.log.Debug("no link", "peer", k.peer.Short(), "err", err)
			wait, retry = retry, min(2*retry, n.cfg.Timers.LinkCheck)
			continue
		}
		retry = linkRetryMin
	}
}

// waitPoked waits; alive is false when the Net was closed.
func (n *Net) waitPoked(k *keeper, d time.Duration) (poked, alive bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return false, true
	case <-k.poke:
		return true, true
	case <-n.ctx.Done():
		return false, false
	}
}

// jitter spreads d over ±50 %, so that peers do not act in step.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d+1)
}

// keepLink asks the peer whether it can dial this one. It returns nil when it
// can; when it cannot, it serves the link and returns why that ended.
func (n *Net) keepLink(k *keeper, changed bool) error {
	// Half the interval: the probe of the check before must not stand for this one.
	if !changed && n.links.dialledUsWithin(k.peer, n.cfg.Timers.LinkCheck/2) {
		k.setVerdict(dialable)
		return nil
	}
	c, err := n.dialPeer(n.ctx, k.peer, protoLink, n.directAttempts(k.peer, protoLink))
	if err != nil {
		return err
	}
	defer c.Close()
	w := &wire{conn: c, since: time.Now()}
	k.setSince(w.since)
	defer k.setSince(time.Time{})
	done := make(chan struct{})
	defer close(done)
	n.group.spawn(func() { n.nurseLink(k, w, done) })
	return n.serveRequests(k, w)
}

// nurseLink pings, and asks again from time to time whether the link is needed.
func (n *Net) nurseLink(k *keeper, w *wire, done <-chan struct{}) {
	ping := time.NewTicker(n.cfg.Timers.LinkPing)
	defer ping.Stop()
	check := time.NewTicker(n.cfg.Timers.LinkCheck)
	defer check.Stop()
	for {
		kind := framePing
		select {
		case <-ping.C:
		case <-check.C:
			kind = frameCheck
		case <-k.poke:
			kind = frameCheck
		case <-done:
			return
		}
		if err := w.send(frame{kind: kind}); err != nil {
			w.conn.cut()
			return
		}
	}
}

// serveRequests reads the link until it ends or is not needed any more (nil).
func (n *Net) serveRequests(k *keeper, w *wire) error {
	for {
		f, err := w.receive(pingsMissed * n.cfg.Timers.LinkPing)
		if err != nil {
			return err
		}
		switch f.kind {
		case frameVerdict:
			if f.dialable {
				k.setVerdict(dialable)
				n.links.announce()
				return nil
			}
			if _, v := k.state(); v != notDialable {
				n.log.Info("peer cannot dial here, link kept", "peer", k.peer.Short())
			}
			k.setVerdict(notDialable)
			n.links.announce()
		case frameRequest:
			n.answerRequest(k, w, f)
		}
	}
}
