package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"gotong/grid"
	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
	"gotong/tasks/jobs"
	"gotong/tasks/scheduler"
	"gotong/tasks/where"
)

const (
	// whyTimeout is how long peers may take to answer.
	whyTimeout = 5 * time.Second
	// whyAtOnce is how many peers are asked at once.
	whyAtOnce = 32
)

// WhyJob says of each peer whether it may and would run tasks of a step, and
// which rule says otherwise.
func (s *service) WhyJob(ctx context.Context, r *controlv1.WhyJobRequest) (*controlv1.WhyJobResponse, error) {
	job, err := s.peer.findJob(ctx, r.Job)
	if err != nil {
		return nil, err
	}
	number, err := stepNamed(job.Plan(), r.Step)
	if err != nil {
		return nil, err
	}
	var states []jobs.StepState
	var state jobs.JobState
	job.View(func(st *jobs.State) { states, state = st.StepStates(), st.State() })
	if number < 0 {
		number = max(0, slices.IndexFunc(states, func(s jobs.StepState) bool { return s == jobs.StepReady || s == jobs.StepWaiting }))
	}
	step := job.Plan().Steps[number]
	out := &controlv1.WhyJobResponse{Step: step.Name, State: string(states[number])}
	if out.Peers, err = s.peer.judge(ctx, job.Plan(), step); err != nil {
		return nil, err
	}
	for _, p := range out.Peers {
		if p.Fits {
			out.Matching++
		}
	}
	out.Words = whyWords(job, number, state, states, int(out.Matching), len(out.Peers))
	return out, nil
}

// whyWords says what stands in the way of a step.
func whyWords(job keptJob, number int, state jobs.JobState, states []jobs.StepState, matching, peers int) string {
	plan := job.Plan()
	step := plan.Steps[number]
	if state.Over() {
		return "the job is over: " + string(state)
	}
	switch states[number] {
	case jobs.StepWaiting:
		var names []string
		for _, n := range step.Needs {
			if states[n.Step] != jobs.StepDone {
				names = append(names, plan.Steps[n.Step].Name)
			}
		}
		return fmt.Sprintf("step %q waits for %s", step.Name, strings.Join(names, ", "))
	case jobs.StepDone, jobs.StepFailed, jobs.StepSkipped:
		return fmt.Sprintf("step %q is %s", step.Name, states[number])
	}
	if matching == 0 {
		return fmt.Sprintf("no peer of %d may run step %q now", peers, step.Name)
	}
	return fmt.Sprintf("%d of %d peers may run step %q", matching, peers, step.Name)
}

// judge asks every member.
func (p *Peer) judge(ctx context.Context, plan jobs.Plan, step jobs.Step) ([]*controlv1.JobCandidate, error) {
	expr, err := where.Parse(step.Where)
	if err != nil {
		return nil, err
	}
	header := stepHeader(plan, step)
	ctx, cancel := context.WithTimeout(ctx, whyTimeout)
	defer cancel()
	members := p.membership.Peers()
	out := make([]*controlv1.JobCandidate, len(members))
	places := make(chan struct{}, whyAtOnce)
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			c := &controlv1.JobCandidate{Id: m.ID.String(), Name: validText(m.DisplayName())}
			c.Fits, c.Reasons = p.judgeOne(ctx, m, expr, header)
			out[i] = c
		})
	}
	wg.Wait()
	slices.SortStableFunc(out, func(a, b *controlv1.JobCandidate) int {
		if a.Fits != b.Fits {
			if a.Fits {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out, nil
}

// stepHeader is what peers are asked about the tasks of a step.
func stepHeader(plan jobs.Plan, step jobs.Step) scheduler.Header {
	return scheduler.Header{
		Job: plan.Job, Runtime: step.Runtime, Module: step.Module, Command: step.Command(), Limits: step.Limits, Inputs: step.Common,
		Grant: plan.Grant, Key: plan.Key, Stored: step.Stored, StoreOutputs: step.Outputs, StoreStdout: !plan.Key.IsZero(), Priority: plan.Priority,
	}
}

// judgeOne says whether one member may and would run tasks.
func (p *Peer) judgeOne(ctx context.Context, m grid.Peer, expr where.Expr, h scheduler.Header) (fits bool, reasons []string) {
	if ok, why := expr.Holds(factsOf(m)); !ok {
		reasons = append(reasons, "where: "+why)
	}
	slots := m.Record.Slots
	if m.ID == p.ID() {
		slots = p.cfg().Slots
	}
	switch {
	case m.State != grid.StateAlive:
		return false, append(reasons, "it is "+string(m.State))
	case slots == 0:
		return false, append(reasons, "its donor gives no task slots")
	}
	offer, err := p.offer(ctx, m.ID, h)
	switch {
	case errors.Is(err, tasks.ErrBusy):
		return len(reasons) == 0, append(reasons, "busy: "+validText(tasks.Reason(err)))
	case ctx.Err() != nil:
		return false, append(reasons, fmt.Sprintf("it did not answer within %s", whyTimeout))
	case err != nil:
		return false, append(reasons, validText(tasks.Reason(err)))
	}
	fits = len(reasons) == 0
	free := fmt.Sprintf("%d of %s free", offer.Free, count(offer.Slots, "slot"))
	if offer.Free == 0 {
		free = "busy: " + free
	}
	return fits, append(reasons, free)
}

func (p *Peer) offer(ctx context.Context, id grid.PeerID, h scheduler.Header) (scheduler.Offer, error) {
	w, err := p.work.Worker(id)
	if err != nil {
		return scheduler.Offer{}, err
	}
	return w.Offer(ctx, h)
}
