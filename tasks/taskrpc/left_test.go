package taskrpc_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gotong/tasks"
	"gotong/tasks/scheduler"
	"gotong/tasks/taskrpc"
)

// lasting returns a job whose tasks outlive their caller.
func lasting(r *fakeRunner) scheduler.Header {
	h := header(r)
	h.Key, h.Outlive = tasks.Key{7}, true
	return h
}

// runsFor runs tasks for as many seconds as their argument says.
func runsFor(ctx context.Context, t tasks.Task) tasks.Result {
	var seconds int
	fmt.Sscan(t.Spec.Args[0], &seconds)
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(seconds) * time.Second):
	}
	return tasks.Result{State: tasks.StateDone, Stdout: []byte(t.Spec.Args[0]), Elapsed: time.Duration(seconds) * time.Second}
}

// leave claims, orders tasks that take so many seconds, their numbers, and goes
// away without a word.
func leave(t *testing.T, way scheduler.Worker, h scheduler.Header, seconds ...int) {
	t.Helper()
	ctx, gone := context.WithCancel(t.Context())
	s, err := way.Claim(ctx, h)
	if err != nil {
		t.Fatal(err)
	}
	var o scheduler.Orders
	for _, n := range seconds {
		o.Tasks = append(o.Tasks, order(h, n))
	}
	s.Send(o)
	synctest.Wait()
	gone()
	synctest.Wait()
}

// leftOf claims and returns what the worker says that it has.
func leftOf(t *testing.T, way scheduler.Worker, h scheduler.Header) (scheduler.Session, []int) {
	t.Helper()
	s, err := way.Claim(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	return s, s.Left()
}

// ask orders tasks and shows signs of life from then on.
func ask(t *testing.T, s scheduler.Session, list ...scheduler.Order) {
	s.Send(scheduler.Orders{Tasks: list})
	go func() {
		beat := time.NewTicker(scheduler.HeartbeatEvery)
		defer beat.Stop()
		for s.Send(scheduler.Orders{}) == nil {
			select {
			case <-t.Context().Done():
				return
			case <-beat.C:
			}
		}
	}()
}

// TestTasksOutliveTheirCaller: what runs goes on, what has ended is kept, and the
// next caller has both, each signed, without a second start.
func TestTasksOutliveTheirCaller(t *testing.T) {
	eachWay(t, 2, func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker) {
		r.run = runsFor
		h := lasting(r)
		leave(t, way, h, 60, 8, 5)
		time.Sleep(20 * time.Second)
		if n := w.service.Busy(); n != 1 {
			t.Errorf("%d slots are in use", n)
		}
		next := w.client(t, "b")
		offer, err := next.Offer(t.Context(), h)
		if err != nil || offer.Left != 2 || offer.Engine != "fake" {
			t.Errorf("offer %+v %v", offer, err)
		}
		s, left := leftOf(t, next, h)
		if !slices.Equal(left, []int{8, 60}) {
			t.Errorf("left %v", left)
		}
		ask(t, s, order(h, 60), order(h, 8), order(h, 5))
		for index, result := range collect(t, s, 3) {
			if err := result.Proof.Verify(w.peer); err != nil || result.State != tasks.StateDone || string(result.Stdout) != fmt.Sprint(index) {
				t.Errorf("task %d: %+v %v", index, result.Result, err)
			}
		}
		if len(r.started) != 3 {
			t.Errorf("%d starts of 3 tasks", len(r.started))
		}
	})
}

