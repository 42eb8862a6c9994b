package worker

import (
	"testing"

	"gotong/tasks"
)

// BenchmarkNoop runs a program that ends at once, on two slots.
func BenchmarkNoop(b *testing.B) {
	w := startWorker(b, nil)
	batch := newBatch(b, w, "noop")
	const inFlight = 64
	credit := make(chan struct{}, inFlight)
	for range inFlight {
		credit <- struct{}{}
	}
	done := func(r tasks.Result) {
		if r.State != tasks.StateDone {
			b.Errorf("%+v", r)
		}
		credit <- struct{}{}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		<-credit
		if _, err := w.Submit(batch.task(), done); err != nil {
			b.Fatal(err)
		}
	}
	for range inFlight {
		<-credit
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}
