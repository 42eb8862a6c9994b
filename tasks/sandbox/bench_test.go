package sandbox

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"gotong/tasks"
)

// BenchmarkNoop runs a program that ends at once, Window at a time in each of
// two children: the overhead of a task in a warm sandbox.
func BenchmarkNoop(b *testing.B) {
	benchmarkChildren(b, 2, "noop", nil)
}

// BenchmarkEcho runs a program that prints its argument.
func BenchmarkEcho(b *testing.B) {
	benchmarkChildren(b, 2, "probe", []string{"echo", "hello"})
}

func benchmarkChildren(b *testing.B, children int, module string, args []string) {
	list := make([]*Child, children)
	for i := range list {
		list[i] = start(b, module, nil)
	}
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i, c := range list {
		n := b.N / children
		if i == 0 {
			n += b.N % children
		}
		wg.Go(func() { pump(b, c, n, args) })
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

// pump keeps the window of c full until n requests were answered.
func pump(b *testing.B, c *Child, n int, args []string) {
	credit := make(chan struct{}, Window)
	for range Window {
		credit <- struct{}{}
	}
	done := func(o Outcome) {
		if o.State != tasks.StateDone {
			b.Errorf("%+v", o)
		}
		credit <- struct{}{}
	}
	for range n {
		<-credit
		if _, err := c.Submit(Request{Args: args}, done); err != nil {
			b.Error(err)
			return
		}
	}
	for range Window {
		<-credit
	}
}

// BenchmarkGuest runs the program in this process: what a task costs without
// pipes and scheduling.
func BenchmarkGuest(b *testing.B) {
	dir := b.TempDir()
	for _, name := range []string{inputDir, outputDir, codeDir} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			b.Fatal(err)
		}
	}
	store, err := openStore(dir, testLimits())
	if err != nil {
		b.Fatal(err)
	}
	g, err := compile(guestModule(b, "noop"), testLimits(), store, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if r := g.run(taskMessage{}); r.State != tasks.StateDone {
			b.Fatal(r)
		}
	}
}

// BenchmarkStart starts and ends a child of its own for each program: what the
// first task in a new sandbox waits for.
func BenchmarkStart(b *testing.B) {
	l := openLauncher(b)
	module := guestModule(b, "noop")
	for b.Loop() {
		c, err := l.Start(context.Background(), Config{Dir: b.TempDir(), Module: module, Limits: testLimits()})
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
