package keeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/tasks"
)

// Keeper keeps jobs on this peer. New makes it, Run runs it once.
type Keeper struct {
	cfg  Config
	self grid.PeerID

	mu      sync.Mutex
	jobs    map[tasks.JobID]*kept
	bytes   int64
	run     context.Context // of Run; nil before it
	running sync.WaitGroup
	putting gate // one job is taken in at a time
	copying map[tasks.JobID]*turn
}

// New opens the jobs that the store has. One that cannot be read is logged and
// left alone.
func New(cfg Config) (*Keeper, error) {
	cfg = cfg.withDefaults()
	k := &Keeper{cfg: cfg, self: cfg.self(), jobs: map[tasks.JobID]*kept{}, putting: make(gate, 1), copying: map[tasks.JobID]*turn{}}
	ids, err := cfg.Store.Jobs()
	if err != nil {
		return nil, fmt.Errorf("kept jobs: %w", err)
	}
	for _, id := range ids {
		journal, err := cfg.Store.Open(id)
		if err != nil {
			cfg.Logger.Warn("a kept job cannot be opened", "job", id.Short(), "err", err)
			continue
		}
		j, err := k.open(journal)
		if err != nil {
			cfg.Logger.Warn("a kept job cannot be read", "job", id.Short(), "err", err)
			journal.Close()
			continue
		}
		if len(j.list.Peers) == 0 { // a stop came before it was acknowledged
			if err := errors.Join(journal.Close(), cfg.Store.Remove(id)); err != nil {
				return nil, fmt.Errorf("job %s, which was not taken in: %w", id.Short(), err)
			}
			continue
		}
		k.jobs[id] = j
		j.size = journal.Bytes()
		k.bytes += j.size
	}
	return k, nil
}

// Run looks after the kept jobs until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	for _, j := range k.sorted() {
		j.mu.Lock()
		j.heard = time.Now() // drivers had no chance to be heard before
		j.mu.Unlock()
	}
	k.mu.Lock()
	k.run = ctx
	for _, j := range k.jobs {
		k.running.Go(func() { j.look(ctx) })
	}
	k.mu.Unlock()
	<-ctx.Done()
	k.mu.Lock() // no job is begun after this
	k.run = nil
	k.mu.Unlock()
	k.running.Wait()
	return nil
}

// Close closes the journals. Run must have ended.
func (k *Keeper) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for id, j := range k.jobs {
		errs = append(errs, j.journal.Close())
		delete(k.jobs, id)
	}
	return errors.Join(errs...)
}

func (k *Keeper) job(id tasks.JobID) *kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.jobs[id]
}

// sorted returns the kept jobs in the order of their ids.
func (k *Keeper) sorted() []*kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]*kept, 0, len(k.jobs))
	for _, j := range k.jobs {
		out = append(out, j)
	}
	slices.SortFunc(out, func(a, b *kept) int { return a.plan.Job.Compare(b.plan.Job) })
	return out
}

// Holding is what is kept here for the jobs of one owner, besides their shards.
type Holding struct {
	Jobs  int
	Bytes int64 // plans and journals
}

// Kept returns what is kept here, by owner.
func (k *Keeper) Kept() map[grid.OwnerID]Holding {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[grid.OwnerID]Holding{}
	for _, j := range k.jobs {
		h := out[j.plan.Owner]
		out[j.plan.Owner] = Holding{h.Jobs + 1, h.Bytes + j.size}
	}
	return out
}

// room takes bytes of what may be kept here for a job and reports whether there
// were as many.
func (k *Keeper) room(j *kept, bytes int64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.bytes+bytes > k.cfg.Bytes {
		return false
	}
	k.bytes += bytes
	j.size += bytes
	return true
}

