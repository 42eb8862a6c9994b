package node

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"

	"gotong/grid"
	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
	"gotong/tasks/jobs"
	"gotong/tasks/keeper"
)

const (
	// watchEvery is how often a watched job is told of at most.
	watchEvery = 200 * time.Millisecond
	// refreshEvery is how often a job that others keep is asked for anew.
	refreshEvery = time.Second
	// settleTime is how long a command waits for what it asked for to be seen.
	settleTime = 15 * time.Second
)

// Jobs lists the detached jobs of this peer's owner, the newest first, by what
// their keepers say.
func (s *service) Jobs(ctx context.Context, _ *controlv1.JobsRequest) (*controlv1.JobsResponse, error) {
	list, away := s.peer.keeping.keeper.List(ctx)
	out := &controlv1.JobsResponse{}
	for _, found := range list {
		sum, err := keeper.ParseSummary(found.Summary)
		if err != nil {
			s.peer.logger.Warn("a keeper's summary of a job cannot be read", "job", found.Job.Short(), "err", err)
			continue
		}
		job := &controlv1.JobInfo{
			Id: found.Job.String(), Name: validText(sum.Name), State: validText(string(sum.State)), Why: validText(sum.Why), Owner: s.peer.owner().String(),
			Tasks: uint64(sum.Counts.Tasks), Done: uint64(sum.Counts.Done), Failed: uint64(sum.Counts.Failed), SubmittedUnix: sum.Submitted.Unix(),
		}
		if !sum.Ended.IsZero() {
			job.EndedUnix = sum.Ended.Unix()
		}
		out.Jobs = append(out.Jobs, job)
	}
	slices.SortStableFunc(out.Jobs, func(a, b *controlv1.JobInfo) int { return cmp.Compare(b.SubmittedUnix, a.SubmittedUnix) })
	for _, id := range away {
		out.Unreachable = append(out.Unreachable, s.peer.nameOf(id))
	}
	return out, nil
}

// Job tells all of one job but its results.
func (s *service) Job(ctx context.Context, r *controlv1.JobRequest) (*controlv1.JobInfo, error) {
	job, err := s.peer.findJob(ctx, r.Job)
	if err != nil {
		return nil, err
	}
	return s.peer.jobInfo(job, true), nil
}

// CancelJob ends a job that runs.
func (s *service) CancelJob(ctx context.Context, r *controlv1.JobRequest) (*controlv1.JobInfo, error) {
	job, err := s.peer.findJob(ctx, r.Job)
	if err != nil {
		return nil, err
	}
	if state := stateOf(job.Job); state.Over() {
		return nil, &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "job " + job.ID().Short() + " is over already: " + string(state),
			Meaning: "nothing was changed", Next: "gotong job show " + job.ID().Short()}
	}
	if _, err := s.peer.keeping.keeper.Say(ctx, job.ID(), keeper.KindCancel, "cancelled on "+s.peer.cfg().Name); err != nil {
		return nil, err
	}
	s.peer.settle(ctx, job, func(st *jobs.State) bool { return st.State().Over() })
	return s.Job(ctx, &controlv1.JobRequest{Job: job.ID().String()})
}

// RetryJob has what failed in a job run again.
func (s *service) RetryJob(ctx context.Context, r *controlv1.JobRequest) (*controlv1.JobInfo, error) {
	job, err := s.peer.findJob(ctx, r.Job)
	if err != nil {
		return nil, err
	}
	fail := func(what, next string) error {
		return &Failure{Kind: controlv1.Kind_KIND_FAILED, What: what, Meaning: "nothing was changed", Next: next}
	}
	if state := stateOf(job.Job); !state.Over() {
		return nil, fail("job "+job.ID().Short()+" still runs; what failed can be tried again when it is over", "gotong job wait "+job.ID().Short())
	}
	failed, generation := 0, uint32(0)
	job.View(func(st *jobs.State) { failed, generation = len(st.Failures()), st.Generation() })
	if failed == 0 && stateOf(job.Job) == jobs.JobDone {
		return nil, fail("no task of job "+job.ID().Short()+" failed", "gotong job results "+job.ID().Short()+" --to DIR")
	}
	if _, err := s.peer.keeping.keeper.Say(ctx, job.ID(), keeper.KindRetry, ""); err != nil {
		return nil, err
	}
	s.peer.settle(ctx, job, func(st *jobs.State) bool { return st.Generation() > generation })
	return s.Job(ctx, &controlv1.JobRequest{Job: job.ID().String()})
}

// settle waits a little for what was asked of the keepers to be in the journal,
// so that whoever asked sees it.
func (p *Peer) settle(ctx context.Context, job keptJob, is func(*jobs.State) bool) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for ctx.Err() == nil {
		done := false
		changed := job.Changed()
		job.View(func(s *jobs.State) { done = is(s) })
		if done {
			return
		}
		next, err := p.await(ctx, job, changed)
		if err != nil {
			return
		}
		job = next
	}
}

