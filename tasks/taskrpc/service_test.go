package taskrpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// eachWay runs a test against the runner's worker over gRPC and without it.
func eachWay(t *testing.T, slots int, test func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker)) {
	for _, name := range []string{"remote", "local"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRunner(slots)
				w := newWorker(t, r)
				way := w.service.Local()
				if name == "remote" {
					way = w.client(t, "a")
				}
				test(t, r, w, way)
			})
		})
	}
}

// collect receives until n tasks were reported.
func collect(t *testing.T, s scheduler.Session, n int) map[int]scheduler.SignedResult {
	t.Helper()
	got := map[int]scheduler.SignedResult{}
	for len(got) < n {
		r, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, result := range r.Results {
			got[result.Task.Index] = result
		}
		for _, back := range r.Returned {
			t.Fatalf("task %d came back: %s", back.Index, back.Why)
		}
	}
	return got
}

func TestResultsAreSignedAndComplete(t *testing.T) {
	eachWay(t, 2, func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker) {
		full := tasks.Result{
			State: tasks.StateLimit, Limit: tasks.LimitStdout, ExitCode: tasks.NoExitCode, Why: "too much text",
			Stdout: []byte("out\xff"), Stderr: []byte("err"), Elapsed: 5 * time.Second, Engine: "engine 1",
			Outputs: []tasks.Output{{Name: "a/b", Size: 3, Content: blake3.Sum256([]byte("abc")), Data: []byte("abc")}},
		}
		r.run = func(context.Context, tasks.Task) tasks.Result { return full }
		h := header(r)
		s, err := way.Claim(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		s.Send(scheduler.Orders{Tasks: []scheduler.Order{order(h, 7)}})
		got := collect(t, s, 1)[7]
		want := full
		want.Task, want.Peer = tasks.TaskID{Job: h.Job, Index: 7}, w.peer
		if fmt.Sprintf("%+v", got.Result) != fmt.Sprintf("%+v", want) {
			t.Errorf("got  %+v\nwant %+v", got.Result, want)
		}
		if err := got.Proof.Verify(w.peer); err != nil {
			t.Error(err)
		}
		if err := got.Proof.Verify(grid.PeerID{9}); err == nil {
			t.Error("proof holds for another peer")
		}
		got.Proof.Raw = append(bytes.Clone(got.Proof.Raw), 0)
		if err := got.Proof.Verify(w.peer); err == nil {
			t.Error("proof holds for other bytes")
		}
	})
}

func TestWholeJob(t *testing.T) {
	eachWay(t, 3, func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker) {
		big := strings.Repeat("large output ", 100_000)
		r.run = func(_ context.Context, task tasks.Task) tasks.Result {
			result := tasks.Result{State: tasks.StateDone, Stdout: []byte(task.Spec.Args[0]), Elapsed: time.Millisecond}
			if task.ID.Index%10 == 0 {
				result.Outputs = []tasks.Output{{Name: "f", Size: int64(len(big)), Content: r.add([]byte(big))}}
			}
			return result
		}
		module := bytes.Repeat([]byte("module"), 200_000)
		contents := newRunner(1)
		job := scheduler.Job{
			Header: granted(scheduler.Header{Job: tasks.JobID{1}, Module: contents.add(module), Limits: tasks.DefaultLimits()}),
			Count:  500, Outputs: true,
			Task: func(i int) scheduler.Part { return scheduler.Part{Args: []string{fmt.Sprint(i)}} },
		}
		cfg := scheduler.Config{Pool: pool{w.peer: way}, Contents: contents, Dir: t.TempDir()}
		sum, err := scheduler.Run(t.Context(), job, cfg, func(a *scheduler.Accepted) error {
			if string(a.Stdout) != fmt.Sprint(a.Task.Index) || a.Peer != w.peer {
				return fmt.Errorf("task %d printed %q", a.Task.Index, a.Stdout)
			}
			for _, out := range a.Outputs {
				f, err := a.OpenOutput(out)
				if err != nil {
					return err
				}
				text, err := io.ReadAll(f)
				if string(text) != big || err != nil {
					return fmt.Errorf("output of %d bytes, %v", len(text), err)
				}
				f.Close()
			}
			return a.Proof.Verify(w.peer)
		})
		if err != nil || sum.Done != 500 || sum.Retried != 0 {
			t.Errorf("%+v, %v", sum, err)
		}
		synctest.Wait()
		if r.released != 50 || len(r.started) != 500 {
			t.Errorf("%d outputs released, %d tasks started", r.released, len(r.started))
		}
	})
}

