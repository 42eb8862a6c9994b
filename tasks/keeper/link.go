package keeper

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"gotong/grid"
)

// link hands the journal of a driven job to one other keeper.
type link struct {
	d    *drive
	peer grid.PeerID
	end  context.CancelFunc

	// Guarded by drive.mu.
	tried bool      // its first call came back
	live  bool      // its last call worked
	seen  time.Time // when a call worked last
	have  Vector    // as it said last; nil: it has not said
	said  []byte    // digest of its statements
}

// run calls until ctx ends.
func (l *link) run(ctx context.Context) {
	pause := l.d.j.k.cfg.Lease / beats
	for ctx.Err() == nil {
		changed := l.d.j.watch()
		more, err := l.call(ctx)
		if err != nil && ctx.Err() == nil {
			l.d.j.logger.Debug("keeper not reached", "peer", l.peer.Short(), "err", err)
		}
		l.note(err)
		switch {
		case err != nil:
			l.d.j.wait(ctx, time.Now().Add(pause), nil)
		case !more:
			l.d.j.wait(ctx, time.Now().Add(pause), changed)
		}
	}
}

// note takes in whether a call worked.
func (l *link) note(err error) {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	l.tried, l.live = true, err == nil
	if err == nil {
		l.seen = time.Now()
	}
	l.d.fire()
}

// call hands over what the keeper lacks. It reports whether more has come up.
func (l *link) call(ctx context.Context) (more bool, err error) {
	j := l.d.j
	p, err := j.k.cfg.Peers(l.peer)
	if err != nil {
		return false, err
	}
	l.d.mu.Lock()
	have := maps.Clone(l.have)
	l.d.mu.Unlock()
	if have == nil { // the first message only asks
		return true, l.hand(ctx, p, nil)
	}
	batches, upto := j.newest(have, l.d.stream)
	switch {
	case batches != nil || have.Covers(upto):
		err = l.hand(ctx, p, batches)
	default:
		err = j.read(have, upto, func(batches []Batch) error { return l.hand(ctx, p, batches) })
	}
	if err != nil {
		return false, err
	}
	j.mu.Lock()
	now, digest := maps.Clone(j.have), j.said.digest()
	j.mu.Unlock()
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	return !l.have.Covers(now) || !slices.Equal(digest, l.said), nil
}

// hand sends one message and takes in the answer.
func (l *link) hand(ctx context.Context, p Peer, batches []Batch) error {
	j := l.d.j
	calling, cancel := context.WithTimeout(ctx, j.k.cfg.Lease)
	defer cancel()
	r := AppendRequest{Job: j.plan.Job, Epoch: l.d.stream.Epoch, Proof: j.proofFor(l.peer), Batches: batches}
	l.d.mu.Lock()
	said, known := l.said, l.have != nil
	l.d.mu.Unlock()
	j.mu.Lock()
	r.List, r.Said = j.list, j.said.digest()
	if known && !slices.Equal(r.Said, said) {
		r.Statements = slices.Clone(j.said.raw)
	}
	j.mu.Unlock()
	a, err := p.Append(calling, r)
	if errors.Is(err, ErrUnknownJob) {
		return l.put(calling, p)
	}
	if err != nil {
		return err
	}
	if err := j.learn(List{}, a.Statements); err != nil {
		return err
	}
	if a.Lead != l.d.stream && a.Lead.Beats(l.d.stream) {
		l.d.depose(a.Lead)
		return ErrDeposed
	}
	// What it has and this peer has not was written by drivers before.
	if err := j.fetch(ctx, answer{l.peer, p, State{Have: a.Have}}); err != nil {
		return err
	}
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	l.have, l.said = a.Have, a.Said
	l.tried, l.live, l.seen = true, true, time.Now()
	l.d.fire()
	return nil
}

// put gives the job to a keeper that does not have it.
func (l *link) put(ctx context.Context, p Peer) error {
	if err := p.Put(ctx, l.d.j.gift()); err != nil {
		return err
	}
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	l.have = nil // ask again
	return nil
}
