package scheduler_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// knows returns a Known that has the results of some tasks, and counts calls.
func knows(has func(index int) bool, calls *int) func([32]byte, int) *scheduler.Accepted {
	return func(_ [32]byte, index int) *scheduler.Accepted {
		*calls++
		if !has(index) {
			return nil
		}
		return &scheduler.Accepted{FromCache: true, Result: tasks.Result{State: tasks.StateDone, Stdout: []byte(fmt.Sprint(index))}}
	}
}

func TestWhatIsKnownDoesNotRun(t *testing.T) {
	for _, asTheyCome := range []bool{false, true} {
		for name, has := range map[string]func(int) bool{
			"all":    func(int) bool { return true },
			"none":   func(int) bool { return false },
			"thirds": func(i int) bool { return i%3 == 0 },
			"first":  func(i int) bool { return i < 450 },
			"last":   func(i int) bool { return i >= 50 },
		} {
			t.Run(fmt.Sprint(name, asTheyCome), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					pool := &fakePool{}
					w := pool.add(2, slow(time.Millisecond))
					job, contents := newJob(500)
					calls, want := 0, 0
					for i := range 500 {
						if has(i) {
							want++
						}
					}
					results, sum := runJob(t, pool, job, scheduler.Config{Known: knows(has, &calls), AsTheyCome: asTheyCome, Window: 20}, contents)
					for _, r := range results {
						if string(r.Stdout) != fmt.Sprint(r.Task.Index) {
							t.Errorf("task %d printed %q", r.Task.Index, r.Stdout)
						}
					}
					if sum.Remembered != want || calls != 500 || w.started != 500-want {
						t.Errorf("%d remembered of %d, %d asked, %d run", sum.Remembered, want, calls, w.started)
					}
				})
			})
		}
	}
}

func TestWhatIsKnownIsDeliveredWithoutAnyWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job, contents := newJob(300)
		calls := 0
		cfg := scheduler.Config{Known: knows(func(i int) bool { return i%2 == 0 }, &calls), Window: 10}
		_, sum := runJob(t, &fakePool{}, job, cfg, contents)
		if sum.Done != 150 || sum.Lost != 150 {
			t.Errorf("%+v", sum)
		}
	})
}

// TestLookUpsGoOnWhileAWorkerJoins: what a worker has left is handed to it by the
// goroutine that looks tasks up, however long the claim takes to say what it got.
// The race detector judges.
func TestLookUpsGoOnWhileAWorkerJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		pool.add(2, func(w *fakeWorker) { w.has = []int{1, 3} })
		job, contents := newJob(5)
		cfg := scheduler.Config{
			Logger:  slog.New(slowLog{slog.DiscardHandler}),
			Reclaim: true,
			Known: func([32]byte, int) *scheduler.Accepted {
				time.Sleep(time.Second)
				return nil
			},
		}
		if _, sum := runJob(t, pool, job, cfg, contents); sum.Done != 5 {
			t.Errorf("%+v", sum)
		}
	})
}

// slowLog takes a while for every message.
type slowLog struct{ slog.Handler }

func (slowLog) Enabled(context.Context, slog.Level) bool { return true }

func (slowLog) Handle(context.Context, slog.Record) error {
	time.Sleep(3 * time.Second)
	return nil
}

func (l slowLog) WithAttrs([]slog.Attr) slog.Handler { return l }
