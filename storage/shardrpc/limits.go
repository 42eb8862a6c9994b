package shardrpc

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"gotong/grid"
)

// maxCallers bounds how many callers are remembered. Beyond it those that are
// idle are forgotten, which forgives them what they used up.
const maxCallers = 4096

// limits is what one caller may use.
type limits struct {
	streams   int
	perSecond float64
	burst     int

	proofsPerSecond float64
	proofsBurst     int
}

// callers keeps each caller within its limits. The zero value has none left.
type callers struct {
	limits limits
	mu     sync.Mutex
	known  map[grid.PeerID]*usage
}

type usage struct {
	streams int // transfers now
	calls   int // of any kind now
	rate    *rate.Limiter
	proofs  *rate.Limiter
}

// enter counts one call, a transfer or another one, until done is called. It
// returns ErrBusy when the caller is over its limits.
func (c *callers) enter(peer grid.PeerID, transfer bool) (done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.usage(peer)
	if transfer && u.streams >= c.limits.streams {
		return nil, fmt.Errorf("%w: %d transfers", ErrBusy, u.streams)
	}
	if !u.rate.Allow() {
		return nil, fmt.Errorf("%w: more than %g a second", ErrBusy, c.limits.perSecond)
	}
	u.calls++
	if transfer {
		u.streams++
	}
	return func() { c.leave(u, transfer) }, nil
}

func (c *callers) usage(peer grid.PeerID) *usage {
	if u, ok := c.known[peer]; ok {
		return u
	}
	if c.known == nil || len(c.known) >= maxCallers {
		c.forgetIdle()
	}
	u := &usage{
		rate:   rate.NewLimiter(rate.Limit(c.limits.perSecond), c.limits.burst),
		proofs: rate.NewLimiter(rate.Limit(c.limits.proofsPerSecond), c.limits.proofsBurst),
	}
	c.known[peer] = u
	return u
}

// prove counts the groups that are to be proved to a caller.
func (c *callers) prove(peer grid.PeerID, groups int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.usage(peer).proofs.AllowN(time.Now(), groups) {
		return fmt.Errorf("%w: more than %g groups to be proved a second", ErrBusy, c.limits.proofsPerSecond)
	}
	return nil
}

func (c *callers) forgetIdle() {
	kept := make(map[grid.PeerID]*usage)
	for peer, u := range c.known {
		if u.calls > 0 {
			kept[peer] = u
		}
	}
	c.known = kept
}

func (c *callers) leave(u *usage, transfer bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u.calls--
	if transfer {
		u.streams--
	}
}
