package peernet

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/connectivity"
)

const (
	// hopeFor is how long a call waits for the connection to a peer that has
	// just shown that it is there, and how long that counts.
	hopeFor = 10 * time.Second
	// A dial that failed within quick may be repeated for a call after quickPause,
	// which waits for up to quickHope: a machine that refuses will do so quickly
	// again, or the peer there has started.
	quick      = 250 * time.Millisecond
	quickPause = 20 * time.Millisecond
	quickHope  = time.Second
)

// hope is what keeps calls to a peer that just came back from failing on what
// was tried before: gRPC fails every call at once from a failed dial until one
// that works. Without hope calls still fail at once.
type hope struct {
	mu     sync.Mutex
	since  time.Time
	until  time.Time
	lost   chan struct{} // closed when a dial failed since; nil without hope
	failed time.Time     // when the last dial failed
	took   time.Duration // how long that dial took
}

// raise says that the peer is there now.
func (h *hope) raise(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.raiseLocked(now, hopeFor)
}

func (h *hope) raiseLocked(now time.Time, d time.Duration) {
	h.since, h.until = now, now.Add(d)
	if h.lost == nil {
		h.lost = make(chan struct{})
	}
}

// dialFailed ends the hope, unless it is newer than the dial: then it reports
// that another dial is due.
func (h *hope) dialFailed(began time.Time) (again bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = time.Now()
	h.took = h.failed.Sub(began)
	if h.lost == nil {
		return false
	}
	if h.since.After(began) {
		return true
	}
	close(h.lost)
	h.lost = nil
	return false
}

// current returns a channel that is closed when the hope ends, and until when
// to wait; nil without hope.
func (h *hope) current(now time.Time) (lost <-chan struct{}, until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost != nil && now.Before(h.until) {
		return h.lost, h.until
	}
	if h.took > quick || now.Sub(h.failed) < quickPause {
		return nil, time.Time{}
	}
	h.raiseLocked(now, quickHope)
	return h.lost, h.until
}

// hurry connects at once to a peer that has just shown that it is there.
func (cl *client) hurry() {
	if cl.conn.GetState() == connectivity.Ready {
		return
	}
	cl.hope.raise(time.Now())
	cl.retry()
}

// retry ends the wait before the next attempt. gRPC may only be asked for it
// while it waits: before, it goes through its connections without a lock.
func (cl *client) retry() {
	if cl.conn.GetState() == connectivity.TransientFailure {
		cl.conn.ResetConnectBackoff()
	}
}

// await waits for the connection before a call that would fail at once although
// the peer may be back. It waits only as long as nothing says that it is not.
func (cl *client) await(ctx context.Context) {
	if cl.conn.GetState() != connectivity.TransientFailure {
		return
	}
	lost, until := cl.hope.current(time.Now())
	if lost == nil {
		return
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	go func() {
		select {
		case <-lost:
			cancel()
		case <-ctx.Done():
		}
	}()
	cl.retry() // in case it began to wait after hurry
	cl.conn.WaitForStateChange(ctx, connectivity.TransientFailure)
}
