package peernet

import (
	"net/netip"
	"sync"

	"golang.org/x/time/rate"
)

// joinRatesMax bounds the addresses whose rate of joining is remembered, in
// each of two generations.
const joinRatesMax = 2048

// joinRates bounds how fast strangers of one address open join connections.
// When the present generation is full, the one before it is forgotten.
type joinRates struct {
	limit rate.Limit
	burst int

	mu      sync.Mutex
	present map[netip.Prefix]*rate.Limiter
	former  map[netip.Prefix]*rate.Limiter
}

func newJoinRates(limits Limits) *joinRates {
	return &joinRates{
		limit:   rate.Limit(float64(limits.JoinsPerMinute) / 60),
		burst:   limits.JoinsPerAddress,
		present: map[netip.Prefix]*rate.Limiter{},
	}
}

// allow takes one join connection from the account of the address.
func (j *joinRates) allow(key netip.Prefix) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	r, ok := j.present[key]
	if !ok {
		r = j.enterLocked(key)
	}
	return r.Allow()
}

func (j *joinRates) enterLocked(key netip.Prefix) *rate.Limiter {
	r := j.former[key]
	if r == nil {
		r = rate.NewLimiter(j.limit, j.burst)
	}
	if len(j.present) >= joinRatesMax {
		j.present, j.former = map[netip.Prefix]*rate.Limiter{}, j.present
	}
	j.present[key] = r
	return r
}
