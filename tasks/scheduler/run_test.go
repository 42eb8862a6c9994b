package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// takes returns a run function that takes so long and prints the arguments.
func takes(d time.Duration) func(context.Context, scheduler.Order) tasks.Result {
	return func(ctx context.Context, o scheduler.Order) tasks.Result {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
		return tasks.Result{State: tasks.StateDone, Stdout: []byte(strings.Join(o.Spec.Args, " ")), Elapsed: d}
	}
}

func slow(d time.Duration) func(*fakeWorker) { return func(w *fakeWorker) { w.run = takes(d) } }

func TestResultsComeInOrderFromAllWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		for i := range 4 {
			pool.add(2, slow(time.Duration(i+1)*50*time.Millisecond))
		}
		job, contents := newJob(200)
		start := time.Now()
		results, sum := runJob(t, pool, job, scheduler.Config{}, contents)
		for i, r := range results {
			if r.Task.Index != i || string(r.Stdout) != fmt.Sprint(i) {
				t.Fatalf("result %d: task %d printed %q", i, r.Task.Index, r.Stdout)
			}
		}
		if sum.Done != 200 || sum.Retried != 0 || sum.Peers != 4 {
			t.Errorf("summary %+v", sum)
		}
		// 8 slots, 24 ms of each second per task at the mean rates: 200 tasks
		// need 2.4 s when no slot idles.
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("took %s", took)
		}
		for _, w := range pool.workers {
			if w.claims != 1 || w.puts != 2 || w.most > w.slots {
				t.Errorf("%s: %d claims, %d contents sent, %d tasks at once", w.site, w.claims, w.puts, w.most)
			}
		}
	})
}

func TestAsTheyComeDoesNotWaitForTheSlowest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		pool.add(2, func(w *fakeWorker) {
			w.run = func(ctx context.Context, o scheduler.Order) tasks.Result {
				if o.Index == 0 {
					return takes(time.Second)(ctx, o)
				}
				return takes(time.Millisecond)(ctx, o)
			}
		})
		job, contents := newJob(50)
		results, _ := runJob(t, pool, job, scheduler.Config{AsTheyCome: true}, contents)
		if last := results[49].Task.Index; last != 0 {
			t.Errorf("task %d came last", last)
		}
	})
}

func TestNoTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job, contents := newJob(0)
		runJob(t, &fakePool{}, job, scheduler.Config{}, contents)
	})
}

func TestCancelStopsGuestsAndReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		w := pool.add(3, slow(time.Hour))
		job, contents := newJob(10)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, sum, err := receiveAll(ctx, pool, job, scheduler.Config{}, contents)
		if !errors.Is(err, context.DeadlineExceeded) || sum.Ended() != 0 {
			t.Fatalf("%+v, %v", sum, err)
		}
		synctest.Wait()
		if w.stopped != 3 || w.running != 0 {
			t.Errorf("%d stopped, %d still run", w.stopped, w.running)
		}
	})
}

func TestReceiverErrorEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		pool.add(3, slow(time.Second))
		job, contents := newJob(100)
		full := errors.New("disk full")
		got := 0
		_, err := scheduler.Run(t.Context(), job, scheduler.Config{Pool: pool, Contents: contents},
			func(*scheduler.Accepted) error {
				if got++; got == 5 {
					return full
				}
				return nil
			})
		if !errors.Is(err, full) || got != 5 {
			t.Errorf("%d received, %v", got, err)
		}
	})
}

func TestSlowReceiverHoldsWorkersUp(t *testing.T) {
	for name, cfg := range map[string]scheduler.Config{
		"by number in order":     {Window: 10},
		"by number as they come": {Window: 10, AsTheyCome: true},
		"by bytes in order":      {BufferBytes: 10_000},
		"by bytes as they come":  {BufferBytes: 10_000, AsTheyCome: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool := &fakePool{}
				w := pool.add(4, func(w *fakeWorker) {
					w.run = func(context.Context, scheduler.Order) tasks.Result {
						return tasks.Result{State: tasks.StateDone, Stdout: make([]byte, 1000), Elapsed: time.Second}
					}
				})
				job, contents := newJob(100)
				cfg.Pool, cfg.Contents = pool, contents
				received := 0
				_, err := scheduler.Run(t.Context(), job, cfg, func(*scheduler.Accepted) error {
					time.Sleep(time.Minute)
					synctest.Wait()
					received++
					w.mu.Lock()
					defer w.mu.Unlock()
					if ahead := w.started - received; ahead > 15 {
						return fmt.Errorf("%d tasks ahead of the receiver", ahead)
					}
					return nil
				})
				if err != nil || received != 100 {
					t.Errorf("%d received, %v", received, err)
				}
			})
		})
	}
}

func TestOutputsAreFetchedVerifiedAndReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		writes := func(w *fakeWorker) {
			w.run = func(_ context.Context, o scheduler.Order) tasks.Result {
				time.Sleep(time.Millisecond) // in the bubble, so that neither worker does all tasks alone
				text := fmt.Sprint("output of ", o.Index)
				return tasks.Result{State: tasks.StateDone, Outputs: []tasks.Output{w.output("a/b", text), w.output("c", text)}}
			}
		}
		good := pool.add(2, writes)
		pool.add(2, func(w *fakeWorker) { writes(w); w.garble = true })
		job, contents := newJob(30)
		job.Outputs = true
		dir := t.TempDir()
		cfg := scheduler.Config{Pool: pool, Contents: contents, Dir: dir}
		sum, err := scheduler.Run(t.Context(), job, cfg, func(a *scheduler.Accepted) error {
			for _, out := range a.Outputs {
				r, err := a.OpenOutput(out)
				if err != nil {
					return err
				}
				text, err := io.ReadAll(r)
				if want := fmt.Sprint("output of ", a.Task.Index); string(text) != want || err != nil {
					return fmt.Errorf("%s: %q, %v", out.Name, text, err)
				}
				r.Close()
			}
			return nil
		})
		if err != nil || sum.Done != 30 || sum.Retried == 0 {
			t.Errorf("%+v, %v", sum, err)
		}
		synctest.Wait()
		if good.released != 30 {
			t.Errorf("%d of 30 released", good.released)
		}
	})
}

func TestImpossibleArgumentsFailTheirTaskAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		pool.add(1, nil)
		job, contents := newJob(5)
		job.Task = func(index int) scheduler.Part {
			if index == 2 {
				return scheduler.Part{Args: []string{"a\x00b"}}
			}
			return scheduler.Part{}
		}
		results, sum := runJob(t, pool, job, scheduler.Config{}, contents)
		if sum.Done != 4 || sum.Failed != 1 || results[2].State != tasks.StateFailed {
			t.Errorf("%+v, %s", sum, results[2].Why)
		}
	})
}

func TestConfigFaultsAreReportedTogether(t *testing.T) {
	err := scheduler.Config{Peers: -1, Window: -1}.Validate()
	for _, want := range []string{"pool", "contents", "peers", "window"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not mention %s", err, want)
		}
	}
}
