package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"gotong/tasks"
	"gotong/tasks/contents"
	"gotong/tasks/taskrpc"
	"gotong/tasks/worker"
)

// fetchTries is how often a task's contents are fetched that were pushed out of
// the cache before the task could hold on to them.
const fetchTries = 3

// jobContents is how this peer's worker comes by contents that are stored on the
// grid, and stores outputs there.
type jobContents struct {
	store    *worker.Store
	contents *contents.Contents
	fetcher  *contents.Fetcher
	logger   *slog.Logger
}

func newJobContents(w *worker.Worker, c *contents.Contents, logger *slog.Logger) jobContents {
	return jobContents{w.Store(), c, contents.NewFetcher(c, w.Store()), logger}
}

func jobOf(job taskrpc.Job) contents.Job {
	return contents.Job{ID: job.Job, Key: job.Key, Grant: job.Grant, Expires: job.Expires}
}

// with fetches what the task lacks and runs it by do. Between the two what was
// fetched may be pushed out again.
func (j jobContents) with(ctx context.Context, work taskrpc.Work, do func() (tasks.Result, error)) (r tasks.Result, err error) {
	for range fetchTries {
		if err := j.fetcher.Fetch(ctx, jobOf(work.Job), work.Task.Spec.Contents(), work.StoredAt, work.Fetching); err != nil {
			return tasks.Result{}, err
		}
		var missing *tasks.MissingContent
		if r, err = do(); !errors.As(err, &missing) || !slices.ContainsFunc(missing.IDs, func(id tasks.ContentID) bool { _, ok := work.StoredAt(id); return ok }) {
			return r, err
		}
	}
	return r, err
}

// keep stores what of a result is too large to ride inline, when the job asks for
// it. What could not be stored stays here until it is fetched. It reports whether
// nothing has to stay that did.
func (j jobContents) keep(ctx context.Context, work taskrpc.Work, r *tasks.Result) (all bool) {
	kept, left := 0, 0
	for _, out := range r.Large(true) {
		if asked := work.Job.StoreOutputs; !asked && (out != r.LargeStdout || !work.Job.StoreStdout) {
			left++
			continue
		}
		stored, err := j.put(ctx, work, *out)
		if err != nil {
			j.logger.Info("output of a task is not stored on the grid and waits here to be fetched", "task", work.Task.ID.Short(), "err", err)
			left++
			continue
		}
		out.Stored = &stored
		kept++
	}
	return kept > 0 && left == 0
}

func (j jobContents) put(ctx context.Context, work taskrpc.Work, out tasks.Output) (tasks.Stored, error) {
	f, size, err := j.store.Open(out.Content)
	if err != nil {
		return tasks.Stored{}, fmt.Errorf("output %q: %w", out.Name, err)
	}
	defer f.Close()
	return j.contents.Put(ctx, jobOf(work.Job), out.Content, size, f)
}
