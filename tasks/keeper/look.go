package keeper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/tasks"
)

// look looks after one job until ctx ends or the job is forgotten.
func (j *kept) look(ctx context.Context) {
	tries := 0 // leases for which the driver was missed and others should have acted
	for ctx.Err() == nil {
		changed := j.watch()
		j.mu.Lock()
		forget, over, gone := j.mayForget(), j.over(), j.gone
		heard := j.heard.Add(j.k.cfg.Lease)
		removed := j.removed()
		j.mu.Unlock()
		now := time.Now()
		if !over {
			j.silent = nil
		}
		switch {
		case gone:
			return
		case !now.Before(forget):
			if removed {
				j.passOn(ctx)
			}
			j.k.forget(j, why(removed))
			return
		case over:
			tries = 0
			j.compare(ctx, forget)
			j.wait(ctx, earlier(forget, time.Now().Add(min(j.k.cfg.Grace, copiesEvery))), changed)
		case now.Before(heard):
			tries = 0
			j.wait(ctx, heard, changed)
		default:
			if j.consider(ctx, tries) {
				tries = 0
			} else {
				tries++
			}
		}
	}
}

func why(removed bool) string {
	if removed {
		return "its owner removed it"
	}
	return "the time for which it is kept is over"
}

// passOn tells the other keepers what the owner wants, as far as they are
// reached.
func (j *kept) passOn(ctx context.Context) {
	j.mu.Lock()
	statements := slices.Clone(j.said.raw)
	j.mu.Unlock()
	j.each(ctx, func(ctx context.Context, _ grid.PeerID, p Peer) {
		for _, s := range statements {
			_ = p.Say(ctx, j.plan.Job, s) // who is away learns it from the others
		}
	})
}

// others returns the other keepers of the job.
func (j *kept) others() []grid.PeerID {
	j.mu.Lock()
	defer j.mu.Unlock()
	return without(j.list.Peers, j.k.self)
}

// each calls f for all other keepers at once and returns after the last, at
// most a lease later.
func (j *kept) each(ctx context.Context, f func(ctx context.Context, id grid.PeerID, p Peer)) {
	ctx, cancel := context.WithTimeout(ctx, j.k.cfg.Lease)
	defer cancel()
	var wg sync.WaitGroup
	for _, id := range j.others() {
		if p, err := j.k.cfg.Peers(id); err == nil {
			wg.Go(func() { f(ctx, id, p) })
		}
	}
	wg.Wait()
}

// answer is what another keeper said.
type answer struct {
	peer  grid.PeerID
	via   Peer
	state State
}

// consider is called when the driver was not heard for a lease. It asks the
// others, merges their journals, and drives the job if that is for this peer to
// do. It reports whether it drove, or somebody else is known to; else it has
// waited for a lease.
func (j *kept) consider(ctx context.Context, tries int) bool {
	answers, _ := j.ask(ctx)
	if ctx.Err() != nil {
		return true
	}
	for _, a := range answers {
		if err := j.learn(a.state.List, a.state.Statements); err != nil {
			j.logger.Warn("what another keeper says cannot be stored", "err", err)
		}
	}
	if j.hears(answers) {
		return true
	}
	for _, a := range answers {
		if err := j.fetch(ctx, a); err != nil {
			j.logger.Debug("journal of another keeper not read", "peer", a.peer.Short(), "err", err)
		}
	}
	j.mu.Lock()
	idle := j.over() || j.removed()
	j.mu.Unlock()
	if idle || ctx.Err() != nil {
		return true
	}
	if place := j.place(answers); place > tries {
		j.logger.Debug("others come first", "place", place, "tries", tries)
		j.wait(ctx, time.Now().Add(j.k.cfg.Lease), nil)
		return false
	}
	err := j.drive(ctx)
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, ErrDeposed):
		j.failures = 0
		j.logger.Info("another keeper drives", "err", err)
	case errors.Is(err, tasks.ErrCancelled):
	default:
		// Others may try meanwhile; perhaps they have what is missing here.
		pause := min(j.k.cfg.Lease<<min(j.failures, maxDoublings), maxPause)
		j.failures++
		j.logger.Warn("the job cannot be driven here now", "err", err, "again_in", pause)
		j.wait(ctx, time.Now().Add(pause), j.watch())
	}
	return true
}

