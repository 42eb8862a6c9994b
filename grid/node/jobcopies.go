package node

import (
	"context"
	"errors"
	"time"

	"gotong/tasks/jobs"
	"gotong/tasks/keeper"
)

// keptUntil returns when the keepers of a job forget it.
func (k *keeping) keptUntil(s *jobs.State) time.Time {
	return keeper.PlanOf(s.Plan()).KeptUntil(s.State().Over(), s.EndedAt(), k.retain)
}

// pruneCopies removes copies of jobs that nobody keeps any more, until ctx ends. A
// copy outlasts what it is a copy of by the keepers' grace: one that went first
// would be fetched anew.
func (k *keeping) pruneCopies(ctx context.Context) error {
	grace := k.peer.cfg().Tasks.KeeperGrace
	ticker := time.NewTicker(grace)
	defer ticker.Stop()
	for {
		for _, job := range k.copies.List() {
			var until time.Time
			job.View(func(s *jobs.State) { until = k.keptUntil(s) })
			if time.Now().Before(until.Add(grace)) {
				continue
			}
			if err := k.copies.Remove(job.ID()); err != nil && !errors.Is(err, jobs.ErrNoJob) {
				k.peer.logger.Warn("the copy of a job that is over is not removed", "job", job.ID().Short(), "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// bookOnce books a result of this owner's job as work that its worker did for
// this owner, whoever drove the job; not when the other store has a result of the
// task. Only the first result of a task counts, with no more time than its limit,
// so that a keeper who makes up results gains little.
func (k *keeping) bookOnce(other *jobs.Store, job *jobs.Job, r jobs.Result) {
	plan := job.Plan()
	if plan.Owner != k.peer.owner() || r.Peer.IsZero() || r.Remembered {
		return
	}
	if twin, err := other.Job(job.ID()); err == nil {
		booked := false
		twin.View(func(s *jobs.State) { _, booked = s.Accepted(r.Index) })
		if booked {
			return
		}
	}
	if err := r.Verify(plan.Job); err != nil {
		return
	}
	result, err := r.Decode()
	if err != nil {
		return
	}
	limit := plan.Steps[plan.StepOf(r.Index)].Limits.Wall
	k.peer.tookWork(r.Peer, min(result.Elapsed, limit))
}
