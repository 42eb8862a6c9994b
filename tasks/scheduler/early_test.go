package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gotong/tasks"
	"gotong/tasks/batch"
	"gotong/tasks/scheduler"
)

// byIndex makes a worker run tasks by a function of their index.
func byIndex(f func(ctx context.Context, index int) tasks.Result) func(*fakeWorker) {
	return func(w *fakeWorker) {
		w.run = func(ctx context.Context, o scheduler.Order) tasks.Result {
			start := time.Now()
			r := f(ctx, o.Index)
			r.Elapsed = time.Since(start)
			return r
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func failed() tasks.Result {
	return tasks.Result{State: tasks.StateFailed, ExitCode: 1, Why: "exit code 1"}
}

// TestRetriesWhereResultsAreCompared: sites that agree on a failure are asked
// again, up to so many times; the last failure, or the first success, stands.
func TestRetriesWhereResultsAreCompared(t *testing.T) {
	for _, verify := range []tasks.Verify{{Mode: tasks.VerifyQuorum, Need: 2, Of: 3}, {Mode: tasks.VerifyAdaptive}} {
		synctest.Test(t, func(t *testing.T) {
			pool := &fakePool{}
			var mu sync.Mutex
			runs := map[int]map[int]int{}
			for site := range 3 {
				runs[site] = map[int]int{}
				pool.add(1, byIndex(func(_ context.Context, index int) tasks.Result {
					mu.Lock()
					defer mu.Unlock()
					runs[site][index]++
					all := runs[0][index] + runs[1][index] + runs[2][index]
					if index == 0 || index == 1 && all <= 2 {
						return failed()
					}
					return tasks.Result{State: tasks.StateDone}
				}))
			}
			job, contents := newJob(3)
			results, sum := runJob(t, pool, job, scheduler.Config{Retries: 3, Verify: verify}, contents)
			total := func(index int) int { return runs[0][index] + runs[1][index] + runs[2][index] }
			if results[0].State != tasks.StateFailed || total(0) < 6 || results[1].State != tasks.StateDone || results[2].State != tasks.StateDone || total(2) > 3 {
				t.Errorf("%s: %s %s %s, runs %d %d %d", verify, results[0].State, results[1].State, results[2].State, total(0), total(1), total(2))
			}
			if sum.Failed != 1 || sum.Done != 2 || sum.Caught != 0 || sum.Checked != 3 {
				t.Errorf("%s: %+v", verify, sum)
			}
		})
	}
}

func TestNoMoreTasksAtOnceThanAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		var mu sync.Mutex
		now, most := 0, 0
		for range 4 {
			pool.add(3, byIndex(func(ctx context.Context, _ int) tasks.Result {
				mu.Lock()
				now++
				most = max(most, now)
				mu.Unlock()
				sleep(ctx, time.Millisecond)
				mu.Lock()
				now--
				mu.Unlock()
				return tasks.Result{State: tasks.StateDone}
			}))
		}
		job, contents := newJob(200)
		_, sum := runJob(t, pool, job, scheduler.Config{AtOnce: 5}, contents)
		if most != 5 || sum.Done != 200 {
			t.Errorf("%d at once; %+v", most, sum)
		}
	})
}

