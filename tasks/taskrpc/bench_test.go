package taskrpc_test

import (
	"context"
	"testing"

	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// BenchmarkNoop measures what a task costs between the submitter and a worker
// that does nothing: scheduling, messages, signatures, delivery in order.
func BenchmarkNoop(b *testing.B) {
	for _, name := range []string{"remote", "local"} {
		b.Run(name, func(b *testing.B) {
			r := newRunner(2)
			r.run = func(_ context.Context, task tasks.Task) tasks.Result {
				return tasks.Result{State: tasks.StateDone, Elapsed: 10_000, Engine: "none"}
			}
			w := newWorker(b, r)
			way := w.service.Local()
			if name == "remote" {
				way = w.client(b, "a")
			}
			r.started = nil
			job := scheduler.Job{
				Header: header(r),
				Count:  b.N,
				Task:   func(int) scheduler.Part { return scheduler.Part{Args: []string{"item"}} },
			}
			b.ReportAllocs()
			b.ResetTimer()
			sum, err := scheduler.Run(b.Context(), job, scheduler.Config{Pool: pool{w.peer: way}, Contents: r},
				func(*scheduler.Accepted) error { return nil })
			if err != nil || sum.Done != b.N {
				b.Fatalf("%+v, %v", sum, err)
			}
			b.ReportMetric(float64(b.N)/sum.Elapsed.Seconds(), "tasks/s")
		})
	}
}
