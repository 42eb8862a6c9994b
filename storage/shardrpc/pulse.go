package shardrpc

import (
	"context"
	"sync"
	"time"
)

// pulse ends a transfer that stands still. It runs only while this side waits
// for the other one: whoever uses the transfer may take its time between two
// steps. Its steps run one after another.
type pulse struct {
	limit  time.Duration
	cancel context.CancelCauseFunc
	timer  *time.Timer

	mu      sync.Mutex
	until   time.Time // when the present wait has taken too long; zero: no wait
	current time.Duration
}

// withPulse returns a context that ends with ErrStalled when one wait of the
// pulse takes longer than limit. The caller calls stop.
func withPulse(ctx context.Context, limit time.Duration) (context.Context, *pulse) {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &pulse{limit: limit, cancel: cancel}
	p.timer = time.AfterFunc(limit, p.fire)
	p.timer.Stop()
	return ctx, p
}

// wait runs step, which waits for the other side.
func (p *pulse) wait(step func() error) error { return p.waitFor(p.limit, step) }

// waitFor is wait with a limit of its own.
func (p *pulse) waitFor(limit time.Duration, step func() error) error {
	p.begin(limit)
	defer p.end()
	return step()
}

func (p *pulse) begin(limit time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current, p.until = limit, time.Now().Add(limit)
	p.timer.Reset(limit)
}

// touch says that something moved while the present wait, if there is one,
// still goes on. Any goroutine may call it.
func (p *pulse) touch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.until.IsZero() {
		p.until = time.Now().Add(p.current)
		p.timer.Reset(p.current)
	}
}

func (p *pulse) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = time.Time{}
	p.timer.Stop()
}

// fire runs when the timer does. It may come late, when the wait that started
// the timer is over and another one runs.
func (p *pulse) fire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.until.IsZero() && !time.Now().Before(p.until) {
		p.cancel(stalled(p.current))
	}
}

// stop ends the transfer with cause; nil is an ordinary end.
func (p *pulse) stop(cause error) {
	p.end()
	p.cancel(cause)
}
