package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
	"gotong/tasks/batch"
	"gotong/tasks/scheduler"
)

// errRunCancelled is why a run ends that its user no longer wants.
var errRunCancelled = errors.New("the run was cancelled")

// run is one run of the command line.
type run struct {
	peer   *Peer
	stream runStream
	start  *controlv1.RunStart
	files  *uploads
	items  *runItems
	events runEvents
}

// Run takes a job from the command line, runs it and streams its results.
func (s *service) Run(stream runStream) error {
	request, err := stream.Recv()
	if err != nil {
		return err
	}
	start := request.GetStart()
	if start == nil {
		return fmt.Errorf("%w: a run begins with its start", tasks.ErrInvalid)
	}
	dir, err := os.MkdirTemp(s.peer.work.submitDir, "run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := &run{peer: s.peer, stream: stream, start: start}
	if r.files, err = receiveFiles(stream, dir, start); err != nil {
		return err
	}
	if r.items, err = receiveItems(stream, r.files, start); err != nil {
		return err
	}
	defer r.items.close()
	return r.run()
}

func (r *run) run() error {
	job, err := r.job()
	if err != nil {
		return err
	}
	if r.start.DryRun {
		if job.Grant, err = r.peer.grantJob(job.Job, 0, runLife); err != nil {
			return err
		}
		return r.plan(job)
	}
	ctx, cancel := context.WithCancelCause(r.stream.Context())
	defer cancel(nil)
	go r.listen(cancel)
	if err := r.peer.grantRun(ctx, &job, r.files); err != nil {
		return err
	}
	r.events = runEvents{peer: r.peer, start: r.start, items: r.items, stream: r.stream}
	return r.drive(ctx, job)
}

// listen waits for the user to cancel, up to the end of the stream.
func (r *run) listen(cancel context.CancelCauseFunc) {
	for {
		request, err := r.stream.Recv()
		if err != nil {
			return
		}
		if request.GetCancel() != nil {
			cancel(errRunCancelled)
		}
	}
}

// job makes a job of what the command line said.
func (r *run) job() (scheduler.Job, error) {
	limits := tasks.RunLimits(int64(r.start.MemoryBytes), time.Duration(r.start.TimeoutMillis)*time.Millisecond)
	task, err := r.items.tasks(r.start)
	if err != nil {
		return scheduler.Job{}, err
	}
	job := scheduler.Job{
		Header: scheduler.Header{
			Job: tasks.NewJobID(), Runtime: runtimeOf(r.start), Module: r.files.module(), Command: r.command(), Inputs: r.files.inputs(), Limits: limits,
		},
		Count: r.items.count(), Task: task, Outputs: r.start.Outputs,
	}
	return job, job.Validate()
}

// command returns the native command that all tasks run; empty when there is none,
// or their items name it.
func (r *run) command() string {
	if !r.start.Native || len(r.start.Args) == 0 {
		return ""
	}
	first := string(r.start.Args[0])
	if !r.start.HasItems {
		return first
	}
	text, _ := batch.Fixed(first)
	return text
}

func runtimeOf(start *controlv1.RunStart) tasks.Runtime {
	if start.Native {
		return tasks.RuntimeNative
	}
	return tasks.RuntimeWASI
}

// drive runs the job to its end and sends what happens.
func (r *run) drive(ctx context.Context, job scheduler.Job) error {
	cfg, err := r.config()
	if err != nil {
		return err
	}
	cfg, receive := r.peer.remember(job, cfg, r.start.NoCache, r.events.result)
	stop := r.events.follow(r.start.Progress)
	sum, err := scheduler.Run(ctx, job, cfg, receive)
	stop()
	switch {
	case errors.Is(err, errRunCancelled):
		if err := r.events.stopped(sum); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if err := r.nobodyWorked(sum); err != nil {
			return err
		}
	}
	return r.events.summary(sum, cfg.Halt)
}

func (r *run) config() (cfg scheduler.Config, err error) {
	cfg = scheduler.Config{
		Pool: r.peer.work, Contents: r.files, Name: r.peer.nameOf, Dir: r.files.dir, Peers: int(r.start.Peers), AsTheyCome: r.start.AsTheyCome,
		AtOnce: int(r.start.AtOnce), Retries: int(r.start.Retries), TimeoutPercent: int(r.start.TimeoutPercent),
		Progress: r.events.progress, Waiting: r.events.waiting, Logger: r.peer.logger,
	}
	if cfg.Halt, err = batch.ParseHalt(r.start.Halt); err != nil {
		return cfg, fmt.Errorf("%w: %w", tasks.ErrInvalid, err)
	}
	cfg.Verify, err = tasks.ParseVerify(r.start.Verify)
	return cfg, err
}

const nobodyGives = "no peer that is alive gives task slots"

// nobodyWorked explains a run of which no task was ever taken.
func (r *run) nobodyWorked(sum scheduler.Summary) error {
	if sum.Tasks == 0 || sum.Lost < sum.Tasks || sum.Unfit > 0 { // the tasks say why
		return nil
	}
	why := cmp.Or(scheduler.Words(sum.Refusals, r.peer.nameOf), nobodyGives)
	return &Failure{Kind: controlv1.Kind_KIND_TOO_FEW, What: "no peer took a task: " + why,
		Meaning: "no task was run to its end", Next: "gotong run --dry-run, which asks every peer; then gotong run again"}
}
