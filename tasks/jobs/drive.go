package jobs

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"gotong/grid"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// DriveConfig is what Drive needs.
type DriveConfig struct {
	Job   *Job
	Self  grid.PeerID // who drives
	Epoch uint64      // of this drive; its beginning is in the journal already
	// Append makes encoded records durable, here (Job.AppendEncoded) and wherever
	// else; nil: only here. It is called by one goroutine.
	Append func(raws [][]byte) error
	// Pool returns the peers that may run a step.
	Pool func(Step) (scheduler.Pool, error)
	// Contents opens what the job needs and is not in its own directory.
	Contents Contents
	// Remember, if set, has a step take results that are remembered here, but
	// when it is to be fresh, and has what it gives remembered. Key signs those
	// that are taken; both are for peers of the job's owner.
	Remember func(job scheduler.Job, cfg scheduler.Config, fresh bool, receive Receive) (scheduler.Config, Receive)
	Key      ed25519.PrivateKey
	Dir      string       // for files that are needed as long as the job is driven
	Logger   *slog.Logger // nil: discard
}

// Receive takes in an accepted result, as scheduler.Run gives it.
type Receive = func(*scheduler.Accepted) error

// Contents reads stored contents of jobs. Its methods are safe for concurrent
// use.
type Contents interface {
	// Open returns the verified bytes of a stored content. The caller closes.
	Open(ctx context.Context, p Plan, id tasks.ContentID, stored tasks.Stored) (io.ReadCloser, error)
	// Held returns nil when enough peers say that they have a stored content of
	// the job.
	Held(ctx context.Context, p Plan, stored tasks.Stored) error
}

// Drive runs the steps of a job that are ready, each when all that it needs is
// done, and goes on where the journal ends. It returns nil once the end of the
// job is in the journal; else the error is that of the journal, of a step that
// cannot be begun now, or the cause of ctx. Every result is durable before it
// counts.
func Drive(ctx context.Context, cfg DriveConfig) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Append == nil {
		cfg.Append = func(raws [][]byte) error { return cfg.Job.AppendEncoded(raws...) }
	}
	cfg.Logger = cfg.Logger.With("job", cfg.Job.ID().Short())
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	d := &drive{DriveConfig: cfg, plan: cfg.Job.Plan()}
	cfg.Job.View(func(s *State) { d.generation = s.Generation() })
	d.recorder = newRecorder(d, stop)
	err := d.steps(ctx)
	return errors.Join(err, d.recorder.close())
}

// firstEpoch is that of a job's first driver.
const firstEpoch = 1

type drive struct {
	DriveConfig
	plan       Plan
	generation uint32
	recorder   *recorder
}

// stepEnd says how running a step went.
type stepEnd struct {
	step int
	err  error
}

// steps runs steps as they become ready, until none is left.
func (d *drive) steps(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop(errOver)
	running, ended := map[int]bool{}, make(chan stepEnd, len(d.plan.Steps))
	for {
		states := d.states()
		for i, state := range states {
			if state == StepReady && !running[i] {
				running[i] = true
				wg.Go(func() { ended <- stepEnd{i, d.step(ctx, i)} })
			}
		}
		if len(running) == 0 {
			return d.end(states)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e := <-ended:
			delete(running, e.step)
			if e.err != nil {
				return fmt.Errorf("step %q: %w", d.plan.Steps[e.step].Name, e.err)
			}
			if d.states()[e.step] == StepReady {
				return fmt.Errorf("step %q: ended without all of its results", d.plan.Steps[e.step].Name)
			}
		}
	}
}

var errOver = errors.New("no longer driven")

func (d *drive) states() (states []StepState) {
	d.Job.View(func(s *State) { states = s.StepStates() })
	return states
}

// end writes how the job ended.
func (d *drive) end(states []StepState) error {
	end := Ended{Done: true}
	var failed, skipped []string
	for i, state := range states {
		name := d.plan.Steps[i].Name
		switch state {
		case StepFailed:
			failed = append(failed, name)
		case StepSkipped:
			skipped = append(skipped, name)
		}
	}
	if len(failed) > 0 {
		end = Ended{Why: "failed in " + strings.Join(failed, ", ")}
		if len(skipped) > 0 {
			end.Why += "; not run for that: " + strings.Join(skipped, ", ")
		}
	}
	if err := d.recorder.sync(); err != nil {
		return err
	}
	return d.write(d.record(func(r *Record) { r.Ended = &end }))
}

// record returns a record of this driver.
func (d *drive) record(fill func(*Record)) *Record {
	r := &Record{Epoch: d.Epoch, Driver: d.Self, At: time.Now().UTC(), Generation: d.generation}
	fill(r)
	return r
}

func (d *drive) write(r *Record) error {
	raw, err := r.Encode()
	if err != nil {
		return err
	}
	return d.Append([][]byte{raw})
}
