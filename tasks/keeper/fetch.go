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

// askedAtOnce bounds how many peers are asked at the same time.
const askedAtOnce = 32

// Found is a job of this peer's owner, somewhere on the grid.
type Found struct {
	Listed               // of the keeper that has the most records
	At     []grid.PeerID // keepers that answered
}

// List asks every member that is there for jobs of this peer's owner. The
// summaries are what keepers say. failed are the members that did not answer, or
// are not there: they may keep jobs of which nobody else knows.
func (k *Keeper) List(ctx context.Context) (found []Found, failed []grid.PeerID) {
	failed = k.cfg.Grid.Away()
	byJob := map[tasks.JobID]*Found{}
	var mu sync.Mutex
	note := func(peer grid.PeerID, jobs []Listed, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failed = append(failed, peer)
			return
		}
		for _, l := range jobs {
			f := byJob[l.Job]
			if f == nil {
				f = &Found{Listed: l}
				byJob[l.Job] = f
			} else if l.Have.Records() > f.Have.Records() {
				f.Listed = l
			}
			f.At = append(f.At, peer)
		}
	}
	k.everybody(ctx, func(ctx context.Context, peer grid.PeerID, p Peer) {
		jobs, err := p.Jobs(ctx)
		note(peer, jobs, err)
	})
	own, err := k.Jobs(ctx, k.self)
	note(k.self, own, err)
	for _, f := range byJob {
		slices.SortFunc(f.At, grid.PeerID.Compare)
		found = append(found, *f)
	}
	slices.SortFunc(found, func(a, b Found) int { return a.Job.Compare(b.Job) })
	return found, failed
}

// everybody calls f for all other members that are there.
func (k *Keeper) everybody(ctx context.Context, f func(ctx context.Context, peer grid.PeerID, p Peer)) {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Lease)
	defer cancel()
	places := make(chan struct{}, askedAtOnce)
	var wg sync.WaitGroup
	for _, m := range k.cfg.Grid.Alive() {
		if m.Peer == k.self {
			continue
		}
		p, err := k.cfg.Peers(m.Peer)
		if err != nil {
			continue
		}
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			f(ctx, m.Peer, p)
		})
	}
	wg.Wait()
}

// keepersOf asks the members which of them keep a job.
func (k *Keeper) keepersOf(ctx context.Context, job tasks.JobID) []answer {
	var mu sync.Mutex
	var answers []answer
	k.everybody(ctx, func(ctx context.Context, peer grid.PeerID, p Peer) {
		state, err := p.State(ctx, StateRequest{Job: job})
		if err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		answers = append(answers, answer{peer, p, state})
	})
	slices.SortFunc(answers, func(a, b answer) int { return a.peer.Compare(b.peer) })
	return answers
}

// Copy is a job of this peer's owner as it can be read here.
type Copy struct {
	Journal Journal
	Keepers []grid.PeerID // as the newest list says
	Epoch   uint64
	Driver  grid.PeerID
	Kept    bool // by this peer; else it was fetched
}

// Fetch returns a job with all records that any keeper which answers has. The
// journal is that of this peer when it keeps the job, else one in into, which
// is for copies alone; the caller verifies results, see tasks/jobs. The caller
// does not close it. ErrUnknownJob: no keeper of it answered.
func (k *Keeper) Fetch(ctx context.Context, job tasks.JobID, into Store) (Copy, error) {
	if j := k.job(job); j != nil {
		if j.plan.Owner != k.cfg.Owner {
			return Copy{}, ErrUnknownJob
		}
		return j.refresh(ctx), nil
	}
	answers := k.keepersOf(ctx, job)
	if len(answers) == 0 {
		return Copy{}, ErrUnknownJob
	}
	end, err := k.copyInTurn(ctx, job)
	if err != nil {
		return Copy{}, err
	}
	defer end()
	out := Copy{}
	var list List
	var lead Stream
	var errs []error
	for _, a := range answers {
		journal, err := k.copyFrom(ctx, job, a, into)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a.peer.Short(), err))
			continue
		}
		out.Journal = journal
		if a.state.List.newer(list) || list.Peers == nil {
			list = a.state.List
		}
		if a.state.Lead.Beats(lead) {
			lead = a.state.Lead
		}
	}
	if out.Journal == nil {
		return Copy{}, errors.Join(errs...)
	}
	out.Keepers, out.Epoch, out.Driver = list.Peers, lead.Epoch, lead.Driver
	return out, nil
}

// turn is the right to write the copy of a job.
type turn struct {
	gate  gate
	users int // have it or wait for it; guarded by Keeper.mu
}

