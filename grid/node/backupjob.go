package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"gotong/grid/peernet"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage/snapshot"
)

// backupJob is one backup, as a command or the schedule wants it.
type backupJob struct {
	set        string // name of a backup set; empty: paths of a command
	redundancy string // empty: as configured
	dryRun     bool

	paths            []string // absolute
	stdinName        string   // instead of paths: one file of this name
	stdin            io.Reader
	exclude          []string
	excludeFrom      []string // files of patterns
	excludeCaches    bool
	excludeIfPresent []string
	oneFileSystem    bool
	tags             []string

	progress func(*controlv1.BackupProgress)
	skipped  func(path string, err error)
	warned   func(path string, err error)
}

// newBackupJob makes a job of what a command asks for.
func (p *Peer) newBackupJob(r *controlv1.BackupRequest) (backupJob, error) {
	for _, tag := range r.Tags {
		if err := CheckTag(tag); err != nil {
			return backupJob{}, usage(err.Error(), "gotong backup --help")
		}
	}
	if r.Set != "" {
		return p.setJobFor(r)
	}
	job := backupJob{
		redundancy: r.Redundancy, dryRun: r.DryRun, stdinName: r.StdinName, exclude: r.Exclude,
		excludeCaches: r.ExcludeCaches, excludeIfPresent: r.ExcludeIfPresent, oneFileSystem: r.OneFileSystem, tags: r.Tags,
	}
	for _, path := range r.Paths {
		job.paths = append(job.paths, string(path))
	}
	for _, path := range r.ExcludeFrom {
		job.excludeFrom = append(job.excludeFrom, string(path))
	}
	return job, errors.Join(wantAbsolute(job.paths...), wantAbsolute(job.excludeFrom...))
}

// setJobFor makes a job of a named set with what the command adds to it.
func (p *Peer) setJobFor(r *controlv1.BackupRequest) (backupJob, error) {
	if len(r.Paths) > 0 || r.Files || r.StdinName != "" || len(r.Exclude)+len(r.ExcludeFrom) > 0 || r.ExcludeCaches || len(r.ExcludeIfPresent) > 0 || r.OneFileSystem {
		return backupJob{}, usage("a set says itself what belongs to it", "gotong backup --set "+r.Set)
	}
	job, err := p.setJob(r.Set)
	if err != nil {
		return backupJob{}, err
	}
	job.dryRun = r.DryRun
	job.tags = append(job.tags, r.Tags...)
	if r.Redundancy != "" {
		job.redundancy = r.Redundancy
	}
	return job, nil
}

func usage(what, next string) *Failure {
	return &Failure{Kind: controlv1.Kind_KIND_USAGE, What: what, Meaning: "nothing was changed", Next: next}
}

// snapshotOptions returns what package snapshot is asked for.
func (p *Peer) snapshotOptions(job backupJob) snapshot.BackupOptions {
	return snapshot.BackupOptions{
		Paths: job.paths, Never: []string{p.home.dir}, Exclude: job.exclude, ExcludeFrom: job.excludeFrom, ExcludeCaches: job.excludeCaches,
		ExcludeIfPresent: job.excludeIfPresent, OneFileSystem: job.oneFileSystem, Stdin: job.stdin, StdinName: job.stdinName,
		DryRun: job.dryRun, Host: hostName(), Set: job.set, Tags: job.tags,
		Skipped: job.skipped, Warned: job.warned, Logger: p.logger,
	}
}

// backUp makes one snapshot.
func (p *Peer) backUp(ctx context.Context, job backupJob) (*controlv1.BackupSummary, error) {
	if job.dryRun { // stores nothing, so it needs no turn
		return p.makeSnapshot(ctx, job)
	}
	end, err := p.backups.begin(ctx)
	if err != nil {
		return nil, p.backupFailure(err)
	}
	defer end()
	if job.set == "" {
		return p.makeSnapshot(ctx, job)
	}
	began := time.Now()
	p.schedule.begin(job.set)
	summary, err := p.makeSnapshot(ctx, job)
	p.schedule.end(job.set, began, summary.GetSnapshot(), err)
	return summary, err
}

