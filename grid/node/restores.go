package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"gotong/grid/disk"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage/snapshot"
	"gotong/storage/vault"
)

// restoreJob is one restore as a command wants it.
type restoreJob struct {
	snapshot string // what the user calls it
	target   string // absolute; empty: where it was backed up
	options  snapshot.RestoreOptions
}

var (
	comparisons = map[string]snapshot.Compare{"": snapshot.CompareContent, "content": snapshot.CompareContent,
		"times": snapshot.CompareTimes, "nothing": snapshot.CompareNothing}
	overwrites = map[string]snapshot.Overwrite{"": snapshot.OverwriteAny, "any": snapshot.OverwriteAny,
		"older": snapshot.OverwriteOlder, "none": snapshot.OverwriteNone}
)

// newRestoreJob makes a job of what a command asks for.
func newRestoreJob(r *controlv1.RestoreRequest) (restoreJob, error) {
	job := restoreJob{snapshot: r.Snapshot, target: string(r.Target), options: snapshot.RestoreOptions{
		Path: string(r.Path), Include: r.Include, Exclude: r.Exclude, Delete: r.Delete, DryRun: r.DryRun, Verify: r.Verify,
	}}
	var known bool
	if job.options.Compare, known = comparisons[r.Compare]; !known {
		return job, usage(fmt.Sprintf("cannot compare by %q: want content, times or nothing", r.Compare), "gotong restore --help")
	}
	if job.options.Overwrite, known = overwrites[r.Overwrite]; !known {
		return job, usage(fmt.Sprintf("cannot overwrite %q: want any, older or none", r.Overwrite), "gotong restore --help")
	}
	if r.InPlace && job.target == "" {
		return job, nil
	}
	return job, wantAbsolute(job.target)
}

// Restore writes a snapshot, or what is below path in it, into target.
func (p *Peer) Restore(ctx context.Context, name, path, target string, progress func(snapshot.Progress), skipped func(path string, err error)) (*controlv1.RestoreSummary, error) {
	return p.restore(ctx, restoreJob{name, target, snapshot.RestoreOptions{Path: path, Progress: progress, Skipped: skipped}})
}

func (p *Peer) restore(ctx context.Context, job restoreJob) (*controlv1.RestoreSummary, error) {
	name, err := p.snapshotName(ctx, job.snapshot)
	if err != nil {
		return nil, err
	}
	if job.target == "" {
		if job.target, err = p.placeOf(ctx, name, job.options.Path); err != nil {
			return nil, p.readFailure(job.snapshot, err)
		}
		job.nameWhole()
	}
	job.options.Never, job.options.Logger = []string{p.home.dir}, p.logger
	s, err := snapshot.Restore(ctx, p.vault, name, job.target, job.options)
	if err != nil {
		return nil, p.restoreFailure(job.snapshot, job.target, err)
	}
	return &controlv1.RestoreSummary{
		Files: s.Files, Bytes: s.Bytes, Seconds: s.Duration.Seconds(), Skipped: s.Skipped, Lost: s.Lost, Snapshot: s.Snapshot.ID.String(),
		Target: validText(job.target), FetchedBytes: s.FetchedBytes, Actions: s.Actions, Unowned: s.Unowned,
		Verified: s.Verified, VerifiedBytes: s.VerifiedBytes, DryRun: job.options.DryRun,
	}, nil
}

// nameWhole makes what is reported of entries say where they are on this machine.
func (j *restoreJob) nameWhole() {
	if skipped := j.options.Skipped; skipped != nil {
		j.options.Skipped = func(path string, err error) { skipped(filepath.Join(j.target, path), err) }
	}
	if done := j.options.Done; done != nil {
		j.options.Done = func(action, path string) { done(action, filepath.Join(j.target, path)) }
	}
}

// placeOf returns the directory into which a restore of a path puts it back to
// where it was: the path itself, or for anything but a directory the one that it
// is in.
func (p *Peer) placeOf(ctx context.Context, name, at string) (string, error) {
	full := path.Clean("/" + at)
	place := full
	err := snapshot.List(ctx, p.vault, name, at, false, func(e snapshot.Entry) error {
		if e.Path == full && e.Type != "dir" {
			place = path.Dir(full)
		}
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return place, err
}

// errEnough ends a listing of which no more is wanted.
var errEnough = errors.New("enough")

// readFailure explains why the snapshot that the user calls name cannot be read.
func (p *Peer) readFailure(name string, err error) error {
	switch {
	case errors.Is(err, vault.ErrNoSnapshot), errors.Is(err, vault.ErrAmbiguous):
		return &Failure{Kind: controlv1.Kind_KIND_USAGE, What: err.Error(), Next: "gotong snapshots"}
	case errors.Is(err, snapshot.ErrNoPath):
		snapshot, _, _ := strings.Cut(name, ":")
		return &Failure{Kind: controlv1.Kind_KIND_FAILED, What: err.Error(), Next: "gotong ls " + snapshot}
	case errors.Is(err, snapshot.ErrNotFile):
		return &Failure{Kind: controlv1.Kind_KIND_USAGE, What: err.Error(), Next: "gotong restore for directories, gotong ls to look"}
	}
	return p.explainTooFew(err)
}

// restoreFailure explains why a restore into target ended early.
func (p *Peer) restoreFailure(name, target string, err error) error {
	var denied *fs.PathError
	switch {
	case errors.Is(err, snapshot.ErrPattern):
		return usage(err.Error(), "gotong restore --help")
	case disk.IsFull(err):
		return &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "the disk with " + target + " is full",
			Meaning: "files that are there under their names are whole; the others are not restored", Next: "free some space, then the same command again"}
	case errors.Is(err, snapshot.ErrTarget) && errors.As(err, &denied):
		return &Failure{Kind: controlv1.Kind_KIND_FAILED, What: fmt.Sprintf("cannot write into %s: %v", target, denied.Err),
			Meaning: "nothing was restored", Next: "another --target DIR"}
	}
	return p.readFailure(name, err)
}