// TestTaskLostWithoutACaller: the next caller hears of it, and may run it again.
func TestTaskLostWithoutACaller(t *testing.T) {
	eachWay(t, 1, func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker) {
		r.run = func(ctx context.Context, task tasks.Task) tasks.Result {
			if runsFor(ctx, task); len(r.started) == 1 {
				return tasks.Result{State: tasks.StateLost, ExitCode: tasks.NoExitCode, Why: "killed"}
			}
			return tasks.Result{State: tasks.StateDone, Elapsed: time.Second}
		}
		h := lasting(r)
		leave(t, way, h, 5)
		time.Sleep(20 * time.Second)
		s, left := leftOf(t, w.client(t, "b"), h)
		if !slices.Equal(left, []int{5}) {
			t.Fatalf("left %v", left)
		}
		ask(t, s, order(h, 5))
		if got := collect(t, s, 1)[5]; got.State != tasks.StateLost || got.Why != "killed" || len(r.started) != 1 {
			t.Errorf("%+v after %d starts", got.Result, len(r.started))
		}
		s.Send(scheduler.Orders{Tasks: []scheduler.Order{order(h, 5)}})
		if got := collect(t, s, 1)[5]; got.State != tasks.StateDone {
			t.Errorf("%+v", got.Result)
		}
	})
}

// TestLeftTasksEnd: when nobody comes for them in time, when whoever comes does not
// want them, when their caller wants nothing more, when it breaks the rules, and
// when the worker stops.
func TestLeftTasksEnd(t *testing.T) {
	type end func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker, h scheduler.Header)
	for name, end := range map[string]end{
		"in time": func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker, h scheduler.Header) {
			leave(t, way, h, 3600)
			time.Sleep(grace - time.Second)
			if w.service.Busy() != 1 {
				t.Error("it ended too early")
			}
			time.Sleep(2 * time.Second)
		},
		"unasked": func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker, h scheduler.Header) {
			leave(t, way, h, 3600)
			if _, left := leftOf(t, w.client(t, "b"), h); len(left) != 1 {
				t.Errorf("left %v", left)
			}
			time.Sleep(scheduler.LeaseTTL + 2*grace)
		},
		"cancelled": func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker, h scheduler.Header) {
			leave(t, way, h, 3600)
			s, _ := leftOf(t, w.client(t, "b"), h)
			s.Send(scheduler.Orders{Cancel: []int{3600}})
		},
		"other spec": func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker, h scheduler.Header) {
			leave(t, way, h, 3600)
			s, _ := leftOf(t, w.client(t, "b"), h)
			s.Send(scheduler.Orders{Tasks: []scheduler.Order{h.Order(3600, scheduler.Part{Args: []string{"1"}})}})
			if got := collect(t, s, 1)[3600]; string(got.Stdout) != "1" {
				t.Errorf("printed %q", got.Stdout)
			}
		},
		"done": func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker, h scheduler.Header) {
			s, _ := leftOf(t, way, h)
			s.Send(scheduler.Orders{Tasks: []scheduler.Order{order(h, 3600)}})
			synctest.Wait()
			s.Done()
		},
		"rules": func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker, h scheduler.Header) {
			s, _ := leftOf(t, way, h)
			twice := scheduler.Orders{Tasks: []scheduler.Order{order(h, 3600)}}
			if s.Send(twice); s.Send(twice) != nil { // without a network the caller ends it
				s.Done()
			}
		},
		"stop": func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker, h scheduler.Header) {
			leave(t, way, h, 3600)
			w.service.Drain(t.Context(), "going to sleep")
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, 1, func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker) {
				r.run = runsFor
				end(t, r, w, way, lasting(r))
				synctest.Wait()
				if r.running != 0 || w.service.Busy() != 0 {
					t.Errorf("%d tasks run", r.running)
				}
			})
		})
	}
}

// TestLeftTasksAreForTheirJobOnly: neither the job's id nor a grant of somebody
// else for it shows what was left, nor does a job that takes no such tasks.
func TestLeftTasksAreForTheirJobOnly(t *testing.T) {
	eachWay(t, 1, func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker) {
		r.run = runsFor
		h := lasting(r)
		leave(t, way, h, 3600)
		other := h
		other.Key = tasks.Key{8}
		step := h
		step.Step = 4000
		attached := h
		attached.Outlive = false
		for name, claim := range map[string]scheduler.Header{"key": other, "owner": grantedBy(stranger, h), "step": step, "attached": attached} {
			ctx, over := context.WithCancel(t.Context())
			if offer, err := way.Offer(ctx, claim); err != nil || offer.Left != 0 {
				t.Errorf("%s: offered %d, %v", name, offer.Left, err)
			}
			s, err := way.Claim(ctx, claim)
			if err != nil || len(s.Left()) != 0 {
				t.Errorf("%s: %v", name, err)
			}
			over()
			synctest.Wait()
		}
		if _, left := leftOf(t, way, h); !slices.Equal(left, []int{3600}) {
			t.Errorf("left %v", left)
		}
	})
}

