package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// plan is a random grid: what each worker does, and how the run is configured.
type plan struct {
	workers    []workerPlan
	count      int
	asTheyCome bool
	window     int
	slowEvery  int // every so many results the receiver takes a minute
	seed       uint64
	poison     int // this task loses every worker that runs it; -1: none
}

type workerPlan struct {
	slots     int
	takes     time.Duration
	fault     string
	after     int // tasks until the fault shows
	loses     int // every so many tasks are lost; 0: none
	refuseFor time.Duration
}

func drawPlan(t *rapid.T) plan {
	p := plan{
		count:      rapid.IntRange(1, 120).Draw(t, "tasks"),
		asTheyCome: rapid.Bool().Draw(t, "asTheyCome"),
		window:     rapid.IntRange(1, 50).Draw(t, "window"),
		slowEvery:  rapid.SampledFrom([]int{0, 0, 10}).Draw(t, "slowEvery"),
		seed:       rapid.Uint64().Draw(t, "seed"),
		poison:     rapid.SampledFrom([]int{-1, -1, -1, 0}).Draw(t, "poison"),
	}
	for range rapid.IntRange(1, 5).Draw(t, "workers") {
		p.workers = append(p.workers, workerPlan{
			slots:     rapid.IntRange(1, 3).Draw(t, "slots"),
			takes:     time.Duration(rapid.SampledFrom([]int{0, 1, 30, 2000, 60_000}).Draw(t, "ms")) * time.Millisecond,
			fault:     rapid.SampledFrom([]string{"", "", "dies", "mute", "hangs", "deaf", "repeats", "returns", "stuck", "refuses"}).Draw(t, "fault"),
			after:     rapid.IntRange(0, 30).Draw(t, "after"),
			loses:     rapid.SampledFrom([]int{0, 0, 2, 7}).Draw(t, "loses"),
			refuseFor: time.Duration(rapid.SampledFrom([]int{0, 0, 5, 30}).Draw(t, "refuseFor")) * time.Second,
		})
	}
	return p
}

// execution watches what workers do, across all of them.
type execution struct {
	mu     sync.Mutex
	copies map[int]int // by task, running now
	most   int
}

func (e *execution) enter(index, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.copies[index] += n
	e.most = max(e.most, e.copies[index])
}

func (p plan) build(e *execution) *fakePool {
	pool := &fakePool{}
	start := time.Now()
	for _, w := range p.workers {
		pool.add(w.slots, func(f *fakeWorker) {
			ran := 0
			f.run = func(ctx context.Context, o scheduler.Order) tasks.Result {
				e.enter(o.Index, 1)
				defer e.enter(o.Index, -1)
				f.mu.Lock()
				ran++
				n := ran
				f.mu.Unlock()
				if w.fault == "stuck" && n > w.after {
					return takes(1000*time.Hour)(ctx, o)
				}
				result := takes(w.takes)(ctx, o)
				if (w.loses > 0 && n%w.loses == 0) || o.Index == p.poison {
					result = tasks.Result{State: tasks.StateLost, ExitCode: tasks.NoExitCode, Why: "lost"}
				}
				return result
			}
			f.refuse = func() error {
				if w.fault == "refuses" || time.Since(start) < w.refuseFor {
					return tasks.ErrBusy
				}
				return nil
			}
			switch w.fault {
			case "dies":
				f.diesAfter = w.after + 1
			case "mute":
				f.mute = true
			case "hangs":
				f.hangs = time.Hour
			case "deaf":
				f.deaf = true
			case "repeats":
				f.repeats = true
			case "returns":
				f.returns = w.after
			}
		})
	}
	return pool
}

// check runs the plan in a bubble and returns what broke.
func (p plan) check(t *testing.T) (err error) {
	synctest.Test(t, func(t *testing.T) {
		e := &execution{copies: map[int]int{}}
		pool := p.build(e)
		job, contents := newJob(p.count)
		received := map[int]int{}
		cfg := scheduler.Config{
			Pool: pool, Contents: contents, Window: p.window, AsTheyCome: p.asTheyCome,
			Rand: rand.New(rand.NewPCG(p.seed, 0)),
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1000*time.Hour)
		defer cancel()
		var sum scheduler.Summary
		sum, err = scheduler.Run(ctx, job, cfg, func(a *scheduler.Accepted) error {
			if !p.asTheyCome && a.Task.Index != len(received) {
				return fmt.Errorf("task %d came at position %d", a.Task.Index, len(received))
			}
			if a.State == tasks.StateDone && string(a.Stdout) != fmt.Sprint(a.Task.Index) {
				return fmt.Errorf("task %d printed %q", a.Task.Index, a.Stdout)
			}
			if a.State == tasks.StateLost && a.Why == "" {
				return fmt.Errorf("task %d is lost without a reason", a.Task.Index)
			}
			if a.Attempts > scheduler.MaxAttempts {
				return fmt.Errorf("task %d after %d attempts", a.Task.Index, a.Attempts)
			}
			received[a.Task.Index]++
			if p.slowEvery > 0 && len(received)%p.slowEvery == 0 {
				time.Sleep(time.Minute)
			}
			return nil
		})
		synctest.Wait()
		err = errors.Join(err, p.verify(pool, e, received, sum))
	})
	return err
}

// verify checks what must hold after any run.
func (p plan) verify(pool *fakePool, e *execution, received map[int]int, sum scheduler.Summary) error {
	for index := range p.count {
		if received[index] != 1 {
			return fmt.Errorf("task %d was received %d times", index, received[index])
		}
	}
	if sum.Ended() != p.count || len(received) != p.count {
		return fmt.Errorf("%d received, summary %+v", len(received), sum)
	}
	for _, w := range pool.workers {
		if w.most > w.slots || w.running != 0 {
			return fmt.Errorf("%s ran %d at once on %d slots, %d still run", w.site, w.most, w.slots, w.running)
		}
	}
	if e.most > scheduler.MaxCopies {
		return fmt.Errorf("%d copies of one task at once", e.most)
	}
	if lost := sum.Lost > 0; p.poison >= 0 != lost && p.reliable() {
		return fmt.Errorf("lost %d tasks with a healthy worker: %+v", sum.Lost, sum)
	}
	return nil
}

// reliable reports whether a worker has no fault from the start, and none loses
// tasks while it goes on working: then no task but the poisoned one may be given
// up.
func (p plan) reliable() bool {
	healthy := false
	for _, w := range p.workers {
		healthy = healthy || (w.fault == "" && w.refuseFor == 0)
		if w.loses > 0 {
			return false
		}
	}
	return healthy
}

func TestEveryTaskIsAcceptedExactlyOnceWhateverWorkersDo(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlan(rt)
		if err := p.check(t); err != nil {
			rt.Fatalf("%+v: %v", p, err)
		}
	})
}
