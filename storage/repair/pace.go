package repair

import (
	"context"
	"sync"
	"time"
)

// budget keeps to a number of bytes each second over all that it is asked for.
// Who asks for much waits afterwards, not before, so a large piece needs no
// saving up. The zero value has no limit.
type budget struct {
	mu   sync.Mutex
	rate int64
	free time.Time // when the next may start
}

// wait takes bytes from the budget and waits for its turn.
func (b *budget) wait(ctx context.Context, bytes int64) error {
	b.mu.Lock()
	if b.rate <= 0 {
		b.mu.Unlock()
		return ctx.Err()
	}
	now := time.Now()
	start := b.free
	if start.Before(now) {
		start = now
	}
	b.free = start.Add(time.Duration(float64(bytes) / float64(b.rate) * float64(time.Second)))
	b.mu.Unlock()
	return sleep(ctx, start.Sub(now))
}

// set changes the rate for what is asked for from now on.
func (b *budget) set(rate int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rate = rate
}

// sleep waits, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