// copyInTurn waits until nobody else writes the copy of a job: two who read the same
// records would both append them. The returned function ends the turn.
func (k *Keeper) copyInTurn(ctx context.Context, job tasks.JobID) (end func(), err error) {
	k.mu.Lock()
	t := k.copying[job]
	if t == nil {
		t = &turn{gate: make(gate, 1)}
		k.copying[job] = t
	}
	t.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(k.copying, job)
		}
	}
	select {
	case t.gate <- struct{}{}:
		return func() { t.gate.Unlock(); leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// refresh asks the driver for what this peer lacks of a job that it keeps.
func (j *kept) refresh(ctx context.Context) Copy {
	j.mu.Lock()
	driving := j.driving != nil
	j.mu.Unlock()
	if !driving {
		answers, _ := j.ask(ctx)
		for _, a := range answers {
			if err := j.fetch(ctx, a); err != nil {
				j.logger.Debug("journal of another keeper not read", "peer", a.peer.Short(), "err", err)
			}
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return Copy{j.journal, slices.Clone(j.list.Peers), j.lead.Epoch, j.lead.Driver, true}
}

// copyFrom reads what a keeper has of a job beyond what was read before.
func (k *Keeper) copyFrom(ctx context.Context, job tasks.JobID, a answer, into Store) (Journal, error) {
	journal, err := into.Open(job)
	if errors.Is(err, ErrUnknownJob) {
		journal, err = k.copyPlan(ctx, job, a, into)
	}
	if err != nil {
		return nil, err
	}
	j := &kept{k: k, journal: journal, have: Vector{}, endedGen: -1, byOwner: map[Kind]uint32{}, changed: make(chan struct{}), writing: make(gate, 1)}
	j.plan.Job, j.plan.Owner = job, k.cfg.Owner
	err = journal.Records(func(raw []byte) error {
		mark, err := k.cfg.Book.Mark(raw)
		if err == nil {
			j.note(mark)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, raw := range a.state.Statements {
		if s, err := j.openStatement(raw); err == nil {
			j.said.add(raw, s)
		}
	}
	j.copied = true
	if j.have.Covers(a.state.Have) {
		return journal, nil
	}
	return journal, j.readFrom(ctx, a.via, ReadRequest{Job: job, Have: maps.Clone(j.have)})
}

// copyPlan begins a copy.
func (k *Keeper) copyPlan(ctx context.Context, job tasks.JobID, a answer, into Store) (Journal, error) {
	asking, cancel := context.WithTimeout(ctx, k.cfg.Lease)
	defer cancel()
	raw, err := a.via.Plan(asking, StateRequest{Job: job})
	if err != nil {
		return nil, err
	}
	if len(raw) > MaxPlanBytes {
		return nil, fmt.Errorf("%w: plan of %d bytes", ErrInvalid, len(raw))
	}
	plan, err := k.cfg.Book.OpenPlan(raw)
	if err != nil {
		return nil, err
	}
	if owner, ok := k.cfg.Grid.EverOwnerOf(plan.Submitter); plan.Job != job || plan.Owner != k.cfg.Owner || !ok || owner != plan.Owner {
		return nil, fmt.Errorf("%w: the plan is not one of this peer's owner", ErrDenied)
	}
	return into.Create(job, raw)
}

// Say tells the keepers of a job what its owner wants. told are those that have
// it on disk.
func (k *Keeper) Say(ctx context.Context, job tasks.JobID, kind Kind, why string) (told []grid.PeerID, err error) {
	answers := k.keepersOf(ctx, job)
	j := k.job(job)
	if j != nil && j.plan.Owner != k.cfg.Owner {
		j = nil
	}
	if len(answers) == 0 && j == nil {
		return nil, ErrUnknownJob
	}
	generation, over := uint32(0), false
	note := func(s State) {
		if s.Generation > generation || (s.Generation == generation && s.Over) {
			generation, over = s.Generation, s.Over
		}
	}
	for _, a := range answers {
		note(a.state)
	}
	if j != nil {
		note(j.state())
	}
	switch {
	case kind == KindCancel && over:
		return nil, fmt.Errorf("job %s is over: %w", job.Short(), ErrOver)
	case kind == KindRetry && !over:
		return nil, fmt.Errorf("job %s is not over: %w", job.Short(), ErrNotOver)
	case kind == KindRetry:
		generation++
	}
	raw, err := SignStatement(k.cfg.Key, Statement{Job: job, Kind: kind, Generation: generation, At: time.Now(), Why: why})
	if err != nil {
		return nil, err
	}
	return k.tell(ctx, job, raw, answers, j)
}

// tell hands a statement to keepers.
func (k *Keeper) tell(ctx context.Context, job tasks.JobID, raw []byte, answers []answer, own *kept) (told []grid.PeerID, err error) {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Lease)
	defer cancel()
	results := make(chan put, len(answers)+1)
	for _, a := range answers {
		go func() { results <- put{a.peer, a.via.Say(ctx, job, raw)} }()
	}
	if own != nil {
		go func() { results <- put{k.self, own.learn(List{}, [][]byte{raw})} }()
	}
	want := len(answers)
	if own != nil {
		want++
	}
	var errs []error
	for range want {
		r := <-results
		if r.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.peer.Short(), r.err))
			continue
		}
		told = append(told, r.peer)
	}
	if len(told) == 0 {
		return nil, errors.Join(errs...)
	}
	slices.SortFunc(told, grid.PeerID.Compare)
	return told, nil
}
