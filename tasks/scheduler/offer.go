package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
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
			case better(a.offer, best.offer):
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

// better reports whether offer a is to be preferred to b.
func better(a, b Offer) bool {
	if a.Free != b.Free {
		return a.Free > b.Free
	}
	return len(a.Missing) < len(b.Missing)
}

// supply sends the contents of the job that the worker lacks and cannot fetch.
func (m *matchmaker) supply(ctx context.Context, a answer) error {
	for _, id := range m.ledger.job.Contents() {
		if _, stored := m.ledger.job.Stored[id]; stored || !slices.Contains(a.offer.Missing, id) {
			continue
		}
		if err := putContent(ctx, m.cfg.Contents, a.worker, m.ledger.job.Header, id); err != nil {
			return fmt.Errorf("content %s: %w", id.Short(), err)
		}
	}
	return nil
}
