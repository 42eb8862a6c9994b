package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gotong/grid"
	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
	"gotong/tasks/jobs"
	"gotong/tasks/keeper"
	"gotong/tasks/scheduler"
	"gotong/tasks/where"
)

const (
	// jobLife is until when a job has to be over if its file does not say;
	// maxJobLife is the most that one may say.
	jobLife    = 30 * 24 * time.Hour
	maxJobLife = 300 * 24 * time.Hour
	// minJobID is how many digits of an id are asked for at least.
	minJobID = 4
)

// keptJob is a job of this peer's owner as it can be read here.
type keptJob struct {
	*jobs.Job
	keeper.Copy
}

func stateOf(j *jobs.Job) (s jobs.JobState) {
	j.View(func(state *jobs.State) { s = state.State() })
	return s
}

// openJob returns a job of this peer's owner with all that its keepers know.
func (p *Peer) openJob(ctx context.Context, id tasks.JobID) (keptJob, error) {
	job, found, err := p.FetchJob(ctx, id)
	if errors.Is(err, keeper.ErrUnknownJob) {
		err = noJob(id.Short(), len(gridKeepers{p}.Away()))
	}
	return keptJob{job, found}, err
}

// wherePool are the peers of which the condition of a step holds.
type wherePool struct {
	scheduler.Pool
	peer *Peer
	expr where.Expr
}

// stepPool returns who may run a step.
func (p *Peer) stepPool(s jobs.Step) (scheduler.Pool, error) {
	expr, err := where.Parse(s.Where)
	if err != nil {
		return nil, fmt.Errorf("%w: where: %w", tasks.ErrInvalid, err)
	}
	return wherePool{p.work, p, expr}, nil
}

// Candidates implements scheduler.Pool.
func (w wherePool) Candidates() []scheduler.Candidate {
	fits := map[grid.PeerID]bool{}
	for _, p := range w.peer.membership.Peers() {
		fits[p.ID], _ = w.expr.Holds(factsOf(p))
	}
	return slices.DeleteFunc(slices.Clone(w.Pool.Candidates()), func(c scheduler.Candidate) bool { return !fits[c.Peer] })
}

func factsOf(p grid.Peer) where.Facts {
	return where.Facts{
		Peer: p.ID.String(), Owner: p.Owner.String(), Site: p.Site(), Name: p.Record.Name, Arch: p.Record.Arch, OS: p.Record.OS,
		Version: p.Record.Version, Memory: p.Record.MemoryBytes, Slots: uint64(max(0, p.Record.Slots)),
	}
}

// findJob returns the job of this owner whose id begins so.
func (p *Peer) findJob(ctx context.Context, prefix string) (keptJob, error) {
	prefix = strings.ToLower(strings.TrimSpace(prefix))
	if id, err := tasks.ParseJobID(prefix); err == nil {
		return p.openJob(ctx, id)
	}
	if len(prefix) < minJobID || strings.Trim(prefix, "0123456789abcdef") != "" {
		return keptJob{}, &Failure{Kind: controlv1.Kind_KIND_USAGE, What: fmt.Sprintf("%q is not the beginning of a job's id", prefix),
			Meaning: fmt.Sprintf("an id is made of digits and the letters a to f; give at least %d of them", minJobID), Next: "gotong jobs"}
	}
	list, away := p.keeping.keeper.List(ctx)
	list = slices.DeleteFunc(list, func(f keeper.Found) bool { return !strings.HasPrefix(f.Job.String(), prefix) })
	switch len(list) {
	case 0:
		return keptJob{}, noJob(prefix, len(away))
	case 1:
		return p.openJob(ctx, list[0].Job)
	}
	return keptJob{}, &Failure{Kind: controlv1.Kind_KIND_USAGE, What: fmt.Sprintf("the ids of %d jobs begin with %s", len(list), prefix),
		Meaning: "nothing was done", Next: "gotong jobs, then give more of the id"}
}

func noJob(id string, away int) error {
	f := &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "no job " + id + " of this owner is known here",
		Meaning: "it was never submitted, or its results were kept for long enough", Next: "gotong jobs"}
	switch away {
	case 0:
	case 1:
		f.Meaning += "; or one member keeps it that did not answer"
	default:
		f.Meaning += fmt.Sprintf("; or some of %d members keep it that did not answer", away)
	}
	return f
}