// WatchJob tells of a job until it is over.
func (s *service) WatchJob(r *controlv1.JobRequest, stream grpc.ServerStreamingServer[controlv1.JobInfo]) error {
	ctx := stream.Context()
	job, err := s.peer.findJob(ctx, r.Job)
	if err != nil {
		return err
	}
	for {
		changed := job.Changed()
		if err := stream.Send(s.peer.jobInfo(job, false)); err != nil {
			return err
		}
		if stateOf(job.Job).Over() {
			return nil
		}
		if job, err = s.peer.await(ctx, job, changed); err != nil {
			return err
		}
	}
}

// await returns the job when it may have come further.
func (p *Peer) await(ctx context.Context, job keptJob, changed <-chan struct{}) (keptJob, error) {
	refresh := time.NewTimer(refreshEvery)
	defer refresh.Stop()
	select {
	case <-ctx.Done():
		return job, context.Cause(ctx)
	case <-changed:
		select { // what comes in the next moment is told at once
		case <-ctx.Done():
			return job, context.Cause(ctx)
		case <-time.After(watchEvery):
		}
	case <-refresh.C:
	}
	return p.openJob(ctx, job.ID())
}

// jobInfo says what is known of a job.
func (p *Peer) jobInfo(job keptJob, all bool) *controlv1.JobInfo {
	plan := job.Plan()
	out := &controlv1.JobInfo{
		Id: plan.Job.String(), Name: plan.Name, SubmittedUnix: plan.Created.Unix(), Owner: plan.Owner.String(), Priority: int32(plan.Priority),
	}
	job.View(func(s *jobs.State) {
		sum := s.Counts()
		out.State, out.Why = string(s.State()), validText(s.Why())
		out.Tasks, out.Done, out.Failed, out.Remembered = uint64(sum.Tasks), uint64(sum.Done), uint64(sum.Failed), uint64(sum.Remembered)
		out.Evidence, out.Generation = uint64(s.Evidence()), s.Generation()
		if s.State().Over() {
			out.EndedUnix = s.EndedAt().Unix()
			out.KeptUntilUnix = p.keeping.keptUntil(s).Unix()
		}
		if !all {
			return
		}
		var driver grid.PeerID
		if out.Epoch, driver = s.Epoch(); job.Epoch > out.Epoch { // one that begins just now
			out.Epoch, driver = job.Epoch, job.Driver
		}
		if !driver.IsZero() {
			out.Driver = &controlv1.JobPeer{Id: driver.String(), Name: p.nameOf(driver)}
		}
		for i, state := range s.StepStates() {
			if s.State() == jobs.JobCancelled && (state == jobs.StepReady || state == jobs.StepWaiting) {
				state = jobs.StepCancelled
			}
			out.Steps = append(out.Steps, stepInfo(plan, i, state, s.Step(i)))
		}
		for id, c := range s.PeerCounts() {
			out.Peers = append(out.Peers, &controlv1.JobPeer{Id: id.String(), Name: p.nameOf(id), Done: uint64(c.Done), Failed: uint64(c.Failed)})
		}
	})
	slices.SortFunc(out.Peers, func(a, b *controlv1.JobPeer) int {
		return cmp.Or(cmp.Compare(b.Done, a.Done), cmp.Compare(a.Id, b.Id))
	})
	for _, id := range job.Keepers {
		out.Keepers = append(out.Keepers, &controlv1.JobPeer{Id: id.String(), Name: p.nameOf(id)})
	}
	return out
}

func stepInfo(plan jobs.Plan, i int, state jobs.StepState, c jobs.Counts) *controlv1.JobStep {
	s := plan.Steps[i]
	out := &controlv1.JobStep{
		Name: s.Name, State: string(state), Tasks: uint64(c.Tasks), Done: uint64(c.Done), Failed: uint64(c.Failed),
		Outputs: s.Outputs, Where: s.Where, Verify: s.Verify,
	}
	for _, n := range s.Needs {
		out.Needs = append(out.Needs, plan.Steps[n.Step].Name)
	}
	return out
}

// stepNamed returns the place of a step, -1 for the empty name.
func stepNamed(plan jobs.Plan, name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if i := slices.IndexFunc(plan.Steps, func(s jobs.Step) bool { return s.Name == name }); i >= 0 {
		return i, nil
	}
	return 0, &Failure{Kind: controlv1.Kind_KIND_USAGE, What: "the job has no step " + name, Meaning: "nothing was done",
		Next: "gotong job show " + tasks.JobID(plan.Job).Short()}
}
