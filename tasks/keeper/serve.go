package keeper

import (
	"context"
	"crypto/subtle"
	"fmt"
	"maps"
	"slices"
	"time"

	"gotong/grid"
	"gotong/tasks"
)

// The methods below answer other peers; caller is who the connection proves.

// Put makes this peer a keeper. Anybody may bring a plan that proves itself.
func (k *Keeper) Put(_ context.Context, _ grid.PeerID, r PutRequest) error { return k.take(r) }

// Append takes in records of a driver.
func (k *Keeper) Append(_ context.Context, caller grid.PeerID, r AppendRequest) (AppendResponse, error) {
	j, err := k.known(caller, r.Job, r.Proof)
	if err != nil {
		return AppendResponse{}, err
	}
	s := Stream{r.Epoch, caller}
	if err := j.follow(s); err != nil {
		return AppendResponse{}, err
	}
	if err := j.learn(r.List, r.Statements); err != nil {
		return AppendResponse{}, err
	}
	j.mu.Lock()
	lead := j.lead
	j.mu.Unlock()
	if lead == s || s.Beats(lead) {
		if err := j.take(r.Batches); err != nil {
			return AppendResponse{}, err
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	out := AppendResponse{Have: maps.Clone(j.have), Lead: j.lead, Said: j.said.digest()}
	if s.Beats(j.lead) { // it has only asked so far
		out.Lead = s
	}
	if !slices.Equal(out.Said, r.Said) {
		out.Statements = slices.Clone(j.said.raw)
	}
	return out, nil
}

// follow notes that a driver was heard, unless another one beats it.
func (j *kept) follow(s Stream) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s.Epoch == 0 || s.Epoch > j.lead.Epoch+maxEpochJump || s.Driver == j.k.self {
		return fmt.Errorf("%w: epoch %d", ErrInvalid, s.Epoch)
	}
	if s != j.lead && !s.Beats(j.lead) {
		return nil
	}
	j.heard = time.Now()
	if j.driving != nil {
		j.driving.depose(s)
	}
	return nil
}

// State says what this peer has of a job.
func (k *Keeper) State(_ context.Context, caller grid.PeerID, r StateRequest) (State, error) {
	j, err := k.readable(caller, r.Job, r.Proof)
	if err != nil {
		return State{}, err
	}
	if len(r.Proof) > 0 {
		if _, err := k.known(caller, r.Job, r.Proof); err != nil {
			return State{}, err
		}
		if err := j.learn(r.List, r.Statements); err != nil {
			return State{}, err
		}
		j.catchUp(caller, r.Have)
	}
	return j.state(), nil
}

// catchUp fetches in the background what another keeper has, one at a time.
func (j *kept) catchUp(from grid.PeerID, theirs Vector) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.catching || j.have.Covers(theirs) {
		return
	}
	p, err := j.k.cfg.Peers(from)
	if err != nil {
		return
	}
	j.catching = j.k.inRun(func(ctx context.Context) {
		if err := j.fetch(ctx, answer{from, p, State{Have: theirs}}); err != nil {
			j.logger.Debug("journal of another keeper not read", "peer", from.Short(), "err", err)
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		j.catching = false
	})
}

// inRun runs f beside Run and reports whether Run still goes on.
func (k *Keeper) inRun(f func(ctx context.Context)) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	ctx := k.run
	if ctx == nil {
		return false
	}
	k.running.Go(func() { f(ctx) })
	return true
}

func (j *kept) state() State {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := State{
		Have: maps.Clone(j.have), Lead: j.lead, Driving: j.driving != nil, List: j.list,
		Statements: slices.Clone(j.said.raw), Over: j.over(), Generation: j.generation,
	}
	if !out.Driving {
		out.Heard = time.Since(j.heard)
	}
	return out
}

// Read passes on the records that the caller lacks.
func (k *Keeper) Read(_ context.Context, caller grid.PeerID, r ReadRequest, send func([]Batch) error) error {
	j, err := k.readable(caller, r.Job, r.Proof)
	if err != nil {
		return err
	}
	j.mu.Lock()
	upto := maps.Clone(j.have)
	j.mu.Unlock()
	return j.read(r.Have, upto, send)
}

// Plan returns the signed plan to peers of its owner, and to who knows it.
func (k *Keeper) Plan(_ context.Context, caller grid.PeerID, r StateRequest) ([]byte, error) {
	j, err := k.readable(caller, r.Job, r.Proof)
	if err != nil {
		return nil, err
	}
	return j.raw, nil
}

// Jobs lists what is kept here for the caller's owner.
func (k *Keeper) Jobs(_ context.Context, caller grid.PeerID) ([]Listed, error) {
	owner, ok := k.cfg.Grid.OwnerOf(caller)
	if !ok {
		return nil, grid.ErrNotMember
	}
	var out []Listed
	for _, j := range k.sorted() {
		if j.plan.Owner != owner {
			continue
		}
		summary, err := k.cfg.Book.Summary(j.journal)
		if err != nil {
			return nil, err
		}
		j.mu.Lock()
		if !j.gone && !j.removed() {
			out = append(out, Listed{j.plan.Job, summary, maps.Clone(j.have), j.list, j.lead})
		}
		j.mu.Unlock()
	}
	return out, nil
}

// Hear takes in a statement of the owner. Anybody may bring it: it is signed.
func (k *Keeper) Hear(_ context.Context, _ grid.PeerID, job tasks.JobID, statement []byte) error {
	j := k.job(job)
	if j == nil {
		return ErrUnknownJob
	}
	if _, err := j.openStatement(statement); err != nil {
		return err
	}
	return j.learn(List{}, [][]byte{statement})
}

// known returns a job to who proves to know its plan.
func (k *Keeper) known(caller grid.PeerID, id tasks.JobID, shown []byte) (*kept, error) {
	j := k.job(id)
	if j == nil || subtle.ConstantTimeCompare(shown, proof(j.raw, id, caller, k.self)) != 1 {
		return nil, ErrUnknownJob
	}
	return j, nil
}

// readable returns a job to its owner's peers and to other keepers.
func (k *Keeper) readable(caller grid.PeerID, id tasks.JobID, shown []byte) (*kept, error) {
	if j := k.job(id); j != nil {
		if owner, ok := k.cfg.Grid.OwnerOf(caller); ok && owner == j.plan.Owner {
			return j, nil
		}
	}
	return k.known(caller, id, shown)
}
