package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// chunk is a piece of the bytes on their way.
type chunk struct {
	data    []byte
	arrives time.Time
}

// flow is one direction of a connection: bytes in order, each with the time at
// which it arrives.
type flow struct {
	limit int

	mu      sync.Mutex
	chunks  []chunk
	size    int
	eof     *time.Time    // when the end arrives; nil while open
	deaf    bool          // the reading end is closed
	err     error         // the connection was reset
	changed chan struct{} // closed and replaced at every change
}

func newFlow(limit int) *flow {
	return &flow{limit: limit, changed: make(chan struct{})}
}

func (f *flow) changedLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// put takes as much of p as has room; wait is closed when there may be more.
// heard says whether news of the reading end gets through.
func (f *flow) put(p []byte, latency time.Duration, heard bool) (n int, wait <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
		return 0, nil, f.err
	case f.eof != nil:
		return 0, nil, net.ErrClosed
	case f.deaf && heard:
		return 0, nil, syscall.EPIPE
	}
	n = min(len(p), f.limit-f.size)
	if n > 0 {
		f.chunks = append(f.chunks, chunk{append([]byte(nil), p[:n]...), time.Now().Add(latency)})
		f.size += n
		f.changedLocked()
	}
	return n, f.changed, nil
}

// take reads what has arrived. If nothing has, wait is closed at the next
// change, and until is when the next bytes arrive, if any are on their way.
func (f *flow) take(p []byte) (n int, wait <-chan struct{}, until time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
		return 0, nil, time.Time{}, f.err
	case f.deaf:
		return 0, nil, time.Time{}, net.ErrClosed
	}
	now := time.Now()
	for n < len(p) && len(f.chunks) > 0 && !f.chunks[0].arrives.After(now) {
		c := &f.chunks[0]
		took := copy(p[n:], c.data)
		n += took
		if c.data = c.data[took:]; len(c.data) == 0 {
			f.chunks = f.chunks[1:]
		}
	}
	switch {
	case n > 0:
		f.size -= n
		f.changedLocked()
	case len(f.chunks) > 0:
		until = f.chunks[0].arrives
	case f.eof != nil && !f.eof.After(now):
		err = io.EOF
	case f.eof != nil:
		until = *f.eof
	}
	return n, f.changed, until, err
}

// end says that nothing follows.
func (f *flow) end(latency time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.eof != nil {
		return
	}
	at := time.Now().Add(latency)
	f.eof = &at
	f.changedLocked()
}

// closeReader makes further reads and, once heard of, writes fail.
func (f *flow) closeReader() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deaf = true
	f.changedLocked()
}

// fail makes reads and writes fail at once.
func (f *flow) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return
	}
	f.err, f.chunks, f.size = err, nil, 0
	f.changedLocked()
}

// deadline is a time that can change while somebody waits for it.
type deadline struct {
	mu      sync.Mutex
	at      time.Time
	changed chan struct{}
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	if d.changed != nil {
		close(d.changed)
	}
	d.changed = make(chan struct{})
}

func (d *deadline) get() (at time.Time, changed <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changed == nil {
		d.changed = make(chan struct{})
	}
	return d.at, d.changed
}

// waitFor returns when something closed, or until (if not zero) is reached, or
// fails when the deadline has passed.
func (d *deadline) waitFor(until time.Time, a, b <-chan struct{}) error {
	at, changed := d.get()
	next := until
	if !at.IsZero() {
		if !at.After(time.Now()) {
			return os.ErrDeadlineExceeded
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	var alarm <-chan time.Time
	if !next.IsZero() {
		t := time.NewTimer(time.Until(next))
		defer t.Stop()
		alarm = t.C
	}
	select {
	case <-a:
	case <-b:
	case <-changed:
	case <-alarm:
	}
	return nil
}
