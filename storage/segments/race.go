package segments

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// errNoSource says that nobody is known to have what is wanted.
var errNoSource = errors.New("no holder is known")

// race tries sources one after another, the next one as soon as one fails or
// has been quiet for HedgeMin, and returns the first success. What failed is
// returned beside it. Each try moves size bytes.
func race[T any](ctx context.Context, s *Segments, sources []source, size int, try func(*attempt) (T, error)) (T, causes, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnough)
	r := &racing[T]{s: s, try: try, size: size, sources: sources, results: make(chan raced[T], len(sources)), last: errNoSource}
	value, err := r.run(ctx)
	return value, r.failed, err
}

// racing is the state of one race. One goroutine owns it.
type racing[T any] struct {
	s       *Segments
	try     func(*attempt) (T, error)
	size    int
	sources []source // not tried yet
	running []*attempt
	results chan raced[T]
	failed  causes
	last    error // the latest failure
}

type raced[T any] struct {
	*attempt
	value T
	err   error
}

func (r *racing[T]) run(ctx context.Context) (value T, err error) {
	alarm := newAlarm()
	defer alarm.at(time.Time{})
	for {
		for len(r.sources) > 0 && !slices.ContainsFunc(r.running, isSound) {
			r.start(ctx)
		}
		if len(r.running) == 0 {
			return value, r.last
		}
		select {
		case e := <-r.results:
			if e.err == nil {
				r.won(e.attempt)
				return e.value, nil
			}
			if !e.over {
				r.fail(e.attempt, e.err)
			}
		case now := <-alarm.at(r.nextEvent()):
			r.onTime(now)
		case <-ctx.Done():
			return value, context.Cause(ctx)
		}
	}
}

func (r *racing[T]) start(ctx context.Context) {
	a := r.s.newAttempt(ctx, r.sources[0].peer, r.sources[0].shard, r.size)
	r.sources = r.sources[1:]
	r.running = append(r.running, a)
	r.s.running.Go(func() {
		value, err := r.try(a)
		r.results <- raced[T]{a, value, err}
	})
}

func (r *racing[T]) fail(a *attempt, err error) {
	r.running = slices.DeleteFunc(r.running, func(other *attempt) bool { return other == a })
	a.over = true
	a.cancel(err)
	r.failed.add(a.peer, err)
	r.s.peers.failed(a.peer, err, toGet)
	r.last = err
}

// won remembers which of the others were slow.
func (r *racing[T]) won(winner *attempt) {
	for _, a := range r.running {
		if a.hedged && a != winner {
			r.s.peers.failed(a.peer, errStraggler, toGet)
		}
	}
}

func (r *racing[T]) nextEvent() (when time.Time) {
	for _, a := range r.running {
		when = earliest(when, a.idleAt())
		if !a.hedged {
			when = earliest(when, a.quiet(r.s.cfg.HedgeMin))
		}
	}
	return when
}

func (r *racing[T]) onTime(now time.Time) {
	for _, a := range slices.Clone(r.running) {
		switch {
		case !now.Before(a.idleAt()):
			r.fail(a, fmt.Errorf("%w (%s)", ErrTimeout, r.s.cfg.IdleTimeout))
		case !now.Before(a.quiet(r.s.cfg.HedgeMin)):
			a.hedged = true
		}
	}
}
