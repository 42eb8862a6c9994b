package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/tasks"
	"gotong/tasks/batch"
	"gotong/tasks/scheduler"
)

func unfit(why string) func(*fakeWorker) {
	return func(w *fakeWorker) {
		w.refuse = func() error { return fmt.Errorf("%w: %s", tasks.ErrUnfit, why) }
	}
}

// TestRunEndsWhenNoPeerIsFit: soon, with the reason of each; one that refuses only
// for now is waited for.
func TestRunEndsWhenNoPeerIsFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		pool.add(2, unfit("it has no command"))
		for range 5 {
			pool.add(2, unfit("it runs no commands"))
		}
		job, contents := newJob(3)
		start := time.Now()
		results, sum := runJob(t, pool, job, scheduler.Config{
			Name: func(id grid.PeerID) string { return fmt.Sprint("peer-", id[0]) }, Waiting: func([]scheduler.Refusal) { t.Error("it is told to wait") },
		}, contents)
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("took %s", took)
		}
		const why = "peer-1: it has no command; peer-2, peer-3, peer-4, peer-5 and 1 more: it runs no commands"
		if sum.Lost != 3 || len(sum.Refusals) != 6 || !strings.HasSuffix(results[2].Why, why) {
			t.Errorf("%+v, %+v", sum, results)
		}
		start = time.Now()
		pool.add(1, func(w *fakeWorker) {
			w.refuse = func() error {
				if time.Since(start) < time.Minute {
					return fmt.Errorf("%w: its user is there", tasks.ErrRefused)
				}
				return nil
			}
		})
		if _, sum := runJob(t, pool, job, scheduler.Config{}, contents); sum.Done != 3 {
			t.Errorf("%+v", sum)
		}
	})
}

// TestPatientRunWaitsForAFitPeer: jobs that are kept do.
func TestPatientRunWaitsForAFitPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, start := &fakePool{}, time.Now()
		pool.add(1, func(w *fakeWorker) {
			w.refuse = func() error {
				if time.Since(start) < time.Hour {
					return fmt.Errorf("%w: it has no command", tasks.ErrUnfit)
				}
				return nil
			}
		})
		job, contents := newJob(3)
		if _, sum := runJob(t, pool, job, scheduler.Config{Patient: true, WorkerWait: 2 * time.Hour}, contents); sum.Done != 3 {
			t.Errorf("%+v", sum)
		}
	})
}

// TestTasksThatSomePeersCannotRun go to those that can, and end soon when none can.
func TestTasksThatSomePeersCannotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, verify := range map[string]tasks.Verify{"unchecked": {}, "quorum": twoOfThree} {
			pool := &fakePool{}
			for range 3 {
				pool.add(2, func(w *fakeWorker) { w.lacks = "5" })
			}
			able := []*fakeWorker{pool.add(2, nil), pool.add(2, nil)}
			job, contents := newJob(40)
			if _, sum := runJob(t, pool, job, scheduler.Config{Verify: verify}, contents); sum.Done != 40 || sum.Unfit != 0 {
				t.Errorf("%s: %+v", name, sum)
			}
			for _, w := range able {
				w.lacks = "5"
			}
			start := time.Now()
			results, sum := runJob(t, pool, job, scheduler.Config{Verify: verify}, contents)
			if sum.Done != 39 || sum.Lost != 1 || sum.Unfit != 1 || !strings.Contains(results[5].Why, "no 5 here") {
				t.Errorf("%s: %+v, %s", name, sum, results[5].Why)
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("%s: took %s", name, took)
			}
		}
	})
}

// TestTasksThatNoPeerCanRunEndOnce: the first of them ends the job, and with it the
// others.
func TestTasksThatNoPeerCanRunEndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		pool.add(4, func(w *fakeWorker) { w.lacks = "native" })
		job, contents := newJob(4)
		job.Task = func(int) scheduler.Part { return scheduler.Part{Args: []string{"native"}} }
		_, sum := runJob(t, pool, job, scheduler.Config{Halt: batch.Halt{Now: true, What: batch.HaltFail, Count: 1}}, contents)
		if sum.Lost != 1 || sum.Cancelled != 3 {
			t.Errorf("%+v", sum)
		}
	})
}
