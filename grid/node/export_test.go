package node

import (
	"context"
	"os"
	"time"

	"gotong/tasks/scheduler"
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
