package contents

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"gotong/tasks"
)

// Bounds of a Fetcher.
const (
	// fetcherAtOnce is how many contents are fetched at once, fetcherBytes how
	// many bytes of them together count: a large one counts as largeFetch.
	fetcherAtOnce = 8
	fetcherBytes  = 64 << 20
	largeFetch    = fetcherBytes / 2
)

// Cache is where a worker keeps contents, within a bound of its own.
type Cache interface {
	// Missing returns those of ids that are not there.
	Missing(ids []tasks.ContentID) []tasks.ContentID
	// Put stores size bytes of r once they were found to hash to id.
	Put(ctx context.Context, id tasks.ContentID, size int64, r io.Reader) error
}

// Fetcher fills the cache of a worker. Whoever asks for a content that is on its
// way already waits for it. It is safe for concurrent use.
type Fetcher struct {
	contents *Contents
	cache    Cache
	weight   *semaphore.Weighted
	slots    chan struct{}

	mu      sync.Mutex
	fetches map[tasks.ContentID]*shared
}

// NewFetcher returns a Fetcher that starts nothing.
func NewFetcher(c *Contents, cache Cache) *Fetcher {
	return &Fetcher{
		contents: c, cache: cache, weight: semaphore.NewWeighted(fetcherBytes),
		slots: make(chan struct{}, fetcherAtOnce), fetches: map[tasks.ContentID]*shared{},
	}
}

// shared is a content on its way, for all who wait for it.
type shared struct {
	job     Job // whose key and segments are used
	done    chan struct{}
	err     error
	cancel  context.CancelCauseFunc
	waiters map[*waiter]struct{} // guarded by Fetcher.mu
}

// waiter is one who waits for a content.
type waiter struct{ progress func() }

// errNobodyWaits ends a fetch.
var errNobodyWaits = errors.New("nobody waits for it any more")

// Fetch returns when those of ids are in the cache that at knows to be stored.
// progress, if not nil, is called while bytes arrive; it must return quickly.
// The error says what could not be fetched and why. What was fetched may be
// pushed out of the cache at any time.
func (f *Fetcher) Fetch(ctx context.Context, job Job, ids []tasks.ContentID, at func(tasks.ContentID) (tasks.Stored, bool), progress func()) error {
	group, fetching := errgroup.WithContext(ctx)
	group.SetLimit(fetcherAtOnce)
	for _, id := range f.cache.Missing(ids) {
		stored, ok := at(id)
		if !ok {
			continue
		}
		group.Go(func() error {
			if fetching.Err() != nil {
				return context.Cause(fetching) // another failed
			}
			return f.fetch(fetching, job, id, stored, progress)
		})
	}
	switch err := group.Wait(); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return fmt.Errorf("%w: %w", tasks.ErrNoContent, err)
	}
}

// fetch waits for one content. When another's fetch failed, whose key may have
// been wrong, it tries with its own.
func (f *Fetcher) fetch(ctx context.Context, job Job, id tasks.ContentID, stored tasks.Stored, progress func()) error {
	w := &waiter{progress}
	for {
		s, mine := f.join(ctx, job, id, stored, w)
		if s == nil {
			return nil // it came meanwhile
		}
		select {
		case <-s.done:
		case <-ctx.Done():
		}
		f.leave(s, w)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case s.err == nil || mine || s.job.ID == job.ID:
			return s.err
		}
	}
}

// join adds w to those who wait for a content, and begins to fetch it if nobody
// does; nil when it is here.
func (f *Fetcher) join(ctx context.Context, job Job, id tasks.ContentID, stored tasks.Stored, w *waiter) (s *shared, mine bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.fetches[id]; s != nil {
		s.waiters[w] = struct{}{}
		return s, false
	}
	if len(f.cache.Missing([]tasks.ContentID{id})) == 0 {
		return nil, false
	}
	s = &shared{job: job, done: make(chan struct{}), waiters: map[*waiter]struct{}{w: {}}}
	fetching, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s.cancel = cancel
	f.fetches[id] = s
	go func() {
		err := f.run(fetching, s, id, stored)
		cancel(nil)
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.fetches[id] == s {
			delete(f.fetches, id)
		}
		s.err = err
		close(s.done)
	}()
	return s, true
}

// leave takes w out; a fetch for which nobody waits ends, and nobody joins it.
func (f *Fetcher) leave(s *shared, w *waiter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(s.waiters, w)
	if len(s.waiters) > 0 {
		return
	}
	s.cancel(errNobodyWaits)
	for id, other := range f.fetches {
		if other == s {
			delete(f.fetches, id)
		}
	}
}

// run fetches a content into the cache.
func (f *Fetcher) run(ctx context.Context, s *shared, id tasks.ContentID, stored tasks.Stored) error {
	weight := min(stored.Size, largeFetch)
	if err := f.weight.Acquire(ctx, max(weight, 0)); err != nil {
		return context.Cause(ctx)
	}
	defer f.weight.Release(max(weight, 0))
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	r, err := f.contents.Open(ctx, s.job, id, stored)
	if err != nil {
		return err
	}
	defer r.Close()
	return f.cache.Put(ctx, id, stored.Size, &noted{r, func() { f.note(s) }})
}

// note tells all who wait that bytes came.
func (f *Fetcher) note(s *shared) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range s.waiters {
		if w.progress != nil {
			w.progress()
		}
	}
}

// noted notes each read.
type noted struct {
	io.Reader
	note func()
}

// Read implements io.Reader.
func (n *noted) Read(p []byte) (int, error) {
	c, err := n.Reader.Read(p)
	if c > 0 {
		n.note()
	}
	return c, err
}
