package peernet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"gotong/grid"
)

// introductions sees to it that this peer introduces itself to another one at a
// time, and not over and over.
type introductions struct {
	mu   sync.Mutex
	runs map[grid.PeerID]*introduction // of members only, emptied at each change of the directory
}

// introduction is one showing of statements; err and ended are valid once done
// is closed.
type introduction struct {
	done  chan struct{}
	err   error
	ended time.Time
}

func newIntroductions() *introductions {
	return &introductions{runs: map[grid.PeerID]*introduction{}}
}

// forget lets every introduction that has ended be tried again.
func (i *introductions) forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for peer, run := range i.runs {
		select {
		case <-run.done:
			delete(i.runs, peer)
		default:
		}
	}
}

// begin returns the introduction to peer, and whether the caller has to run it.
func (i *introductions) begin(peer grid.PeerID, again time.Duration) (*introduction, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if run, ok := i.runs[peer]; ok && !run.stale(again) {
		return run, false
	}
	run := &introduction{done: make(chan struct{})}
	i.runs[peer] = run
	return run, true
}

// stale: it succeeded before this refusal, or failed long enough ago.
func (r *introduction) stale(again time.Duration) bool {
	select {
	case <-r.done:
		return r.err == nil || time.Since(r.ended) >= again
	default:
		return false
	}
}

// removedBy lists who answered that this peer was removed.
func (i *introductions) removedBy() []grid.PeerID {
	i.mu.Lock()
	defer i.mu.Unlock()
	var peers []grid.PeerID
	for peer, run := range i.runs {
		select {
		case <-run.done:
			if errors.Is(run.err, grid.ErrRemoved) {
				peers = append(peers, peer)
			}
		default:
		}
	}
	slices.SortFunc(peers, grid.PeerID.Compare)
	return peers
}

// RemovedBy lists the members that said, when this peer dialled them last, that
// it was removed from the grid. It is what they say: the roster here may not
// have heard of it, since who is removed is told nothing more.
func (n *Net) RemovedBy() []grid.PeerID { return n.intros.removedBy() }

func (r *introduction) finish(err error) {
	r.err = err
	r.ended = time.Now()
	close(r.done)
}

// introduce makes this peer known to one that refused it; nil when dialling
// again makes sense.
func (n *Net) introduce(ctx context.Context, peer grid.PeerID) error {
	run, mine := n.intros.begin(peer, n.cfg.Timers.IntroduceAgain)
	if mine {
		err := n.showStatements(ctx, peer)
		if err != nil {
			n.log.Info("introduction failed", "peer", peer.Short(), "err", err)
		}
		run.finish(err)
		return err
	}
	select {
	case <-run.done:
		return run.err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", grid.ErrNotMember, context.Cause(ctx))
	}
}

// showStatements opens join to the peer. Its hello already tells whether this
// peer was removed, or became known meanwhile.
func (n *Net) showStatements(ctx context.Context, peer grid.PeerID) error {
	c, err := n.try(ctx, peer, n.directAttempts(peer, ProtoJoin))
	if err != nil {
		return fmt.Errorf("%w, and join failed: %w", grid.ErrNotMember, err)
	}
	defer c.Close()
	if c.standing == Member {
		return nil
	}
	if n.cfg.Introduce == nil {
		return c.standing.err()
	}
	if err := n.cfg.Introduce(ctx, c); err != nil {
		if errors.Is(err, grid.ErrRemoved) {
			return err
		}
		return fmt.Errorf("%w: introduction: %w", grid.ErrNotMember, err)
	}
	return nil
}
