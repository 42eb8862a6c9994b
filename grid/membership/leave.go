package membership

import (
	"context"
	"fmt"
)

// Leave tells the others that this peer stops now and comes back later: they
// show it as away at once instead of finding out. Call it before Run's context
// ends. It returns early when ctx ends; then some may have to find out.
func (m *Membership) Leave(ctx context.Context) error { return m.leave(ctx, stateStopping) }

// LeaveForGood tells the others that this peer does not come back: they show
// it as left for as long as they remember. Whoever really leaves also signs its
// own removal in the roster.
func (m *Membership) LeaveForGood(ctx context.Context) error { return m.leave(ctx, stateLeaving) }

func (m *Membership) leave(ctx context.Context, state string) error {
	m.mu.Lock()
	m.state = state
	m.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- m.leaveGossip() }() // bounded by Serf's own timeouts; end waits for it
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("membership: leave: %w", context.Cause(ctx))
	}
}

func (m *Membership) leaveGossip() error {
	m.tagging.take()
	defer m.tagging.give()
	s, _, ok := m.running()
	if !ok {
		return ErrRunning
	}
	if err := s.SetTags(m.tags().encode()); err != nil {
		m.cfg.Logger.Debug("leaving was not heard by anyone yet", "err", err)
	}
	if err := s.Leave(); err != nil {
		return fmt.Errorf("membership: leave: %w", err)
	}
	return nil
}
