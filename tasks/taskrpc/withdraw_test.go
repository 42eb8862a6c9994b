package taskrpc_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"gotong/tasks"
	"gotong/tasks/scheduler"
	"gotong/tasks/taskrpc"
)

// TestWithdraw: tasks that wait come back with the reason, one that runs goes on
// and is reported, the lease holds, and new tasks are refused until there are slots.
func TestWithdraw(t *testing.T) {
	eachWay(t, 1, func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker) {
		r.run = waits(30 * time.Second)
		h := header(r)
		s, err := way.Claim(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		over, beaten := make(chan struct{}), make(chan struct{})
		defer func() { close(over); <-beaten }()
		go func() {
			defer close(beaten)
			for {
				select {
				case <-over:
					return
				case <-time.After(scheduler.HeartbeatEvery):
					s.Send(scheduler.Orders{})
				}
			}
		}()
		s.Send(scheduler.Orders{Tasks: []scheduler.Order{order(h, 0), order(h, 1), order(h, 2)}})
		synctest.Wait()
		w.service.Withdraw("its user is there")
		var back []scheduler.Returned
		var done []scheduler.SignedResult
		closing := ""
		for len(done) == 0 {
			report, err := s.Recv()
			if err != nil {
				t.Fatal(err)
			}
			back, done = append(back, report.Returned...), append(done, report.Results...)
			if report.Closing != "" {
				closing = report.Closing
			}
		}
		if len(back) != 2 || back[0].Why != "its user is there" || closing != "its user is there" {
			t.Errorf("%+v came back, closing %q", back, closing)
		}
		if done[0].Task.Index != 0 || done[0].State != tasks.StateDone {
			t.Errorf("%+v", done[0])
		}
		if _, err := way.Claim(t.Context(), h); err != nil { // there are slots again
			t.Error(err)
		}
	})
}

// withdrawingRunner gives its first task up.
type withdrawingRunner struct {
	*fakeRunner
	given bool
}

func (r *withdrawingRunner) Do(ctx context.Context, w taskrpc.Work) (tasks.Result, error) {
	if !r.given {
		r.given = true
		return tasks.Result{}, fmt.Errorf("%w: on battery", tasks.ErrWithdrawn)
	}
	return r.fakeRunner.Do(ctx, w)
}

// TestWithdrawnTaskComesBack: a task that the donor's rules ended is not a result.
func TestWithdrawnTaskComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &withdrawingRunner{fakeRunner: newRunner(1)}
		w := newWorker(t, r)
		h := header(r.fakeRunner)
		s, err := w.client(t, "a").Claim(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		s.Send(scheduler.Orders{Tasks: []scheduler.Order{order(h, 0)}})
		report, err := s.Recv()
		if err != nil || len(report.Results) != 0 || len(report.Returned) != 1 || report.Returned[0].Why != "the donor needs the machine: on battery" {
			t.Errorf("%+v, %v", report, err)
		}
	})
}