// TestResultOnItsWayToACallerThatIsGone: the next has it.
func TestResultOnItsWayToACallerThatIsGone(t *testing.T) {
	eachWay(t, 1, func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker) {
		r.run = runsFor
		h := lasting(r)
		ctx, gone := context.WithCancel(t.Context())
		s, err := way.Claim(ctx, h)
		if err != nil {
			t.Fatal(err)
		}
		s.Send(scheduler.Orders{Tasks: []scheduler.Order{order(h, 5)}})
		collect(t, s, 1)
		gone()
		synctest.Wait()
		s, left := leftOf(t, way, h)
		if !slices.Equal(left, []int{5}) {
			t.Fatalf("left %v", left)
		}
		s.Send(scheduler.Orders{Tasks: []scheduler.Order{order(h, 5)}})
		if got := collect(t, s, 1)[5]; string(got.Stdout) != "5" || len(r.started) != 1 {
			t.Errorf("%q after %d starts", got.Stdout, len(r.started))
		}
	})
}

// crew are workers of one slot, as a driver of this name reaches them.
type crew []*servedWorker

func (c crew) seenBy(t *testing.T, name string) pool {
	p := pool{}
	for _, w := range c {
		p[w.peer] = w.client(t, name)
	}
	return p
}

// TestNextDriverGoesOn: the driver goes in the middle, in good order or silently;
// the next one has what the workers have, though others are idle, and nothing is
// begun twice.
func TestNextDriverGoesOn(t *testing.T) {
	for name, silent := range map[string]bool{"deposed": false, "silent": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const workers, count = 6, 3
				var c crew
				var runners []*fakeRunner
				for range workers {
					r := newRunner(1)
					r.run = runsFor
					runners = append(runners, r)
					c = append(c, newWorker(t, r))
				}
				h := lasting(runners[0])
				for _, r := range runners[1:] {
					r.add([]byte("module"))
				}
				job := scheduler.Job{Header: h, Count: count, Task: func(i int) scheduler.Part {
					return scheduler.Part{Args: []string{fmt.Sprint(100 + i)}}
				}}
				cfg := scheduler.Config{Pool: c.seenBy(t, "a"), Contents: runners[0], AsTheyCome: true, AtOnce: count}
				ctx, depose := context.WithCancelCause(t.Context())
				defer depose(nil)
				if silent { // it says nothing after its orders
					for i, w := range c[:count] {
						s, err := w.client(t, "a").Claim(t.Context(), h)
						if err != nil {
							t.Fatal(err)
						}
						s.Send(scheduler.Orders{Tasks: []scheduler.Order{job.Order(i, job.Task(i))}})
					}
				} else {
					go func() {
						time.Sleep(10 * time.Second)
						depose(fmt.Errorf("another drives"))
					}()
					if sum, err := scheduler.Run(ctx, job, cfg, func(*scheduler.Accepted) error { return nil }); err == nil || sum.Stopped != count {
						t.Fatalf("%+v %v", sum, err)
					}
				}
				cfg.Pool, cfg.Reclaim = c.seenBy(t, "b"), true
				got := map[int]string{}
				if _, err := scheduler.Run(t.Context(), job, cfg, func(a *scheduler.Accepted) error {
					got[a.Task.Index] = string(a.Stdout)
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				starts := 0
				for _, r := range runners {
					starts += len(r.started)
				}
				if !maps.Equal(got, map[int]string{0: "100", 1: "101", 2: "102"}) || starts != count {
					t.Errorf("%v after %d starts", got, starts)
				}
				synctest.Wait()
				for i, w := range c {
					if n := w.service.Busy(); n != 0 {
						t.Errorf("worker %d has %d tasks after the end", i, n)
					}
				}
			})
		})
	}
}

