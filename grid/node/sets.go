package node

import (
	"context"
	"time"
)

// backUpSet is one run of a named set by the schedule.
func (p *Peer) backUpSet(ctx context.Context, name string) error {
	job, err := p.setJob(name)
	if err != nil {
		p.schedule.end(name, time.Time{}, "", err)
		return err
	}
	summary, err := p.backUp(ctx, job)
	if err != nil {
		return err
	}
	p.logger.Info("a set is backed up", "set", name, "snapshot", summary.Snapshot, "bytes", summary.Bytes,
		"new_bytes", summary.NewBytes, "skipped", summary.Skipped, "committed", summary.Committed)
	return nil
}