func TestRefusalsSayWhy(t *testing.T) {
	eachWay(t, 1, func(t *testing.T, r *fakeRunner, _ *servedWorker, way scheduler.Worker) {
		h := header(r)
		unknown := h
		unknown.Module = tasks.ContentID{1}
		if _, err := way.Claim(t.Context(), unknown); !errors.Is(err, tasks.ErrNoContent) {
			t.Errorf("missing module: %v", err)
		} else if missing, ok := errors.AsType[*tasks.MissingContent](err); !ok || len(missing.IDs) != 1 || missing.IDs[0] != unknown.Module {
			t.Errorf("missing module is not named: %v", err)
		}
		r.check = fmt.Errorf("only for friends: %w", tasks.ErrRefused)
		_, offerErr := way.Offer(t.Context(), h)
		_, claimErr := way.Claim(t.Context(), h)
		for _, err := range []error{offerErr, claimErr} {
			if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "only for friends") {
				t.Errorf("rule: %v", err)
			}
		}
		r.slots, r.why = 0, "paused by its owner"
		_, offerErr = way.Offer(t.Context(), h)
		_, claimErr = way.Claim(t.Context(), h)
		for _, err := range []error{offerErr, claimErr} {
			if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "paused") {
				t.Errorf("no slots: %v", err)
			}
		}
	})
}

func TestStrangersGetNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(1)
		w := newWorker(t, r)
		h, stranger := header(r), w.client(t, "")
		_, offer := stranger.Offer(t.Context(), h)
		_, claim := stranger.Claim(t.Context(), h)
		put := stranger.PutContent(t.Context(), h, h.Module, 6, strings.NewReader("module"))
		out, err := stranger.OpenOutput(t.Context(), tasks.TaskID{Job: h.Job}, h.Module)
		if err == nil {
			_, err = out.Read(make([]byte, 1))
		}
		for i, err := range []error{offer, claim, put, err} {
			if !errors.Is(err, grid.ErrNotMember) {
				t.Errorf("call %d: %v", i, err)
			}
		}
	})
}

func TestContentIsVerified(t *testing.T) {
	eachWay(t, 1, func(t *testing.T, r *fakeRunner, _ *servedWorker, way scheduler.Worker) {
		h := header(r)
		if err := way.PutContent(t.Context(), h, h.Module, 6, strings.NewReader("module")); err != nil {
			t.Error(err)
		}
		if err := way.PutContent(t.Context(), h, h.Module, 7, strings.NewReader("another")); !errors.Is(err, tasks.ErrContent) {
			t.Errorf("wrong bytes: %v", err)
		}
		broken := io.MultiReader(strings.NewReader("mod"), errReader{})
		if err := way.PutContent(t.Context(), h, h.Module, 6, broken); !errors.Is(err, errRead) {
			t.Errorf("source that fails: %v", err)
		}
	})
}

var errRead = errors.New("disk error")

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errRead }

func TestOutputsAreOnlyForTheirCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(1)
		w := newWorker(t, r)
		h := header(r)
		secret := r.add([]byte("secret"))
		r.run = func(context.Context, tasks.Task) tasks.Result {
			return tasks.Result{State: tasks.StateDone, Outputs: []tasks.Output{{Name: "f", Size: 6, Content: secret}}}
		}
		s, err := w.client(t, "a").Claim(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		s.Send(scheduler.Orders{Tasks: []scheduler.Order{order(h, 0)}})
		collect(t, s, 1)
		read := func(name string) error {
			out, err := w.client(t, name).OpenOutput(t.Context(), tasks.TaskID{Job: h.Job}, secret)
			if err != nil {
				return err
			}
			defer out.Close()
			text, err := io.ReadAll(out)
			if err == nil && string(text) != "secret" {
				err = errors.New("other text")
			}
			return err
		}
		if err := read("a"); err != nil {
			t.Errorf("its caller: %v", err)
		}
		if err := read("b"); !errors.Is(err, tasks.ErrNoContent) {
			t.Errorf("another caller: %v", err)
		}
		if _, err := w.client(t, "b").Claim(t.Context(), h); !errors.Is(err, tasks.ErrBusy) {
			t.Errorf("another caller's claim of the same job: %v", err)
		}
		s.Send(scheduler.Orders{Release: []int{0}})
		synctest.Wait()
		if err := read("a"); !errors.Is(err, tasks.ErrNoContent) || r.released != 1 {
			t.Errorf("released output: %v", err)
		}
	})
}

func TestCallersHaveTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(1)
		r.run = waits(time.Second)
		w := newWorker(t, r)
		h := header(r)
		for i, name := range []string{"a", "b"} {
			h.Job = tasks.JobID{byte(i + 1)}
			h = granted(h)
			s, err := w.client(t, name).Claim(t.Context(), h)
			if err != nil {
				t.Fatal(err)
			}
			var all scheduler.Orders
			for index := range 50 {
				all.Tasks = append(all.Tasks, order(h, index))
			}
			s.Send(all)
			go func() {
				for {
					if _, err := s.Recv(); err != nil {
						return
					}
					s.Send(scheduler.Orders{}) // alive
				}
			}()
		}
		time.Sleep(20*time.Second + time.Millisecond)
		synctest.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		count := map[tasks.JobID]int{}
		for _, task := range r.started {
			count[task.ID.Job]++
		}
		if a, b := count[tasks.JobID{1}], count[tasks.JobID{2}]; a+b != 21 || a < 9 || b < 9 {
			t.Errorf("in 20 s one slot started %d and %d tasks", a, b)
		}
	})
}

