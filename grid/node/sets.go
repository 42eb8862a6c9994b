package node

import (
	"context"
	"time"

	"gotong/storage/vault"
)

// backUpSet is one run of a named set by the schedule: the backup, then what its
// rules say of older snapshots.
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
	err = p.tidySet(ctx, name)
	if ctx.Err() == nil && !isBusy(err) {
		p.schedule.tidied(name, err)
	}
	return nil
}

// tidySet forgets what the rules of a set do not keep, and gives the space back.
func (p *Peer) tidySet(ctx context.Context, name string) error {
	keep := p.cfg().Backup.Sets[name].Keep
	if keep.IsZero() {
		return nil
	}
	policy, err := keep.policy()
	if err != nil {
		return err
	}
	chosen, err := p.chosenSnapshots(ctx, name, nil)
	if err != nil {
		return err
	}
	out, err := p.forgetBy(ctx, chosen, policy, false)
	if err != nil || out.Forgotten == 0 {
		return err
	}
	pruned, err := p.Prune(ctx, vault.DefaultMaxWaste, false, nil)
	if err != nil {
		return err
	}
	p.logger.Info("old snapshots of a set are forgotten", "set", name, "forgotten", out.Forgotten, "freed_bytes", pruned.FreedBytes)
	return nil
}
