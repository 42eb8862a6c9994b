package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// runs makes a worker one of a system whose programs print its name.
func runs(engine string) func(*fakeWorker) {
	return func(w *fakeWorker) {
		w.engine = engine
		w.run = func(ctx context.Context, o scheduler.Order) tasks.Result {
			r := takes(50*time.Millisecond)(ctx, o)
			r.Stdout = []byte(engine + " " + o.Spec.Args[0])
			return r
		}
	}
}

// nativeJob returns a job of count commands.
func nativeJob(count int) (scheduler.Job, fakeContents) {
	job, contents := newJob(count)
	job.Runtime, job.Module = tasks.RuntimeNative, tasks.ContentID{}
	return job, contents
}

// TestVotesCountWithinOneEngine: what peers of other systems print is neither for a
// result nor against it, and nobody is caught for it.
func TestVotesCountWithinOneEngine(t *testing.T) {
	for name, verify := range map[string]tasks.Verify{"quorum": twoOfThree, "adaptive": adaptive} {
		synctest.Test(t, func(t *testing.T) {
			pool := &fakePool{}
			for _, engine := range []string{"debian-13", "fedora-42", "debian-13", "alpine-3", "arch"} {
				pool.add(2, runs(engine))
			}
			job, contents := nativeJob(60)
			v, sum, err := runVerified(t.Context(), pool, job, scheduler.Config{Verify: verify}, contents)
			if err != nil || sum.Done != 60 || sum.Caught != 0 {
				t.Fatalf("%s: %+v, %v", name, sum, err)
			}
			for index, a := range v.standing {
				if a.Checked && string(a.Stdout) != fmt.Sprintf("debian-13 %d", index) {
					t.Errorf("%s: task %d: %d voted for %q", name, index, len(a.Votes), a.Stdout)
				}
			}
		})
	}
}

// TestEqualEnginesThatDiffer settle a task as failed however many others there are,
// and a liar is caught by those of its own engine.
func TestEqualEnginesThatDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		for i := range 3 {
			pool.add(2, all(runs("debian-13"), func(w *fakeWorker) {
				w.run = func(context.Context, scheduler.Order) tasks.Result {
					return tasks.Result{State: tasks.StateDone, Stdout: fmt.Append(nil, i)}
				}
			}))
		}
		job, contents := nativeJob(5)
		results, sum := runJob(t, pool, job, scheduler.Config{Verify: twoOfThree}, contents)
		if sum.Failed != 5 || !strings.Contains(results[0].Why, "peers disagree") {
			t.Errorf("%+v, %+v", sum, results[0])
		}
		pool = &fakePool{}
		pool.add(2, runs("debian-13"))
		pool.add(2, runs("debian-13"))
		liar := pool.add(2, runs("debian-13"))
		honest := liar.run
		liar.run = func(ctx context.Context, o scheduler.Order) tasks.Result {
			r := honest(ctx, o)
			r.Stdout = append(r.Stdout, '!')
			return r
		}
		job, contents = nativeJob(50)
		v, sum, err := runVerified(t.Context(), pool, job, scheduler.Config{Verify: twoOfThree}, contents)
		if err != nil || sum.Done != 50 || len(v.caught) != 1 || v.caught[0].Vote.Peer != liar.peer {
			t.Errorf("%+v, %v", sum, err)
		}
	})
}

// TestSitesOfOneEngine: a check that no engine's sites can give is refused before
// anything runs.
func TestSitesOfOneEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		pool.add(1, runs("debian-13"))
		pool.add(1, runs("fedora-42"))
		job, contents := nativeJob(1)
		_, _, err := receiveAll(t.Context(), pool, job, scheduler.Config{Verify: twoOfThree}, contents)
		if !errors.Is(err, scheduler.ErrTooFewSites) || !strings.Contains(err.Error(), "debian-13, fedora-42") {
			t.Errorf("%v", err)
		}
		pool.add(1, func(w *fakeWorker) { w.refuse = func() error { return tasks.ErrBusy } })
		if err := scheduler.CheckSites(t.Context(), job, scheduler.Config{Pool: pool, Verify: twoOfThree}); err != nil {
			t.Errorf("a peer that is busy may be of either: %v", err)
		}
		modules, _ := newJob(1) // a module gives the same everywhere
		if err := scheduler.CheckSites(t.Context(), modules, scheduler.Config{Pool: pool, Verify: twoOfThree}); err != nil {
			t.Error(err)
		}
	})
}
