package scheduler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gotong/tasks"
)

// How workers get the contents that only some tasks need.
const (
	// putsAtOnce is how many such contents are sent to one worker at once.
	putsAtOnce = 4
	// putsKnown bounds the contents that a claim remembers to have sent.
	putsKnown = 1 << 16
	// supplyBytes of contents of their own may the tasks have that one worker
	// holds, beyond one task for each slot.
	supplyBytes = 256 << 20
)

// supply is a task that waits for its contents to reach the worker. It is sent
// when they have.
type supply struct {
	handed *handed
	order  Order
}

// sourceError says that a content cannot be read where the job is driven.
type sourceError struct{ error }

// Unwrap returns the cause.
func (e sourceError) Unwrap() error { return e.error }

// puts are the contents that were sent to a worker, or are on their way.
type puts struct {
	mu   sync.Mutex
	sent map[tasks.ContentID]*put
}

type put struct {
	over chan struct{} // closed when it is known whether the worker has it
	err  error
}

func (p *put) ended() bool {
	select {
	case <-p.over:
		return true
	default:
		return false
	}
}

// have reports whether the worker was sent all of ids.
func (p *puts) have(ids []tasks.ContentID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		if sent := p.sent[id]; sent == nil || !sent.ended() {
			return false
		}
	}
	return true
}

// forget says that the worker may have lost ids.
func (p *puts) forget(ids []tasks.ContentID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		if sent := p.sent[id]; sent != nil && sent.ended() {
			delete(p.sent, id)
		}
	}
}

// begin returns the sending of id, and whether the caller has to do it.
func (p *puts) begin(id tasks.ContentID) (sent *put, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sent := p.sent[id]; sent != nil {
		return sent, false
	}
	if len(p.sent) >= putsKnown {
		for id, sent := range p.sent {
			if sent.ended() {
				delete(p.sent, id)
			}
		}
	}
	sent = &put{over: make(chan struct{})}
	p.sent[id] = sent
	return sent, true
}

// end ends what begin began. What failed may be tried again.
func (p *puts) end(id tasks.ContentID, sent *put, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sent.err = err; err != nil {
		delete(p.sent, id)
	}
	close(sent.over)
}

// supply sends contents as tasks come up that need them, until ctx ends.
func (c *claim) supply(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.supplyWake:
		}
		for {
			s, more := c.ledger.nextSupply(c)
			if more {
				c.wakeSupply() // another of us
			}
			if s.handed == nil {
				break
			}
			err := c.putAll(ctx, s.order.Part.contents())
			if ctx.Err() != nil {
				return // the claim gives the task back
			}
			if over := c.ledger.supplied(c, s, err, time.Now()); over != nil {
				c.stop(over)
			}
		}
	}
}

func (c *claim) wakeSupply() {
	select {
	case c.supplyWake <- struct{}{}:
	default:
	}
}

// putAll sends those contents that the worker was not sent yet.
func (c *claim) putAll(ctx context.Context, ids []tasks.ContentID) error {
	for _, id := range ids {
		sent, mine := c.puts.begin(id)
		if mine {
			c.puts.end(id, sent, putContent(ctx, c.contents, c.worker, c.ledger.job.Header, id))
		}
		select {
		case <-sent.over:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if sent.err != nil {
			return fmt.Errorf("content %s: %w", id.Short(), sent.err)
		}
	}
	return nil
}

// putContent sends one content to a worker.
func putContent(ctx context.Context, from Contents, to Worker, h Header, id tasks.ContentID) error {
	r, size, err := from.OpenContent(id)
	if err != nil {
		return sourceError{err}
	}
	defer r.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(contentIdle, func() { cancel(fmt.Errorf("took nothing for %s", contentIdle)) })
	defer idle.Stop()
	err = to.PutContent(ctx, h, id, size, &watched{r, idle})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// toSupply has the contents of a task sent before the task.
func (c *claim) toSupply(h *handed, order Order) {
	h.supplying = true
	c.supplies = append(c.supplies, supply{h, order})
	c.wakeSupply()
}

// nextSupply takes the next task that waits for contents, and reports whether
// more do.
func (l *ledger) nextSupply(c *claim) (s supply, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(c.supplies) == 0 {
		return s, false
	}
	s = c.supplies[0]
	c.supplies[0] = supply{}
	c.supplies = c.supplies[1:]
	return s, len(c.supplies) > 0
}

// supplied takes in that the contents of a task are at the worker of c, or why
// they cannot be. An error ends the claim.
func (l *ledger) supplied(c *claim, s supply, err error, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := s.handed
	if !c.computing() {
		c.ended = now
	}
	h.supplying, h.at = false, now
	defer c.wakeUp()
	var source sourceError
	switch {
	case h.entry.accepted: // another copy was faster
		l.drop(c, h)
	case err == nil:
		c.supplied = append(c.supplied, s.order)
	case errors.As(err, &source):
		l.drop(c, h)
		l.fail(h.entry, err)
	case errors.Is(err, tasks.ErrBusy):
		l.drop(c, h)
		l.retryElsewhere(c, h, err.Error(), false)
	case refusesContent(err):
		l.drop(c, h)
		l.retryElsewhere(c, h, err.Error(), true)
	default:
		h.supplying = true // it never reached the worker
		return err
	}
	return l.over(c)
}

// refusesContent reports whether the worker said no to a content, rather than
// failed.
func refusesContent(err error) bool {
	for _, no := range []error{tasks.ErrStoreFull, tasks.ErrContent, tasks.ErrRefused, tasks.ErrInvalid} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}
