package peernet

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"gotong/grid"
)

// attempt is one way to connect to a peer.
type attempt func(ctx context.Context) (*Conn, error)

type outcome struct {
	conn *Conn
	err  error
}

// try races the attempts ("happy eyeballs"): each gets a head start before the
// next one begins, or less if it fails before; the first connection wins and
// the others are closed. The wanted peer's own refusal ends the race.
func (n *Net) try(ctx context.Context, peer grid.PeerID, attempts []attempt) (*Conn, error) {
	if len(attempts) == 0 {
		return nil, dialError(peer, []error{errNoAddress})
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	outcomes := make(chan outcome, len(attempts)) // room for all: losers never block
	var causes []error
	started := 0
	head := time.NewTimer(0)
	defer head.Stop()
	for len(causes) < len(attempts) {
		select {
		case <-head.C:
			if started == len(attempts) {
				continue
			}
			if !n.start(ctx, attempts[started], outcomes) {
				return nil, net.ErrClosed
			}
			started++
			head.Reset(n.cfg.Timers.Stagger)
		case o := <-outcomes:
			if o.err == nil {
				n.discard(outcomes, started-len(causes)-1)
				return o.conn, nil
			}
			causes = append(causes, o.err)
			if final(o.err) {
				n.discard(outcomes, started-len(causes))
				return nil, dialError(peer, causes)
			}
			head.Reset(0)
		case <-ctx.Done():
			n.discard(outcomes, started-len(causes))
			return nil, dialError(peer, append(causes, context.Cause(ctx)))
		}
	}
	return nil, dialError(peer, causes)
}

func (n *Net) start(ctx context.Context, a attempt, outcomes chan<- outcome) bool {
	return n.group.spawn(func() {
		c, err := a(ctx)
		outcomes <- outcome{c, err}
	})
}

// discard closes what the losers of a race still bring; their context is about
// to end, so that is soon.
func (n *Net) discard(outcomes <-chan outcome, running int) {
	if running == 0 {
		return
	}
	n.group.spawn(func() {
		for range running {
			if o := <-outcomes; o.conn != nil {
				o.conn.cut()
			}
		}
	})
}

// lastGood remembers the address at which each peer answered last.
type lastGood struct {
	mu   sync.Mutex
	addr map[grid.PeerID]string // of members only, see prune
}

func newLastGood() *lastGood { return &lastGood{addr: map[grid.PeerID]string{}} }

func (l *lastGood) set(peer grid.PeerID, addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addr[peer] = addr
}

// sort returns addresses with the one that worked last in front.
func (l *lastGood) sort(peer grid.PeerID, addresses []string) []string {
	l.mu.Lock()
	good := l.addr[peer]
	l.mu.Unlock()
	i := slices.Index(addresses, good)
	if i <= 0 {
		return addresses
	}
	sorted := make([]string, 0, len(addresses))
	sorted = append(sorted, good)
	sorted = append(sorted, addresses[:i]...)
	return append(sorted, addresses[i+1:]...)
}

// prune forgets who is no longer a member, which bounds the table.
func (l *lastGood) prune(d Directory) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for peer := range l.addr {
		if d.Status(peer) != Member {
			delete(l.addr, peer)
		}
	}
}
