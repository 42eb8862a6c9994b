package shardstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// expireAfter is for how much of the running time the clock on the wall has to
// have been past a time before anything is removed because of it.
const expireAfter = time.Hour

// wallClock says which time has certainly come. A machine may wake up with a
// clock that is years ahead and have it set right a moment later: a time has
// come when the clock was past it for expireAfter of running time, without
// going back before it in between. Nothing of it outlives the process; that
// makes things stay longer.
type wallClock struct {
	mu      sync.Mutex
	sure    time.Time     // has come
	next    time.Time     // is sure if the clock is not before it expireAfter after at
	at      time.Duration // on the running clock
	started bool
}

// past returns a time that has certainly come, the zero time while there is none.
func (w *wallClock) past(now time.Time, running time.Duration) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	now = now.Round(0) // what the wall says, not what has passed
	switch {
	case !w.started || now.Before(w.next):
		w.next, w.at, w.started = now, running, true
		if now.Before(w.sure) {
			w.sure = now
		}
	case running-w.at >= expireAfter:
		w.sure, w.next, w.at = w.next, now, running
	}
	return w.sure
}

// expire removes the shards whose segments have expired. They do not go to the
// trash: their owner said from the start until when they are wanted. It returns
// the bytes freed, also beside an error.
func (s *Store) expire(ctx context.Context) (freed int64, err error) {
	past := s.wall.past(time.Now(), s.clock.now())
	if past.IsZero() {
		return 0, nil
	}
	seconds := past.Unix()
	for _, p := range s.cat.collect(s.cat.segments, func(seg *segment, _ shard) bool { return seg.expired(seconds) }) {
		if err := errors.Join(ctx.Err(), s.checkWrite()); err != nil {
			return freed, fmt.Errorf("remove what has expired: %w", err)
		}
		n, err := s.discard(p)
		freed += n
		if err != nil {
			return freed, fmt.Errorf("remove what has expired: %w", err)
		}
	}
	return freed, nil
}

// expired reports whether s expired by a time in Unix seconds.
func (s *segment) expired(at int64) bool { return s.expires != 0 && s.expires <= at }