// take begins to keep a job whose plan came from anywhere.
func (k *Keeper) take(r PutRequest) error {
	plan, err := k.judge(r)
	if err != nil {
		return err
	}
	k.putting.Lock()
	defer k.putting.Unlock()
	if j := k.job(plan.Job); j != nil {
		if !slices.Equal(j.raw, r.Plan) {
			return fmt.Errorf("%w: another plan of the same id is kept here", ErrDenied)
		}
		return j.learn(r.List, r.Statements)
	}
	k.mu.Lock()
	count, full := len(k.jobs), k.bytes+int64(len(r.Plan)) > k.cfg.Bytes
	k.mu.Unlock()
	if count >= k.cfg.Jobs {
		return fmt.Errorf("%w: it keeps %d jobs, as many as it may (tasks.keep_jobs)", ErrRefused, count)
	}
	if full {
		return fmt.Errorf("%w: what it keeps of jobs is full (tasks.keep_bytes)", ErrRefused)
	}
	return k.begin(plan, r)
}

// judge verifies a plan.
func (k *Keeper) judge(r PutRequest) (Plan, error) {
	if len(r.Plan) > MaxPlanBytes || !validList(r.List) {
		return Plan{}, fmt.Errorf("%w: plan of %d bytes, %d keepers", ErrInvalid, len(r.Plan), len(r.List.Peers))
	}
	plan, err := k.cfg.Book.OpenPlan(r.Plan)
	if err != nil {
		return Plan{}, err
	}
	owner, ok := k.cfg.Grid.EverOwnerOf(plan.Submitter) // its device may be gone; the owner still wants the results
	switch {
	case !ok || owner != plan.Owner:
		return Plan{}, fmt.Errorf("%w: the plan is not signed by a peer of its owner", ErrDenied)
	case !k.cfg.Grid.Member(plan.Owner):
		return Plan{}, fmt.Errorf("%w: its owner is no member", ErrDenied)
	case time.Now().After(plan.Expires):
		return Plan{}, fmt.Errorf("%w: the job expired %s", ErrRefused, plan.Expires.UTC().Format(time.RFC3339))
	case plan.Expires.After(time.Now().Add(maxLife)):
		return Plan{}, fmt.Errorf("%w: the job may last until %s", ErrRefused, plan.Expires.UTC().Format(time.RFC3339))
	case !slices.Contains(r.List.Peers, k.self):
		return Plan{}, fmt.Errorf("%w: this peer is not among its keepers", ErrInvalid)
	}
	return plan, nil
}

// begin stores a job and starts to look after it.
func (k *Keeper) begin(plan Plan, r PutRequest) error {
	journal, err := k.cfg.Store.Create(plan.Job, r.Plan)
	if err != nil {
		return err
	}
	j, err := k.open(journal)
	if err == nil {
		err = j.learn(r.List, r.Statements)
	}
	if err != nil {
		journal.Close()
		return errors.Join(err, k.cfg.Store.Remove(plan.Job))
	}
	// The first of the keepers need not wait for anybody.
	if ranked(plan.Job, r.List.Peers)[0] == k.self && len(j.have) == 0 && r.List.By == (Stream{}) {
		j.heard = time.Time{}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.jobs[plan.Job] = j
	j.size = int64(len(r.Plan))
	k.bytes += j.size
	if ctx := k.run; ctx != nil {
		k.running.Go(func() { j.look(ctx) })
	}
	return nil
}

// forget removes a job from this peer.
func (k *Keeper) forget(j *kept, why string) {
	k.putting.Lock()
	defer k.putting.Unlock()
	j.writing.Lock()
	defer j.writing.Unlock()
	k.mu.Lock()
	delete(k.jobs, j.plan.Job)
	k.bytes -= j.size
	k.mu.Unlock()
	j.mu.Lock()
	j.gone = true
	j.fire()
	j.mu.Unlock()
	err := errors.Join(j.journal.Close(), k.cfg.Store.Remove(j.plan.Job))
	j.logger.Info("job forgotten", "why", why, "err", err)
}
