package jobs

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// TestRetriesGoOnAfterATakeover: a task that failed under one driver has as many
// runs left under the next.
func TestRetriesGoOnAfterATakeover(t *testing.T) { synctest.Test(t, retriesGoOn) }

func retriesGoOn(t *testing.T) {
	const count, retries = 2, 2
	p := planOf(t, count)
	p.Steps[0].Retries = retries
	j := runnable(t, p)
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	var mu sync.Mutex
	runs, second := map[int]int{}, 0
	over := make(chan struct{}) // the first driver is gone
	pool := fakePool{newWorker(2, nil), newWorker(3, nil)}
	for _, w := range pool {
		w.run = func(g guest) tasks.Result {
			mu.Lock()
			runs[g.index]++
			n := runs[g.index]
			if n == 2 {
				if second++; second == count {
					cut()
				}
			}
			mu.Unlock()
			if n == 2 { // the driver goes while all run for the second time
				<-over
			}
			return tasks.Result{State: tasks.StateFailed}
		}
	}
	if err := driveJob(ctx, t, j, 1, pool); !errors.Is(err, context.Canceled) {
		t.Fatalf("cut off: %v", err)
	}
	close(over)
	j.View(func(s *State) {
		for i := range count {
			if n := s.Tries(0)[i]; n != 1 {
				t.Errorf("task %d: %d failures in the journal", i, n)
			}
		}
	})
	before := map[int]int{}
	mu.Lock()
	for i, n := range runs {
		before[i] = n
	}
	mu.Unlock()
	if err := driveJob(t.Context(), t, j, 2, pool); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for i := range count {
		if n := runs[i] - before[i]; n != retries {
			t.Errorf("task %d ran %d times under the second driver, want %d", i, n, retries)
		}
	}
	if state, counts, _ := stateOf(j); state != JobFailed || counts.Failed != count {
		t.Errorf("%s %+v", state, counts)
	}
}

// TestLossesGoOnAfterATakeover: a task that kills its workers does not get more of
// them by a change of its driver.
func TestLossesGoOnAfterATakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const cutAt = 2 // deaths
		j := runnable(t, planOf(t, 3))
		ctx, cut := context.WithCancel(t.Context())
		defer cut()
		over := make(chan struct{}) // the first driver is gone
		var deaths atomic.Int64
		pool := fakePool{newWorker(2, echo), newWorker(3, echo), newWorker(4, echo)}
		for _, w := range pool {
			w.slots = 1
			w.dies = func(g guest) bool {
				if g.index != 1 {
					return false
				}
				if deaths.Load() == cutAt && ctx.Err() == nil {
					cut()
					<-over
					return false
				}
				deaths.Add(1)
				return true
			}
		}
		if err := driveJob(ctx, t, j, 1, pool); !errors.Is(err, context.Canceled) {
			t.Fatalf("cut off: %v", err)
		}
		close(over)
		j.View(func(s *State) {
			if lost := s.Lost(0); lost[1] != cutAt || len(lost) != 1 {
				t.Errorf("lost by the journal: %v", lost)
			}
		})
		if err := driveJob(t.Context(), t, j, 2, pool); err != nil {
			t.Fatal(err)
		}
		if n := deaths.Load(); n != scheduler.MaxAttempts {
			t.Errorf("%d workers died with the task", n)
		}
		if state, counts, _ := stateOf(j); state != JobFailed || counts.Done != 2 {
			t.Errorf("%s %+v", state, counts)
		}
		r, ok, err := j.Result(1)
		if err != nil || !ok || r.State != tasks.StateLost || r.Attempts != scheduler.MaxAttempts {
			t.Errorf("%+v %v %v", r, ok, err)
		}
	})
}

// TestATakeoverIsNoLoss: drivers that go while a task runs have not lost it.
func TestATakeoverIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 4
		j := runnable(t, planOf(t, count))
		for epoch := range uint64(scheduler.MaxAttempts + 1) {
			ctx, cut := context.WithCancel(t.Context())
			over := make(chan struct{})
			var running atomic.Int64
			hangs := func(g guest) tasks.Result {
				if running.Add(1) == count {
					cut()
				}
				<-over
				return echo(g)
			}
			if err := driveJob(ctx, t, j, epoch+1, fakePool{newWorker(2, hangs), newWorker(3, hangs)}); !errors.Is(err, context.Canceled) {
				t.Fatalf("cut off: %v", err)
			}
			close(over)
			synctest.Wait()
		}
		j.View(func(s *State) {
			if lost := s.Lost(0); len(lost) > 0 {
				t.Errorf("lost by the journal: %v", lost)
			}
		})
		if err := driveJob(t.Context(), t, j, 100, fakePool{newWorker(2, echo)}); err != nil {
			t.Fatal(err)
		}
		if state, counts, _ := stateOf(j); state != JobDone {
			t.Errorf("%s %+v", state, counts)
		}
	})
}