// halted runs 100 tasks of which every tenth fails, and returns what was
// received.
func halted(t *testing.T, halt string, asTheyCome bool) ([]tasks.Result, scheduler.Summary) {
	pool := &fakePool{}
	for range 2 {
		pool.add(2, byIndex(func(ctx context.Context, index int) tasks.Result {
			sleep(ctx, time.Duration(1+index%7)*time.Second)
			if index%10 == 9 {
				return failed()
			}
			return tasks.Result{State: tasks.StateDone}
		}))
	}
	job, contents := newJob(100)
	h, err := batch.ParseHalt(halt)
	if err != nil {
		t.Fatal(err)
	}
	var results []tasks.Result
	sum, err := scheduler.Run(t.Context(), job, scheduler.Config{Pool: pool, Contents: contents, Halt: h, AsTheyCome: asTheyCome},
		func(a *scheduler.Accepted) error {
			if !asTheyCome && a.Task.Index != len(results) {
				t.Errorf("task %d received at position %d", a.Task.Index, len(results))
			}
			results = append(results, a.Result)
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != sum.Ended() || sum.Ended()+sum.NotBegun != 100 {
		t.Errorf("%d results, %+v", len(results), sum)
	}
	return results, sum
}

func TestHaltEndsAJobEarly(t *testing.T) {
	for _, asTheyCome := range []bool{false, true} {
		t.Run(fmt.Sprint("as they come ", asTheyCome), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if _, sum := halted(t, "never", asTheyCome); sum.Halted || sum.Failed != 10 || sum.Done != 90 {
					t.Errorf("never: %+v", sum)
				}
				results, sum := halted(t, "now,fail=2", asTheyCome)
				stopped := slices.ContainsFunc(results, func(r tasks.Result) bool { return r.State == tasks.StateCancelled })
				if !sum.Halted || sum.Failed != 2 || sum.Cancelled == 0 || sum.Cancelled > 8 || sum.NotBegun < 50 || !stopped {
					t.Errorf("now: %+v", sum)
				}
				if _, sum := halted(t, "soon,fail=2", asTheyCome); !sum.Halted || sum.Failed < 2 || sum.Cancelled != 0 || sum.NotBegun < 50 {
					t.Errorf("soon: %+v", sum)
				}
				if _, sum := halted(t, "now,success=30%", asTheyCome); !sum.Halted || sum.Done != 30 || sum.NotBegun < 40 {
					t.Errorf("success: %+v", sum)
				}
			})
		})
	}
}

func TestTasksThatFailRunAgainElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		good := func(_ context.Context, index int) tasks.Result {
			if index == 7 {
				return failed() // everywhere
			}
			return tasks.Result{State: tasks.StateDone}
		}
		pool.add(1, byIndex(good))
		pool.add(1, byIndex(func(context.Context, int) tasks.Result { return failed() }))
		job, contents := newJob(20)
		results, sum := runJob(t, pool, job, scheduler.Config{Retries: 3}, contents)
		if sum.Done != 19 || sum.Failed != 1 || results[7].State != tasks.StateFailed || sum.Retried < 2 {
			t.Errorf("%+v", sum)
		}
		if _, sum := runJob(t, pool, job, scheduler.Config{Retries: 1}, contents); sum.Retried != 0 {
			t.Errorf("one run alone: %+v", sum)
		}
	})
}

func TestTasksThatRunMuchLongerThanOthersAreEnded(t *testing.T) {
	for name, c := range map[string]struct {
		retries int
		slow    int // runs of task 30 that are slow
		want    tasks.State
	}{
		"ended":     {0, 100, tasks.StateLimit},
		"run again": {2, 1, tasks.StateDone},
		"given up":  {2, 100, tasks.StateLimit},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool := &fakePool{}
				var mu sync.Mutex
				runs := 0
				for range 2 {
					pool.add(1, byIndex(func(ctx context.Context, index int) tasks.Result {
						d := 2 * time.Second
						if index == 30 {
							mu.Lock()
							if runs++; runs <= c.slow {
								d = time.Hour
							}
							mu.Unlock()
						}
						sleep(ctx, d)
						return tasks.Result{State: tasks.StateDone}
					}))
				}
				job, contents := newJob(60)
				job.Limits.Wall = 24 * time.Hour
				start := time.Now()
				results, sum := runJob(t, pool, job, scheduler.Config{TimeoutPercent: 300, Retries: c.retries}, contents)
				if r := results[30]; r.State != c.want || (c.want == tasks.StateLimit && (r.Limit != tasks.LimitWall || !strings.Contains(r.Why, "median"))) {
					t.Errorf("%s: %s; %+v", r.State, r.Why, sum)
				}
				if took := time.Since(start); sum.Done < 59 || took > 5*time.Minute {
					t.Errorf("%+v in %s", sum, took)
				}
			})
		})
	}
}

func TestWhatRanWhenARunWasStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		w := pool.add(3, slow(time.Minute))
		job, contents := newJob(100)
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("no longer wanted")
		time.AfterFunc(90*time.Second, func() { cancel(why) })
		_, sum, err := receiveAll(ctx, pool, job, scheduler.Config{}, contents)
		if !errors.Is(err, why) || sum.Done != 3 || sum.Stopped != 3 || sum.NotBegun != 94 || len(sum.Running) != 3 {
			t.Fatalf("%+v, %v", sum, err)
		}
		for i, r := range sum.Running {
			if r.Index != 3+i || r.Peer != w.peer || r.For < 29*time.Second || r.For > 31*time.Second {
				t.Errorf("%+v", r)
			}
		}
	})
}