// TestCancelledJobEndsItsTasks: those that would outlive their driver too.
func TestCancelledJobEndsItsTasks(t *testing.T) {
	eachWay(t, 1, func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker) {
		r.run = runsFor
		job := scheduler.Job{Header: lasting(r), Count: 1, Task: func(int) scheduler.Part { return scheduler.Part{Args: []string{"3600"}} }}
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			time.Sleep(time.Minute)
			cancel(tasks.ErrCancelled)
		}()
		if sum, _ := scheduler.Run(ctx, job, scheduler.Config{Pool: pool{w.peer: way}, Contents: r}, func(*scheduler.Accepted) error { return nil }); sum.Stopped != 1 {
			t.Errorf("%+v", sum)
		}
		synctest.Wait()
		if r.running != 0 {
			t.Error("it still runs")
		}
	})
}

// flaky is a worker whose line breaks when it is told to.
type flaky struct {
	scheduler.Worker
	redial func() scheduler.Worker
}

func (f *flaky) Claim(ctx context.Context, h scheduler.Header) (scheduler.Session, error) {
	return f.redial().Claim(ctx, h)
}

// TestTaskOutlivesABrokenLine: the same driver finds it where it was, as often as
// the line breaks, and it counts as one attempt.
func TestTaskOutlivesABrokenLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(1)
		r.run = runsFor
		w := newWorker(t, r)
		job := scheduler.Job{Header: lasting(r), Count: 1, Task: func(int) scheduler.Part { return scheduler.Part{Args: []string{"200"}} }}
		line := &flaky{Worker: w.client(t, "a")}
		line.redial = func() scheduler.Worker {
			conn := w.dial(t, "a")
			time.AfterFunc(50*time.Second, func() { conn.Close() })
			return taskrpc.NewClient(conn, w.peer)
		}
		var got *scheduler.Accepted
		sum, err := scheduler.Run(t.Context(), job, scheduler.Config{Pool: pool{w.peer: line}, Contents: r}, func(a *scheduler.Accepted) error {
			got = a
			return nil
		})
		if err != nil || sum.Done != 1 || got.Attempts != 1 || len(r.started) != 1 {
			t.Errorf("%+v %v: %d starts, %+v", sum, err, len(r.started), got)
		}
	})
}

// braggart says that it has tasks of the job, and has none.
type braggart struct{ scheduler.Worker }

type boast struct{ scheduler.Session }

func (boast) Left() []int { return []int{0, 0, 1, 5, -1, scheduler.MaxTasks} }

func (b braggart) Offer(ctx context.Context, h scheduler.Header) (scheduler.Offer, error) {
	o, err := b.Worker.Offer(ctx, h)
	o.Left = 6
	return o, err
}

func (b braggart) Claim(ctx context.Context, h scheduler.Header) (scheduler.Session, error) {
	s, err := b.Worker.Claim(ctx, h)
	if err != nil {
		return nil, err
	}
	return boast{s}, nil
}

// TestWorkerThatClaimsToHaveTasks: it gets them like others, and the job ends.
func TestWorkerThatClaimsToHaveTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(1)
		w, honest := newWorker(t, r), newWorker(t, r)
		job := scheduler.Job{Header: lasting(r), Count: 20, Task: func(i int) scheduler.Part { return scheduler.Part{Args: []string{fmt.Sprint(i)}} }}
		sum, err := scheduler.Run(t.Context(), job, scheduler.Config{
			Pool:     pool{w.peer: braggart{w.client(t, "a")}, honest.peer: honest.client(t, "a")},
			Contents: r, Reclaim: true,
		}, func(a *scheduler.Accepted) error {
			if string(a.Stdout) != fmt.Sprint(a.Task.Index) {
				return fmt.Errorf("task %d printed %q", a.Task.Index, a.Stdout)
			}
			return nil
		})
		if err != nil || sum.Done != 20 {
			t.Errorf("%+v %v", sum, err)
		}
	})
}