// TestTrustGoesOnAfterATakeover: whoever was trusted under one driver is not
// checked anew under the next, and whoever was caught gets nothing.
func TestTrustGoesOnAfterATakeover(t *testing.T) { synctest.Test(t, trustGoesOn) }

func trustGoesOn(t *testing.T) {
	const count = 400
	p := planOf(t, count)
	p.Steps[0].Verify = "adaptive"
	j := runnable(t, p)
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	liar := newWorker(5, func(guest) tasks.Result { return tasks.Result{Stdout: []byte("a lie")} })
	slow := func(g guest) tasks.Result {
		time.Sleep(20 * time.Millisecond)
		return echo(g)
	}
	honest := []*fakeWorker{newWorker(2, slow), newWorker(3, slow), newWorker(4, slow)}
	pool := fakePool{liar, honest[0], honest[1], honest[2]}
	trustOf := func(w *fakeWorker) (trust int) {
		j.View(func(s *State) { trust = s.Trust()[w.peer()] })
		return trust
	}
	go func() {
		for enough := false; !enough && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			enough = trustOf(liar) == TrustCaught
			for _, w := range honest {
				enough = enough && trustOf(w) >= 10
			}
		}
		cut()
	}()
	if err := driveJob(ctx, t, j, 1, pool); !errors.Is(err, context.Canceled) {
		t.Fatalf("cut off: %v", err)
	}
	_, before, _ := stateOf(j)
	ranBefore := len(liar.ran)
	if err := driveJob(t.Context(), t, j, 2, pool); err != nil {
		t.Fatal(err)
	}
	if n := len(liar.ran) - ranBefore; n != 0 {
		t.Errorf("who was caught got %d tasks of the next driver", n)
	}
	checked, of := 0, 0
	if err := j.Read(0, func(raw []byte, _ int64) error {
		r, err := ParseRecord(raw)
		if err != nil || r.Epoch != 2 {
			return err
		}
		for _, res := range r.Results {
			of++
			if res.Checked {
				checked++
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d results were there, %d of %d were checked after that", before.Done, count, checked, of)
	if checked > of*2/3 {
		t.Errorf("%d of %d results of trusted workers were checked", checked, of)
	}
	for i := range count {
		if got := stdoutOf(t, j, i); got == "a lie" {
			t.Errorf("task %d: %q", i, got)
		}
	}
	if trustOf(liar) != TrustCaught {
		t.Errorf("trust %d in who was caught", trustOf(liar))
	}
}

// TestResultsOfACaughtPeerAreVoidAfterATakeover: the driver that caught a liar goes
// before what it said alone has run again; the next one has it run.
func TestResultsOfACaughtPeerAreVoidAfterATakeover(t *testing.T) { synctest.Test(t, voidAfterTakeover) }

func voidAfterTakeover(t *testing.T) {
	const count = 200
	lie := func(guest) tasks.Result { return tasks.Result{Stdout: []byte("a lie")} }
	for try := 0; ; try++ {
		p := planOf(t, count)
		p.Steps[0].Verify = "adaptive"
		j := runnable(t, p)
		pool := fakePool{newWorker(2, lie), newWorker(3, echo), newWorker(4, echo), newWorker(5, echo)}
		var trust []Trust
		for _, w := range pool {
			trust = append(trust, Trust{w.peer(), 1000}) // checked in one of twenty
		}
		if err := j.Append(&Record{Epoch: 1, Driver: grid.PeerID{1}, Begun: true, Trust: trust}); err != nil {
			t.Fatal(err)
		}
		liar := pool[0].peer()
		cut := errors.New("cut off")
		err := Drive(t.Context(), DriveConfig{
			Job: j, Self: grid.PeerID{1}, Epoch: 1, Contents: fakeContents{}, Dir: t.TempDir(),
			Pool: func(Step) (scheduler.Pool, error) { return pool, nil },
			Append: func(raws [][]byte) error {
				caught := false
				if err := j.AppendEncoded(raws...); err != nil {
					return err
				}
				if j.View(func(s *State) { caught = s.Trust()[liar] == TrustCaught }); caught {
					return cut
				}
				return nil
			},
		})
		lies := 0
		for i := range count {
			if _, have, _ := j.Result(i); have && stdoutOf(t, j, i) == "a lie" {
				lies++
			}
		}
		if (lies == 0 || err == nil) && try < 20 { // it was checked at once, or not at all
			continue
		}
		if !errors.Is(err, cut) || lies == 0 {
			t.Fatalf("%v, %d lies in the journal", err, lies)
		}
		if err := driveJob(t.Context(), t, j, 2, pool[1:]); err != nil {
			t.Fatal(err)
		}
		for i := range count {
			if got := stdoutOf(t, j, i); got == "a lie" {
				t.Errorf("task %d: %q", i, got)
			}
		}
		if state, counts, _ := stateOf(j); state != JobDone || counts.Done != count {
			t.Errorf("%s %+v", state, counts)
		}
		return
	}
}
