package scheduler_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gotong/tasks"
	"gotong/tasks/scheduler"
)

func TestPeersBoundsWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		for range 6 {
			pool.add(1, slow(time.Second))
		}
		job, contents := newJob(30)
		_, sum := runJob(t, pool, job, scheduler.Config{Peers: 2}, contents)
		if sum.Peers > 2 {
			t.Errorf("%d peers worked", sum.Peers)
		}
	})
}

func TestWorkersThatFailHaveTheirTasksRunElsewhere(t *testing.T) {
	for name, fault := range map[string]func(*fakeWorker){
		"dies":           func(w *fakeWorker) { w.diesAfter = 3 },
		"falls silent":   func(w *fakeWorker) { w.mute = true },
		"hangs at once":  func(w *fakeWorker) { w.hangs = time.Hour },
		"reads nothing":  func(w *fakeWorker) { w.deaf = true; w.mute = true },
		"never ends":     func(w *fakeWorker) { w.run = takes(1000 * time.Hour) },
		"repeats itself": func(w *fakeWorker) { w.repeats = true },
		"loses tasks": func(w *fakeWorker) {
			w.run = func(context.Context, scheduler.Order) tasks.Result {
				return tasks.Result{State: tasks.StateLost, ExitCode: tasks.NoExitCode, Why: "guest stopped"}
			}
		},
		"gives tasks back": func(w *fakeWorker) { w.returns = 1 << 20 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool := &fakePool{}
				pool.add(2, slow(time.Second))
				pool.add(2, slow(time.Second))
				bad := pool.add(2, func(w *fakeWorker) { slow(time.Second)(w); fault(w) })
				job, contents := newJob(60)
				_, sum := runJob(t, pool, job, scheduler.Config{}, contents)
				if sum.Done != 60 {
					t.Errorf("summary %+v", sum)
				}
				if sum.Retried+sum.Duplicated == 0 && bad.hangs == 0 {
					t.Errorf("nothing was run again: %+v", sum)
				}
			})
		})
	}
}

func TestRefusalsAreReportedAndEndTheRunWhenNobodyElseIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		pool.add(1, func(w *fakeWorker) {
			w.refuse = func() error { return fmt.Errorf("on battery: %w", tasks.ErrRefused) }
		})
		job, contents := newJob(10000)
		results, sum := runJob(t, pool, job, scheduler.Config{WorkerWait: time.Minute}, contents)
		if sum.Lost != 10000 {
			t.Errorf("summary %+v", sum)
		}
		if r := results[9999]; r.State != tasks.StateLost || !strings.Contains(r.Why, "on battery") {
			t.Errorf("last result %s: %s", r.State, r.Why)
		}
		if len(sum.Refusals) != 1 || !strings.Contains(sum.Refusals[0].Why, "on battery") {
			t.Errorf("refusals %v", sum.Refusals)
		}
		if sum.Elapsed > 70*time.Second {
			t.Errorf("gave up after %s", sum.Elapsed)
		}
	})
}

func TestWorkerThatComesLateIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		start := time.Now()
		pool.add(1, func(w *fakeWorker) {
			w.refuse = func() error {
				if time.Since(start) < time.Minute {
					return tasks.ErrBusy
				}
				return nil
			}
		})
		job, contents := newJob(3)
		if _, sum := runJob(t, pool, job, scheduler.Config{}, contents); sum.Done != 3 {
			t.Errorf("summary %+v", sum)
		}
	})
}

// killedBy has some tasks kill the sandboxes of a worker.
func killedBy(indexes ...int) func(*fakeWorker) {
	return func(w *fakeWorker) {
		w.run = func(_ context.Context, o scheduler.Order) tasks.Result {
			if slices.Contains(indexes, o.Index) {
				return tasks.Result{State: tasks.StateLost, ExitCode: tasks.NoExitCode, Why: "child was killed"}
			}
			return tasks.Result{State: tasks.StateDone}
		}
	}
}

func TestTaskThatKillsItsWorkersIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		for range 3 {
			pool.add(1, killedBy(7))
		}
		job, contents := newJob(20)
		results, sum := runJob(t, pool, job, scheduler.Config{}, contents)
		if sum.Done != 19 || sum.Lost != 1 || sum.Retried != scheduler.MaxAttempts-1 {
			t.Errorf("summary %+v", sum)
		}
		if why := results[7].Why; !strings.Contains(why, "5 attempts") || !strings.Contains(why, "child was killed") {
			t.Errorf("why: %s", why)
		}
	})
}

// TestTaskThatKillsItsWorkersIsGivenUpByAQuorum: however many sites there are that
// could try it next, while another still does.
func TestTaskThatKillsItsWorkersIsGivenUpByAQuorum(t *testing.T) {
	for _, verify := range []tasks.Verify{{Mode: tasks.VerifyQuorum, Need: 2, Of: 3}, {Mode: tasks.VerifyAdaptive}} {
		synctest.Test(t, func(t *testing.T) {
			pool := &fakePool{}
			var runs atomic.Int32
			for range 15 {
				pool.add(1, func(w *fakeWorker) {
					killedBy(3)(w)
					result := w.run
					w.run = func(ctx context.Context, o scheduler.Order) tasks.Result {
						if o.Index == 3 {
							time.Sleep(10*time.Second + 3*time.Second*time.Duration(runs.Add(1)%2))
						}
						return result(ctx, o)
					}
				})
			}
			job, contents := newJob(5)
			results, sum := runJob(t, pool, job, scheduler.Config{Verify: verify}, contents)
			if n := runs.Load(); sum.Done != 4 || sum.Lost != 1 || n > scheduler.MaxAttempts+1 {
				t.Errorf("%s: it ran %d times, %+v", verify, n, sum)
			}
			if why := results[3].Why; !strings.Contains(why, "given up after") || !strings.Contains(why, "child was killed") {
				t.Errorf("%s: %s", verify, why)
			}
		})
	}
}

// TestLossesOfFormerRunsCount: what another driver lost is not lost anew, and who
// follows hears of what is lost here.
func TestLossesOfFormerRunsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		for range 3 {
			pool.add(1, killedBy(7, 8))
		}
		job, contents := newJob(20)
		var mu sync.Mutex
		told := map[int][]int{}
		results, sum := runJob(t, pool, job, scheduler.Config{
			Attempts: map[int]int{7: 2, 8: scheduler.MaxAttempts},
			Lost: func(index, attempts int) {
				mu.Lock()
				defer mu.Unlock()
				told[index] = append(told[index], attempts)
			},
		}, contents)
		if sum.Done != 18 || sum.Lost != 2 || sum.Retried != 2 || !strings.Contains(results[7].Why, "5 attempts") || !strings.Contains(results[8].Why, "5 attempts") {
			t.Errorf("summary %+v", sum)
		}
		if want := map[int][]int{7: {3, 4}}; !reflect.DeepEqual(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
	})
}

func TestStragglerIsDuplicatedOnAnotherSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		var firsts atomic.Int32
		stuck := func(ctx context.Context, o scheduler.Order) tasks.Result {
			if o.Index == 39 && firsts.Add(1) == 1 {
				return takes(time.Hour)(ctx, o)
			}
			return takes(100*time.Millisecond)(ctx, o)
		}
		for range 3 {
			pool.add(2, func(w *fakeWorker) { w.run = stuck })
		}
		job, contents := newJob(40)
		_, sum := runJob(t, pool, job, scheduler.Config{}, contents)
		if sum.Duplicated != 1 || sum.Elapsed > 10*time.Second {
			t.Errorf("summary %+v", sum)
		}
	})
}

func TestLateDuplicateIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		var firsts atomic.Int32
		for range 2 {
			pool.add(1, func(w *fakeWorker) {
				w.ignoresCancel = true
				w.run = func(_ context.Context, o scheduler.Order) tasks.Result {
					if o.Index == 1 && firsts.Add(1) == 1 {
						time.Sleep(time.Minute)
					}
					return takes(5*time.Second)(context.Background(), o)
				}
			})
		}
		job, contents := newJob(3)
		cfg := scheduler.Config{Pool: pool, Contents: contents}
		sum, err := scheduler.Run(t.Context(), job, cfg, func(a *scheduler.Accepted) error {
			if a.Task.Index == 2 {
				time.Sleep(2 * time.Minute) // until the slow copy has ended too
			}
			return nil
		})
		if err != nil || sum.Done != 3 || sum.Duplicated != 1 || sum.Dropped != 1 {
			t.Errorf("%+v, %v", sum, err)
		}
	})
}

