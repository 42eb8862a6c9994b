package taskrpc

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"gotong/tasks"
)

// drainLinger is how long a drained service waits for callers, who were told
// everything, to end their claims themselves.
const drainLinger = time.Second

// Drain takes no more claims, gives tasks that have not started back to their
// callers with the reason, and waits until those that run have been reported;
// when ctx ends they are stopped. The claims are closed when it returns.
func (s *Service) Drain(ctx context.Context, why string) {
	s.giveBackAll(cmp.Or(why, tasks.ErrStopped.Error()))
	s.awaitReports(ctx)
	s.mu.Lock()
	open, closing := slices.Clone(s.claims), s.closing
	s.mu.Unlock()
	for _, c := range open {
		s.close(c, fmt.Errorf("%s: %w", closing, tasks.ErrStopped))
	}
	s.tasks.Wait()
}

func (s *Service) giveBackAll(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = why
	for len(s.left) > 0 {
		s.endLeft(s.left[0])
	}
	for _, c := range s.claims {
		c.refuse(why)
	}
}

// awaitReports waits until every claim is closed, or has reported all and not
// been closed for drainLinger, or ctx ends.
func (s *Service) awaitReports(ctx context.Context) {
	linger := time.NewTimer(drainLinger)
	defer linger.Stop()
	for {
		claims, unreported := s.unreported()
		if claims == 0 {
			return
		}
		if unreported > 0 {
			linger.Reset(drainLinger)
		}
		select {
		case <-ctx.Done():
			return
		case <-linger.C:
			if unreported == 0 {
				return
			}
		case <-s.quiet:
		}
	}
}

func (s *Service) unreported() (claims, unreported int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.claims {
		unreported += len(c.known)
	}
	return len(s.claims), unreported
}

// hush tells awaitReports that there is less to wait for.
func (s *Service) hush() {
	if s.closing == "" {
		return
	}
	select {
	case s.quiet <- struct{}{}:
	default:
	}
}

// Withdraw gives the tasks of all claims that have not started back to their
// callers with the reason and takes no more of them; callers who claim anew are
// asked for anew. Tasks that run go on.
func (s *Service) Withdraw(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.claims {
		c.refuse(why)
	}
}

// Nudge says that the runner may have more slots than before.
func (s *Service) Nudge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dispatch()
}

// refuse gives back what waits and takes no more.
func (c *claim) refuse(why string) {
	c.closing = why
	for _, q := range c.queue {
		c.giveBack(q.order.Index, why)
	}
	c.queue, c.queueBytes = nil, 0
	c.wakeUp()
}
