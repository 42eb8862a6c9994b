package scheduler

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Run runs the tasks of a job and calls receive with each result, from this
// goroutine, in the order of the tasks (or as they come, see Config). Results
// that wait for receive hold up the workers once the window is full.
//
// Run returns when every task's result was received, receive returned an error,
// or ctx ended; the error is nil, receive's, or the cause of ctx. By then all
// claims are closed: workers stop what they still run for the job. The summary
// counts what was accepted so far in each case.
func Run(ctx context.Context, job Job, cfg Config, receive func(*Accepted) error) (Summary, error) {
	if err := cfg.Validate(); err != nil {
		return Summary{}, fmt.Errorf("run: %w", err)
	}
	if err := job.Validate(); err != nil {
		return Summary{}, fmt.Errorf("run: %w", err)
	}
	if !cfg.Started {
		if err := CheckSites(ctx, job, cfg); err != nil {
			return Summary{}, fmt.Errorf("run: %w", err)
		}
	}
	judge := newJudge(cfg)
	cfg = cfg.withDefaults()
	start := time.Now()
	st := &stage{parent: cfg.Dir}
	defer st.close()
	l := newLedger(job, cfg, judge)
	m := newMatchmaker(cfg, l, st)
	// When ctx ends, what runs is noted before the claims end.
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	var running []Running
	var count int
	noted := make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		running, count = l.running()
		stop(context.Cause(ctx))
		close(noted)
	})
	var wg sync.WaitGroup
	wg.Go(func() { m.run(work) })
	if cfg.Known != nil {
		wg.Go(func() { l.lookUp(work, cfg.Known) })
	}
	err := deliver(ctx, l, cfg.Caught, receive)
	if !unwatch() {
		<-noted
	}
	stop(errFinished)
	wg.Wait()
	if cfg.Progress != nil {
		cfg.Progress(l.progress())
	}
	sum := l.summary()
	sum.Refusals, sum.Elapsed = m.refusals(), time.Since(start)
	sum.Running = running
	sum.Stopped = count
	sum.NotBegun = max(0, job.Count-sum.Ended()-sum.Stopped)
	return sum, err
}

// deliver hands results to receive, and what was caught to tell, until all were, or something ends it.
func deliver(ctx context.Context, l *ledger, tell func(Caught) error, receive func(*Accepted) error) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		a, caught, finished := l.pop()
		if finished {
			return nil
		}
		if caught != nil {
			if tell != nil {
				if err := tell(*caught); err != nil {
					return err
				}
			}
			continue
		}
		if a == nil {
			select {
			case <-ctx.Done():
			case <-l.deliverable:
			}
			continue
		}
		err := receive(a)
		a.discard()
		l.done(a)
		if err != nil {
			return err
		}
	}
}