func TestWorkerThatOnlyClaimsToWorkIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		stuck := pool.add(1, slow(1000*time.Hour))
		job, contents := newJob(1)
		job.Limits.Wall = time.Minute
		start := time.Now()
		go func() {
			time.Sleep(2 * time.Minute)
			pool.mu.Lock()
			defer pool.mu.Unlock()
			stuck.refuse = func() error { return tasks.ErrBusy }
		}()
		_, sum := runJob(t, pool, job, scheduler.Config{}, contents)
		if took := time.Since(start); sum.Lost != 1 || took > 6*time.Minute {
			t.Errorf("after %s: %+v", took, sum)
		}
	})
}

func TestARunThatNobodyTakesSaysWhyUntilSomebodyDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		var awake, took atomic.Bool
		pool.add(1, func(w *fakeWorker) {
			w.refuse = func() error {
				if awake.Load() {
					return nil
				}
				return fmt.Errorf("on battery: %w", tasks.ErrRefused)
			}
			w.run = func(ctx context.Context, o scheduler.Order) tasks.Result {
				took.Store(true)
				return takes(10*time.Second)(ctx, o)
			}
		})
		job, contents := newJob(3)
		start, first, late := time.Now(), time.Duration(0), 0
		_, sum := runJob(t, pool, job, scheduler.Config{Waiting: func(refusals []scheduler.Refusal) {
			if took.Load() {
				late++
			}
			if first == 0 {
				first = time.Since(start)
			}
			if len(refusals) != 1 || refusals[0].Why != "on battery" {
				t.Errorf("refusals %v", refusals)
			}
			awake.Store(true)
		}}, contents)
		if first < 4*time.Second || first > 6*time.Second || late > 0 || sum.Done != 3 {
			t.Errorf("told after %s, %d times while it ran; %+v", first, late, sum)
		}
	})
}

// TestRunThatWasGivenUpEnds: a worker that was being claimed when the tasks were given
// up, and dies, takes none of them along.
func TestRunThatWasGivenUpEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, start := &fakePool{}, time.Now()
		until := func(after time.Duration) { time.Sleep(time.Until(start.Add(after))) }
		pool.add(1, func(w *fakeWorker) {
			w.run, w.diesAfter = takes(time.Millisecond), 1
			w.refuse = func() error {
				if time.Since(start) > time.Second/2 {
					return fmt.Errorf("on battery: %w", tasks.ErrRefused)
				}
				return nil
			}
		})
		time.AfterFunc(55*time.Second, func() {
			calls := 0
			pool.add(1, func(w *fakeWorker) {
				w.mute = true
				w.refuse = func() error {
					if calls++; calls == 2 { // the claim
						until(63 * time.Second)
					}
					return nil
				}
			})
		})
		job, contents := newJob(2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		sum, err := scheduler.Run(ctx, job, scheduler.Config{Pool: pool, Contents: contents, WorkerWait: time.Minute}, func(*scheduler.Accepted) error {
			until(66 * time.Second)
			return nil
		})
		if err != nil || sum.Done != 1 || sum.Lost != 1 {
			t.Errorf("%+v, %v", sum, err)
		}
	})
}

// TestWorkerHearsThatItsClaimIsOver: one whose tasks would go on without their caller
// ends them, also when it is itself why the claim ends.
func TestWorkerHearsThatItsClaimIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		good := pool.add(1, slow(time.Second))
		bad := pool.add(1, func(w *fakeWorker) { w.returns = 100 })
		job, contents := newJob(30)
		job.Outlive = true
		if _, sum := runJob(t, pool, job, scheduler.Config{}, contents); sum.Done != 30 {
			t.Errorf("%+v", sum)
		}
		if good.told != 1 || bad.claims == 0 || bad.told != bad.claims {
			t.Errorf("good heard %d times, bad %d of %d", good.told, bad.told, bad.claims)
		}
	})
}
