package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"gotong/grid/disk"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage"
	"gotong/storage/placement"
	"gotong/storage/snapshot"
	"gotong/storage/vault"
)

// backups is what a peer keeps of its own backups while it runs.
type backups struct {
	mu      sync.Mutex
	current *runningBackup // nil: none

	redundancy atomic.Pointer[storage.Redundancy] // of the next segment; zero is automatic
	refusals   refusals                           // of the backup that runs, or ran last
}

// runningBackup is the one backup that runs.
type runningBackup struct {
	ctx  context.Context
	done chan struct{} // closed when it has ended
}

// begin makes the caller the one backup that runs. One that was interrupted and
// is about to end is waited for; any other makes it vault.ErrBusy.
func (b *backups) begin(ctx context.Context) (end func(), err error) {
	mine := &runningBackup{ctx, make(chan struct{})}
	for {
		b.mu.Lock()
		other := b.current
		if other == nil {
			b.current = mine
		}
		b.mu.Unlock()
		if other == nil {
			return func() { b.end(mine) }, nil
		}
		if other.ctx.Err() == nil {
			return nil, vault.ErrBusy
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (b *backups) end(mine *runningBackup) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current = nil
	close(mine.done)
}

const (
	// publishSoon and publishEvery are when heads are handed again to those who
	// should have them, in case they were away.
	publishSoon  = 20 * time.Second
	publishEvery = 10 * time.Minute
)

// run hands the newest heads to those who keep them, now and then until ctx ends.
func (b *backups) run(ctx context.Context, publish func(context.Context) (int, error), logger *slog.Logger) error {
	timer := time.NewTimer(publishSoon)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if _, err := publish(ctx); err != nil && ctx.Err() == nil {
			logger.Info("the newest head reached nobody else yet", "err", err)
		}
		timer.Reset(publishEvery)
	}
}

// Backup makes a snapshot of absolute paths. Redundancy is auto, K+M, or empty
// for what is configured. progress and skipped may be nil.
func (p *Peer) Backup(ctx context.Context, paths []string, redundancy string, progress func(*controlv1.BackupProgress), skipped func(path string, err error)) (*controlv1.BackupSummary, error) {
	return p.backUp(ctx, backupJob{paths: paths, redundancy: redundancy, progress: progress, skipped: skipped})
}

// redundancyOf reads what a backup asks for; zero is automatic.
func (p *Peer) redundancyOf(text string) (storage.Redundancy, error) {
	if text == "" {
		text = p.cfg().Redundancy
	}
	r, err := storage.ParseRedundancy(text)
	if err != nil {
		return r, &Failure{Kind: controlv1.Kind_KIND_USAGE, What: err.Error(), Meaning: "nothing was backed up", Next: "gotong backup --redundancy 4+2 PATH…"}
	}
	return r, nil
}

// backupPlan is how segments are coded with the friends who are here.
type backupPlan struct {
	coding  storage.Redundancy
	holders int    // peers on which the shards of a segment go
	note    string // what the owner should know of it; may be empty
}

func (p *Peer) planBackup(ctx context.Context, asked storage.Redundancy) (backupPlan, error) {
	p.holders.forgetAnswers()
	candidates := p.holders.Candidates(ctx, p.owner(), p.ID())
	sites := placement.Sites(candidates, 1)
	here := placement.Here(candidates)
	plan := backupPlan{coding: asked}
	if plan.coding.IsZero() {
		plan.coding = placement.Auto(sites)
	}
	plan.holders = min(plan.coding.N, len(candidates))
	switch {
	case len(here) > 0 && placement.Sites(here, 1) == 0:
		return plan, p.noRoom(storage.ErrTooFewPeers)
	case len(here) == 0:
		return plan, &Failure{Kind: controlv1.Kind_KIND_TOO_FEW, What: "no friend who gives disk is here",
			Meaning: "nothing new is backed up; what was before is untouched", Next: "gotong invite, or wait for friends: gotong peers"}
	case len(here) < min(len(candidates), plan.coding.N):
		plan.note = fmt.Sprintf("%d of %d friends who give disk are away: what is theirs is sent when they are back.", len(candidates)-len(here), len(candidates))
	case sites < plan.coding.N:
		plan.note = fmt.Sprintf("%d shards are on %d sites: some site holds more than one.", plan.coding.N, sites)
	}
	return plan, nil
}

// outdatedFailure explains why this device must not write its vault any more:
// peers know what another one, or another copy of this disk, has written.
func outdatedFailure(err error) *Failure {
	if errors.Is(err, storage.ErrStaleEpoch) {
		return &Failure{Kind: controlv1.Kind_KIND_REFUSED, What: "another device took this vault over with the recovery phrase",
			Meaning: "nothing new is backed up from here; restore still works, and what was backed up goes on there",
			Next:    "a vault of its own for this device, in a new home: gotong join CODE --phrase-file FILE; or take it back: gotong recover"}
	}
	return &Failure{Kind: controlv1.Kind_KIND_REFUSED, What: "friends know a newer state of this vault than this disk",
		Meaning: "the disk was restored or cloned, and writing on would fork the vault; restore still works",
		Next:    "in a new home gotong recover, which goes on with this vault, or gotong join CODE --phrase-file FILE"}
}

// backupFailure explains why there is no snapshot.
func (p *Peer) backupFailure(err error) error {
	switch {
	case errors.Is(err, vault.ErrBusy):
		return &Failure{Kind: controlv1.Kind_KIND_BUSY, What: "another backup is running", Meaning: "it goes on", Next: "the same command later"}
	case errors.Is(err, storage.ErrStaleEpoch), errors.Is(err, storage.ErrHeadFork), errors.Is(err, vault.ErrNewerHead):
		f := outdatedFailure(err)
		p.outdated.Store(f)
		return f
	case errors.Is(err, snapshot.ErrPattern):
		return &Failure{Kind: controlv1.Kind_KIND_USAGE, What: err.Error(), Meaning: "there is no new snapshot: it would hold what should stay out", Next: "gotong backup --help"}
	case errors.Is(err, snapshot.ErrStdin):
		return &Failure{Kind: controlv1.Kind_KIND_FAILED, What: err.Error(), Meaning: "there is no new snapshot", Next: "the same command again"}
	case errors.Is(err, snapshot.ErrNothing):
		return &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "none of the paths can be backed up", Meaning: "there is no new snapshot", Next: "look at the paths"}
	case disk.IsFull(err):
		return &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "the disk with " + p.home.dir + " is full",
			Meaning: "there is no new snapshot; what was before is untouched, and what was sent now is not sent again", Next: "free some space, then the same command again"}
	}
	if f := p.noRoom(err); f != nil {
		return f
	}
	return p.explainTooFew(err)
}
