package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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
	asking, cancel := context.WithTimeout(ctx, offerTimeout)
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
		a.err = fmt.Errorf("no answer within %s", offerTimeout)
	case ctx.Err() != nil:
		a.err = ctx.Err()
	}
	return a
}

// dearBytes: so many bytes more to send or fetch weigh more than free slots.
const dearBytes = 4 << 20

// better reports whether offer a is to be preferred to b: a free slot first,
// then the contents that are there already, then the number of free slots.
func (h Header) better(a, b Offer) bool {
	if (a.Free > 0) != (b.Free > 0) {
		return a.Free > 0
	}
	lacksA, lacksB := h.missingBytes(a), h.missingBytes(b)
	if max(lacksA, lacksB)-min(lacksA, lacksB) < dearBytes && a.Free != b.Free {
		return a.Free > b.Free
	}
	return lacksA < lacksB
}

// missingBytes returns the size of what a worker lacks, as far as it is known:
// that of a module is when it is stored.
func (h Header) missingBytes(o Offer) (total int64) {
	for _, id := range o.Missing {
		total += h.sizeOf(id)
	}
	return total
}

func (h Header) sizeOf(id tasks.ContentID) int64 {
	if s, ok := h.Stored[id]; ok {
		return s.Size
	}
	for _, in := range h.Inputs {
		if in.Content == id {
			return in.Size
		}
	}
	return 1 // a module: better there than not
}

// bytes returns the size of the contents of the job, as far as it is known.
func (h Header) bytes() (total int64) {
	for _, id := range h.Contents() {
		total += h.sizeOf(id)
	}
	return total
}

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
	for _, id := range m.ledger.job.Contents() {
		_, stored := m.ledger.job.Stored[id]
		if (stored && !push) || !slices.Contains(a.offer.Missing, id) {
			continue
		}
		err := putContent(ctx, m.cfg.Contents, a.worker, m.ledger.job.Header, id)
		var source sourceError
		if stored && errors.As(err, &source) {
			continue
		}
		if err != nil {
			return fmt.Errorf("content %s: %w", id.Short(), err)
		}
	}
	return nil
}