// How long a keeper waits that could not drive a job: a lease at first, twice as
// long each time.
const (
	maxDoublings = 8
	maxPause     = 10 * time.Minute
)

// ask returns what the other keepers say, and those that do not have the job.
func (j *kept) ask(ctx context.Context) (answers, without []answer) {
	var mu sync.Mutex
	j.each(ctx, func(ctx context.Context, id grid.PeerID, p Peer) {
		state, err := p.State(ctx, j.question(id))
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			answers = append(answers, answer{id, p, state})
		case errors.Is(err, ErrUnknownJob):
			without = append(without, answer{peer: id, via: p})
		}
	})
	return answers, without
}

// question asks another keeper for its state and tells it this one's, so that
// it can fetch what it lacks.
func (j *kept) question(peer grid.PeerID) StateRequest {
	j.mu.Lock()
	defer j.mu.Unlock()
	return StateRequest{
		Job: j.plan.Job, Proof: j.proofFor(peer), Have: maps.Clone(j.have), List: j.list, Statements: slices.Clone(j.said.raw),
	}
}

func (j *kept) proofFor(peer grid.PeerID) []byte {
	return proof(j.raw, j.plan.Job, j.k.self, peer)
}

// hears reports whether somebody hears a driver that would beat this one, and
// notes when that was heard.
func (j *kept) hears(answers []answer) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	heard := j.heard
	for _, a := range answers {
		if a.state.Lead.Driver == j.k.self || j.lead.Beats(a.state.Lead) || a.state.Lead == (Stream{}) || a.state.Over {
			continue
		}
		if at := time.Now().Add(-a.state.Heard); at.After(heard) {
			heard = at
		}
	}
	if time.Since(heard) >= j.k.cfg.Lease {
		return false
	}
	j.heard = heard
	return true
}

// fetch reads the records of another keeper that are not here.
func (j *kept) fetch(ctx context.Context, a answer) error {
	j.mu.Lock()
	have := maps.Clone(j.have)
	j.mu.Unlock()
	if have.Covers(a.state.Have) {
		return nil
	}
	return j.readFrom(ctx, a.via, ReadRequest{j.plan.Job, j.proofFor(a.peer), have})
}

// readFrom takes in records of another keeper. It gives up when none comes for a
// lease.
func (j *kept) readFrom(ctx context.Context, via Peer, r ReadRequest) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(j.k.cfg.Lease, func() { cancel(fmt.Errorf("sent nothing for %s", j.k.cfg.Lease)) })
	defer silent.Stop()
	err := via.Read(ctx, r, func(batches []Batch) error {
		err := j.take(batches)
		silent.Reset(j.k.cfg.Lease)
		return err
	})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// gift is what makes another peer a keeper.
func (j *kept) gift() PutRequest {
	j.mu.Lock()
	defer j.mu.Unlock()
	return PutRequest{j.raw, j.list, slices.Clone(j.said.raw)}
}

// place returns how many come before this peer, of those that answered. A peer
// that others replaced comes last.
func (j *kept) place(answers []answer) int {
	peers := []grid.PeerID{j.k.self}
	for _, a := range answers {
		peers = append(peers, a.peer)
	}
	j.mu.Lock()
	replaced := !slices.Contains(j.list.Peers, j.k.self)
	j.mu.Unlock()
	place := slices.Index(ranked(j.plan.Job, peers), j.k.self)
	if replaced {
		place += len(peers) + int(j.k.cfg.Grace/j.k.cfg.Lease)
	}
	return place
}