func TestSilentCallerLosesItsClaim(t *testing.T) {
	eachWay(t, 1, func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker) {
		r.run = waits(time.Hour)
		h := header(r)
		s, err := way.Claim(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		s.Send(scheduler.Orders{Tasks: []scheduler.Order{order(h, 0)}})
		time.Sleep(scheduler.LeaseTTL / 2)
		synctest.Wait()
		if r.running != 1 || w.service.Busy() != 1 {
			t.Fatalf("%d tasks run", r.running)
		}
		time.Sleep(scheduler.LeaseTTL)
		synctest.Wait()
		if r.running != 0 || w.service.Busy() != 0 {
			t.Errorf("%d tasks still run", r.running)
		}
		for err == nil {
			_, err = s.Recv()
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("claim ended: %v", err)
		}
	})
}

func TestCancelledTaskIsStoppedAndReported(t *testing.T) {
	eachWay(t, 1, func(t *testing.T, r *fakeRunner, _ *servedWorker, way scheduler.Worker) {
		r.run = waits(time.Second)
		h := header(r)
		s, err := way.Claim(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		s.Send(scheduler.Orders{Tasks: []scheduler.Order{order(h, 0), order(h, 1), order(h, 2)}})
		s.Send(scheduler.Orders{Cancel: []int{0, 1, 9}})
		got := collect(t, s, 3)
		for index, want := range []tasks.State{tasks.StateCancelled, tasks.StateCancelled, tasks.StateDone} {
			if got[index].State != want {
				t.Errorf("task %d: %s", index, got[index].State)
			}
		}
	})
}

func TestDrainGivesTasksBack(t *testing.T) {
	eachWay(t, 1, func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker) {
		r.run = waits(5 * time.Second)
		h := header(r)
		s, err := way.Claim(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		s.Send(scheduler.Orders{Tasks: []scheduler.Order{order(h, 0), order(h, 1), order(h, 2)}})
		synctest.Wait()
		drained := make(chan struct{})
		go func() { w.service.Drain(t.Context(), "going to sleep"); close(drained) }()
		closing, returned, done := "", 0, 0
		for done+returned < 3 {
			report, err := s.Recv()
			if err != nil {
				t.Fatal(err)
			}
			closing += report.Closing
			returned += len(report.Returned)
			done += len(report.Results)
		}
		if closing != "going to sleep" || returned != 2 || done != 1 {
			t.Errorf("closing %q, %d given back, %d done", closing, returned, done)
		}
		<-drained
		if _, err := way.Offer(t.Context(), h); !errors.Is(err, tasks.ErrStopped) {
			t.Errorf("offer after drain: %v", err)
		}
	})
}

func TestHostileOrdersEndTheClaim(t *testing.T) {
	eachWay(t, 1, func(t *testing.T, r *fakeRunner, _ *servedWorker, way scheduler.Worker) {
		r.run = waits(time.Hour)
		h := header(r)
		s, err := way.Claim(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		s.Send(scheduler.Orders{Tasks: []scheduler.Order{order(h, 0)}})
		sendErr := s.Send(scheduler.Orders{Tasks: []scheduler.Order{order(h, 0)}})
		for sendErr == nil && err == nil {
			_, err = s.Recv()
		}
		if !errors.Is(errors.Join(err, sendErr), tasks.ErrInvalid) {
			t.Errorf("task given twice: %v", errors.Join(err, sendErr))
		}
	})
}

// TestStepsHaveClaimsOfTheirOwn: two steps of one job run on a worker at once; a
// caller that claims again for the same step has lost the claim before.
func TestStepsHaveClaimsOfTheirOwn(t *testing.T) {
	eachWay(t, 2, func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker) {
		first, second := header(r), header(r)
		second.Job, second.Grant, second.Step = first.Job, first.Grant, 10
		a, err := way.Claim(t.Context(), first)
		if err != nil {
			t.Fatal(err)
		}
		b, err := way.Claim(t.Context(), second)
		if err != nil {
			t.Fatal(err)
		}
		a.Send(scheduler.Orders{Tasks: []scheduler.Order{order(first, 3)}})
		b.Send(scheduler.Orders{Tasks: []scheduler.Order{order(second, 13)}})
		collect(t, a, 1)
		collect(t, b, 1)
		if _, err := way.Claim(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := a.Recv(); err != nil {
				break
			}
		}
		b.Send(scheduler.Orders{Tasks: []scheduler.Order{order(second, 14)}})
		collect(t, b, 1)
	})
}
