package membership

import (
	"bufio"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"gotong/grid"

	"github.com/hashicorp/memberlist"
)

// Bounds of the gossip transport, per peer.
const (
	// packetQueueLen packets wait for the connection at most; the oldest is
	// dropped, because gossip ages.
	packetQueueLen = 128
	// idleTimeout ends a connection on which nothing arrived for so long.
	idleTimeout = 5 * time.Minute
	// retireLinger is how long a replaced connection may still be read.
	retireLinger = 5 * time.Second
	// quietBeforeAsk and answerTimeout find connections that are open on this
	// side alone: the other end moved or its machine was cut off.
	quietBeforeAsk = 3 * time.Second
	answerTimeout  = 5 * time.Second
	writeTimeout   = 5 * time.Second
	// simultaneous is how young two connections of one pair must be to be
	// taken for dials that crossed.
	simultaneous = 10 * time.Second

	backOffMin = 500 * time.Millisecond
	backOffMax = 30 * time.Second
)

var errBackOff = errors.New("not dialled again yet after a failure")

// link is everything for gossip packets to one peer: the bounded queue, the
// connection in use and the dial back-off. Its goroutine lives only while
// there is something to send.
type link struct {
	peer grid.PeerID
	t    *transport

	mu       sync.Mutex
	queue    [][]byte // frames, oldest first
	sending  bool     // a goroutine empties the queue
	current  *session // to write to
	open     map[*session]bool
	failures int
	retryAt  time.Time
	dropped  uint64
}

// enqueue queues a packet and returns at once. It fails only while the peer
// is in dial back-off.
func (l *link) enqueue(packet []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == nil && time.Now().Before(l.retryAt) {
		return errBackOff
	}
	if len(l.queue) == packetQueueLen {
		copy(l.queue, l.queue[1:])
		l.queue = l.queue[:packetQueueLen-1]
		l.dropped++
	}
	l.queue = append(l.queue, appendFrame(make([]byte, 0, frameHeaderBytes+len(packet)), framePacket, packet))
	if !l.sending {
		l.sending = l.t.spawn(l.send)
	}
	return nil
}

// send empties the queue, dialling when there is no connection.
func (l *link) send() {
	for l.pending() {
		s, err := l.session()
		if err != nil {
			continue // the queue was dropped with the failure
		}
		dead, ask := s.liveness(time.Now())
		if dead {
			l.t.log.Debug("gossip connection is dead", "peer", l.peer)
			_ = s.Close()
			l.lost(s)
			continue
		}
		frames := l.take()
		if ask {
			frames = append(frames, appendFrame(nil, frameAsk, nil))
		}
		if err := s.send(frames...); err != nil {
			_ = s.Close()
			l.lost(s)
		}
	}
}

// pending reports whether there is something to send, and else ends the
// sending goroutine's claim in the same step.
func (l *link) pending() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sending = len(l.queue) > 0 && l.t.ctx.Err() == nil
	return l.sending
}

func (l *link) take() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	frames := l.queue
	l.queue = nil
	return frames
}

// session returns the connection in use, dialling one if there is none. Only
// the sending goroutine and connect call it.
func (l *link) session() (*session, error) {
	l.mu.Lock()
	current := l.current
	l.mu.Unlock()
	if current != nil {
		return current, nil
	}
	return l.dial(l.t.ctx)
}

func (l *link) dial(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, l.t.dialTimeout)
	defer cancel()
	conn, err := l.t.network.DialPackets(ctx, l.peer)
	if err != nil {
		l.failed()
		return nil, err
	}
	return l.adopt(conn, true)
}

// failed starts or lengthens the back-off and drops what waits: it would be
// stale by the next dial.
func (l *link) failed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current != nil {
		return // the other side dialled meanwhile
	}
	wait := min(backOffMin<<min(l.failures, 16), backOffMax)
	l.failures++
	l.retryAt = time.Now().Add(wait/2 + rand.N(wait/2))
	l.dropped += uint64(len(l.queue))
	l.queue = nil
}

// reachable ends the back-off: the peer was just heard of.
func (l *link) reachable() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures, l.retryAt = 0, time.Time{}
}

// adopt takes a new connection into use, or keeps the present one, and starts
// to read the new one either way. It returns the one to write to, and closes the
// new one when there are too many.
func (l *link) adopt(conn Conn, ours bool) (*session, error) {
	s := newSession(conn, ours)
	current, ok := l.add(s)
	if !ok {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	return current, nil
}

func (l *link) add(s *session) (current *session, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= maxSessionsPerPeer || !l.t.spawn(func() { l.read(s) }) {
		return nil, false
	}
	l.open[s] = true
	l.failures, l.retryAt = 0, time.Time{}
	if old := l.current; old != nil {
		if l.keeps(old, s) {
			s.retire(retireLinger)
			return old, true
		}
		old.retire(retireLinger)
	}
	l.current = s
	return s, true
}

// maxSessionsPerPeer bounds the current connection and those that linger.
const maxSessionsPerPeer = 4

// keeps decides between the connection in use and a new one. A peer dials only
// when it has none, so the new one stands, except when both sides dialled at
// the same time: then both keep the one that the lower PeerID dialled.
func (l *link) keeps(old, new *session) bool {
	if old.ours == new.ours || time.Since(old.since) > simultaneous {
		return false
	}
	lowerIsSelf := l.t.self.Compare(l.peer) < 0
	return old.ours == lowerIsSelf
}

// lost forgets a connection that failed or ended.
func (l *link) lost(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, s)
	if l.current == s {
		l.current = nil
	}
}

// shut closes all connections and drops the queue. Closing may take a moment,
// so it is not done under the lock.
func (l *link) shut() {
	l.mu.Lock()
	open := slices.Collect(maps.Keys(l.open))
	l.current, l.queue = nil, nil
	l.mu.Unlock()
	for _, s := range open {
		_ = s.Close()
	}
}

// read delivers what arrives on s until s ends.
func (l *link) read(s *session) {
	defer l.lost(s)
	defer s.Close()
	r := bufio.NewReader(s)
	for {
		s.expectRead(idleTimeout)
		kind, payload, err := readFrame(r)
		if err != nil {
			l.t.log.Debug("gossip connection ended", "peer", l.peer, "err", err)
			return
		}
		s.heard()
		switch kind {
		case framePacket:
			if !l.t.deliver(l.peer, payload) {
				return
			}
		case frameAsk:
			if err := s.send(appendFrame(nil, frameAnswer, nil)); err != nil {
				return
			}
		}
	}
}

// deliver hands a packet to memberlist; false when the transport is closed or
// the peer is no member any more.
func (t *transport) deliver(peer grid.PeerID, payload []byte) bool {
	if !t.allowed(peer) {
		return false
	}
	t.senders.note(peer)
	packet := &memberlist.Packet{Buf: payload, From: syntheticAddr(peer), Timestamp: time.Now()}
	select {
	case t.packets <- packet:
		return true
	case <-t.ctx.Done():
		return false
	}
}