// makeSnapshot is backUp for the one who may.
func (p *Peer) makeSnapshot(ctx context.Context, job backupJob) (*controlv1.BackupSummary, error) {
	asked, err := p.redundancyOf(job.redundancy)
	if err != nil {
		return nil, err
	}
	if !job.dryRun { // which may run beside a backup that goes by these
		p.backups.redundancy.Store(&asked)
		p.backups.refusals.forget()
	}
	plan, err := p.planBackup(ctx, asked)
	if err != nil && !job.dryRun {
		return nil, err
	}
	options := p.snapshotOptions(job)
	if job.progress != nil {
		options.Progress = p.report(job)
	}
	s, err := snapshot.Backup(ctx, p.vault, options)
	if err != nil {
		return nil, p.backupFailure(err)
	}
	out := &controlv1.BackupSummary{
		Files: s.Files, NewFiles: s.NewFiles, ChangedFiles: s.ChangedFiles, Dirs: s.Directories, Excluded: s.Excluded, Warned: s.Warned,
		Bytes: s.Bytes, NewBytes: s.NewBytes, DuplicateBytes: s.DuplicateBytes, StoredBytes: s.StoredBytes,
		Segments: s.Segments, Seconds: s.Duration.Seconds(), Committed: s.Committed, Complete: s.Complete,
		SurvivesSites: int32(s.SurvivesSites), Skipped: s.Skipped, Redundancy: plan.coding.String(), Note: plan.note,
		Holders: uint32(plan.holders), DryRun: job.dryRun, Set: job.set,
	}
	if !job.dryRun && !s.Complete {
		out.Refused = p.backups.refusals.text(p.nameOf)
	}
	if !job.dryRun {
		out.Snapshot = s.Snapshot.ID.String()
		p.outdated.Store(nil) // nobody who was asked knows more than this device
	}
	return out, nil
}

// report turns progress into what the command is told.
func (p *Peer) report(job backupJob) func(snapshot.Progress) {
	rates := p.watchRates(func(t peernet.Traffic) uint64 { return t.Sent })
	return func(now snapshot.Progress) {
		job.progress(&controlv1.BackupProgress{
			Files: now.Files, Bytes: now.Bytes, NewBytes: now.NewBytes, DuplicateBytes: now.DuplicateBytes, StoredBytes: now.StoredBytes,
			TotalFiles: now.TotalFiles, TotalBytes: now.TotalBytes, Holders: rates.now(time.Now()),
		})
	}
}

// setJob makes a job of a named set.
func (p *Peer) setJob(name string) (backupJob, error) {
	name = strings.ToLower(name) // as the configuration has them
	set, ok := p.cfg().Backup.Sets[name]
	if !ok {
		return backupJob{}, p.noSuchSet(name)
	}
	job := backupJob{
		set: name, redundancy: set.Redundancy, exclude: set.Exclude, excludeCaches: set.ExcludeCaches,
		excludeIfPresent: set.ExcludeIfPresent, oneFileSystem: set.OneFileSystem, tags: set.Tags,
	}
	for _, path := range set.Paths {
		full, err := expandPath(path)
		if err != nil {
			return backupJob{}, err
		}
		job.paths = append(job.paths, full)
	}
	job.tags = slices.Clone(job.tags)
	for _, file := range set.ExcludeFiles {
		full, err := expandPath(file)
		if err != nil {
			return backupJob{}, err
		}
		job.excludeFrom = append(job.excludeFrom, full)
	}
	return job, nil
}

func (p *Peer) noSuchSet(name string) *Failure {
	f := usage(fmt.Sprintf("there is no backup set %q", name), "gotong config show; sets are in "+p.home.dir+"/config.yaml")
	if names := p.cfg().Backup.SetNames(); len(names) > 0 {
		f.What += "; there is " + strings.Join(names, ", ")
	}
	return f
}
