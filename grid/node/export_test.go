package node

import (
	"context"
	"os"
	"time"

	"google.golang.org/grpc"

	"gotong/grid"
	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
	"gotong/tasks/jobs"
	"gotong/tasks/scheduler"
	"gotong/tasks/taskrpc"
)

// RunJob runs a job of this peer's owner on the grid.
func (p *Peer) RunJob(ctx context.Context, job scheduler.Job, cfg scheduler.Config, fresh bool, receive func(*scheduler.Accepted) error) (scheduler.Summary, error) {
	grant, err := p.grantJob(job.Job, 0, time.Hour)
	if err != nil {
		return scheduler.Summary{}, err
	}
	job.Grant = grant
	cfg.Pool = p.work
	if cfg.Dir, err = os.MkdirTemp(p.work.submitDir, "run-"); err != nil {
		return scheduler.Summary{}, err
	}
	cfg, receive = p.remember(job, cfg, fresh, receive)
	return scheduler.Run(ctx, job, cfg, receive)
}

// SubmitJob gives a job of this peer's owner to its keepers. The plan needs
// steps, and nothing that has to be sent.
func (p *Peer) SubmitJob(ctx context.Context, plan jobs.Plan) (tasks.JobID, error) {
	sub := &submission{peer: p, plan: plan}
	if err := sub.begin(time.Hour); err != nil {
		return tasks.JobID{}, err
	}
	out, err := sub.finish(ctx)
	if err != nil {
		return tasks.JobID{}, err
	}
	return tasks.ParseJobID(out.Job)
}

// JobResults gives the results of a job as the command line gets them.
func (p *Peer) JobResults(ctx context.Context, id tasks.JobID, send func(*controlv1.JobEvent) error) error {
	return (&service{peer: p}).JobResults(&controlv1.JobResultsRequest{Job: id.String()}, sentTo{ctx: ctx, send: send})
}

// sentTo is a stream to a caller in this process.
type sentTo struct {
	grpc.ServerStreamingServer[controlv1.JobEvent]
	ctx  context.Context
	send func(*controlv1.JobEvent) error
}

func (s sentTo) Context() context.Context         { return s.ctx }
func (s sentTo) Send(e *controlv1.JobEvent) error { return s.send(e) }

// JobsHere says which jobs this peer keeps, and of which it has copies.
func (p *Peer) JobsHere() (kept, copied []tasks.JobID) {
	for _, job := range p.keeping.store.List() {
		kept = append(kept, job.ID())
	}
	for _, job := range p.keeping.copies.List() {
		copied = append(copied, job.ID())
	}
	return kept, copied
}

// WorkFrom returns the core-seconds that others computed for this owner, as this
// peer booked them.
func (p *Peer) WorkFrom() (seconds float64) {
	for _, w := range p.ownerWork() {
		seconds += w.CoreSecondsFrom
	}
	return seconds
}

// WhyNot says why a donor runs no tasks like this for this peer's owner, as run
// --dry-run shows it; empty: it does.
func (p *Peer) WhyNot(ctx context.Context, donor grid.PeerID, h scheduler.Header) (string, error) {
	var err error
	if h.Grant, err = p.grantJob(h.Job, 0, time.Hour); err != nil {
		return "", err
	}
	for _, other := range p.membership.Peers() {
		if other.ID == donor {
			return p.fits(ctx, other, h).Why, nil
		}
	}
	return "", grid.ErrNotMember
}

// Refuses returns why this peer runs no tasks like this for the owner of another,
// or nil.
func (p *Peer) Refuses(other *Peer, h scheduler.Header) error {
	return p.work.runner.Check(taskrpc.Asker{Peer: other.ID(), Owner: other.owner(), Job: h.Job}, h.Spec(scheduler.Part{}))
}

// DryRun says what a backup would do, and NextRedundancy how segments that are
// stored now are coded.
func (p *Peer) DryRun(ctx context.Context, path, redundancy string) (*controlv1.BackupSummary, error) {
	return p.backUp(ctx, backupJob{paths: []string{path}, redundancy: redundancy, dryRun: true})
}

func (p *Peer) NextRedundancy() string { return p.backups.redundancy.Load().String() }
