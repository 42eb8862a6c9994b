package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"gotong/tasks"
)

// answer is what a candidate said.
type answer struct {
	candidate Candidate
	worker    Worker
	offer     Offer
	err       error
}

// compare asks the candidates and returns the better one. The others are free
// again.
func (m *matchmaker) compare(ctx context.Context, pair []Candidate) (answer, bool) {
	asking, cancel := context.WithTimeout(ctx, m.ledger.job.offerTimeout())
	defer cancel()
	answers := make(chan answer, len(pair))
	for _, candidate := range pair {
		m.wg.Go(func() { answers <- ask(asking, m.cfg.Pool, m.ledger.job.Header, candidate) })
	}
	var best answer
	found, grace := false, (<-chan time.Time)(nil)
	for left := len(pair); left > 0; left-- {
		select {
		case a := <-answers:
			switch {
			case a.err != nil:
				m.letGo(a.candidate.Peer, unlessOver(ctx, a.err))
			case !found:
				best, found = a, true
				grace = time.After(offerGrace)
			case m.ledger.job.better(a.offer, best.offer):
				m.letGo(best.candidate.Peer, nil)
				best = a
			default:
				m.letGo(a.candidate.Peer, nil)
			}
		case <-grace:
			m.freeLater(answers, left)
			return best, found
		}
	}
	return best, found
}

// freeLater frees the candidates whose answers are still to come. Their
// contexts have ended, so they come soon.
func (m *matchmaker) freeLater(answers <-chan answer, left int) {
	m.wg.Go(func() {
		for range left {
			a := <-answers
			if errors.Is(a.err, context.Canceled) {
				a.err = nil // it was not given its time
			}
			m.letGo(a.candidate.Peer, a.err)
		}
	})
}

func ask(ctx context.Context, pool Pool, h Header, candidate Candidate) answer {
	a := answer{candidate: candidate}
	a.worker, a.err = pool.Worker(candidate.Peer)
	if a.err == nil {
		a.offer, a.err = a.worker.Offer(ctx, h)
	}
	switch {
	case a.err == nil:
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		a.err = fmt.Errorf("no answer within %s", h.offerTimeout())
	case ctx.Err() != nil:
		a.err = ctx.Err()
	}
	return a
}

// dearBytes: so many bytes more to send or fetch weigh more than free slots.
const dearBytes = 4 << 20

// better reports whether offer a is to be preferred to b: tasks of the job that
// it has already first, then a free slot, then the contents that are there
// already, then the number of free slots.
func (h Header) better(a, b Offer) bool {
	if (a.Left > 0) != (b.Left > 0) {
		return a.Left > 0
	}
	if (a.Free > 0) != (b.Free > 0) {
		return a.Free > 0
	}
	lacksA, lacksB := h.missingBytes(a), h.missingBytes(b)
	if max(lacksA, lacksB)-min(lacksA, lacksB) < dearBytes && a.Free != b.Free {
		return a.Free > b.Free
	}
	return lacksA < lacksB
}

// missingBytes returns the size of what a worker lacks, as far as it is known.
func (h Header) missingBytes(o Offer) (total int64) {
	if len(o.Missing) == 0 {
		return 0
	}
	sizes := h.sizes()
	for _, id := range o.Missing {
		total += sizes[id]
	}
	return total
}

// sizes returns the sizes of the contents of the job. That of a module is known when
// it is stored; else it counts as little, but better there than not.
func (h Header) sizes() map[tasks.ContentID]int64 {
	sizes := make(map[tasks.ContentID]int64, 1+len(h.Inputs))
	if !h.Module.IsZero() {
		sizes[h.Module] = max(1, h.Stored[h.Module].Size)
	}
	for _, in := range h.Inputs {
		sizes[in.Content] = in.Size
	}
	return sizes
}

// bytes returns the size of the contents of the job, as far as it is known.
func (h Header) bytes() (total int64) {
	for _, size := range h.sizes() {
		total += size
	}
	return total
}

// offerTimeout is how long an offer may take: longer when there is much to ask about.
func (h Header) offerTimeout() time.Duration {
	asked := Part{Inputs: h.Inputs, Stored: h.Stored}.bytes()
	return offerTimeout + time.Duration(asked/offerRate)*time.Second
}

// offerRate is how many bytes a second of an offer a slow line takes.
const offerRate = 64 << 10

// How many candidates are compared: two, which is nearly as good as all, more
// when it matters who has the contents.
const (
	sampleFew  = 2
	sampleMany = 6
)

func (h Header) sample() int {
	if h.bytes() >= dearBytes {
		return sampleMany
	}
	return sampleFew
}

// supply sends the contents of the job that the worker lacks and cannot fetch.
// With push it sends those too that it should fetch, if they are here.
func (m *matchmaker) supply(ctx context.Context, a answer, push bool) error {
	missing := make(map[tasks.ContentID]bool, len(a.offer.Missing))
	for _, id := range a.offer.Missing {
		missing[id] = true
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(suppliesAtOnce)
	for _, id := range m.ledger.job.Contents() {
		_, stored := m.ledger.job.Stored[id]
		if (stored && !push) || !missing[id] {
			continue
		}
		group.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx) // another failed
			}
			err := putContent(ctx, m.cfg.Contents, a.worker, m.ledger.job.Header, id)
			var source sourceError
			if err == nil || (stored && errors.As(err, &source)) {
				return nil
			}
			return fmt.Errorf("content %s: %w", id.Short(), err)
		})
	}
	return group.Wait()
}

// suppliesAtOnce is how many contents of the job are sent to one worker at once.
const suppliesAtOnce = 8
