package worker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"gotong/tasks"
)

// waitFor returns when the worker's status is as wanted.
func waitFor(t *testing.T, w *Worker, what string, ok func(Status) bool) Status {
	t.Helper()
	for range 24_000 {
		if st := w.Status(); ok(st) {
			return st
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("%s: %+v", what, w.Status())
	return Status{}
}

// answer is what Do returned.
type answer struct {
	result tasks.Result
	err    error
}

func doLater(t *testing.T, w *Worker, task tasks.Task) chan answer {
	t.Helper()
	out := make(chan answer, 1)
	go func() {
		r, err := w.Do(t.Context(), task)
		out <- answer{r, err}
	}()
	return out
}

func inSandbox(n int) func(Status) bool {
	return func(st Status) bool { return st.Busy == n && st.Counts.SandboxesStarted >= n }
}

// TestHeldTasksGoOn: guests are stopped, tasks are refused, and all goes on.
func TestHeldTasksGoOn(t *testing.T) {
	w := startWorker(t, func(c *Config) { c.CodeBytes = 64 << 20 })
	wantDone(t, do(t, w, newBatch(t, w, "probe").task("exit", "0"))) // it is compiled once, before they run
	b := newBatch(t, w, "probe")
	b.limits.Wall = 3 * time.Second // for both to run at once, however slowly they start
	spins := []chan answer{doLater(t, w, b.task("spin")), doLater(t, w, b.task("spin"))}
	waitFor(t, w, "both run", func(st Status) bool { return st.Busy == 2 && st.Counts.SandboxesStarted == 3 })
	w.Allow(Allowance{Slots: 0, Why: "its user is there", Hold: time.Hour})
	st := w.Status()
	if st.Allowed != 0 || st.Held != 2 || st.HeldSince.IsZero() || st.Counts.Held != 2 {
		t.Fatalf("%+v", st)
	}
	if _, err := w.Do(t.Context(), b.task("exit", "0")); !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "its user is there") {
		t.Errorf("a task while none may run: %v", err)
	}
	select {
	case a := <-spins[0]:
		t.Fatalf("%+v while it was held", a)
	case a := <-spins[1]:
		t.Fatalf("%+v while it was held", a)
	case <-time.After(b.limits.Wall + 500*time.Millisecond):
	}
	w.Allow(Allowance{Slots: 2})
	for _, c := range spins {
		if a := <-c; a.err != nil || a.result.Limit != tasks.LimitWall {
			t.Errorf("%+v, want the time limit", a)
		}
	}
	if st := w.Status(); st.Held != 0 || st.Counts.Resumed != 2 || st.Counts.Withdrawn != 0 {
		t.Errorf("%+v", st)
	}
	wantDone(t, do(t, w, newBatch(t, w, "probe").task("exit", "0")))
}

// TestHeldTasksAreGivenUp after the hold, and those that wait at once.
func TestHeldTasksAreGivenUp(t *testing.T) {
	w := startWorker(t, func(c *Config) { c.Slots = 1 })
	b, other := newBatch(t, w, "probe"), newBatch(t, w, "probe")
	spin := doLater(t, w, b.task("spin"))
	waitFor(t, w, "it runs", inSandbox(1))
	waits := doLater(t, w, other.task("exit", "0"))
	waitFor(t, w, "one waits", func(st Status) bool { return st.Waiting == 1 })
	w.Allow(Allowance{Why: "on battery", Hold: 100 * time.Millisecond})
	if a := <-waits; !errors.Is(a.err, tasks.ErrWithdrawn) || !strings.Contains(a.err.Error(), "on battery") {
		t.Errorf("%+v", a)
	}
	if a := <-spin; !errors.Is(a.err, tasks.ErrWithdrawn) {
		t.Errorf("%+v", a)
	}
	st := waitFor(t, w, "the sandbox ends", func(st Status) bool { return st.Busy == 0 })
	if st.Counts.Withdrawn != 2 || st.Counts.Lost != 0 {
		t.Errorf("%+v", st)
	}
	w.Allow(Allowance{Slots: 1})
	wantDone(t, do(t, w, b.task("exit", "0")))
}

// TestKilledAtOnce is the memory rule.
func TestKilledAtOnce(t *testing.T) {
	w := startWorker(t, nil)
	b := newBatch(t, w, "probe")
	spin := doLater(t, w, b.task("spin"))
	waitFor(t, w, "it runs", inSandbox(1))
	w.Allow(Allowance{Why: "short of memory"})
	if a := <-spin; !errors.Is(a.err, tasks.ErrWithdrawn) {
		t.Errorf("%+v", a)
	}
	waitFor(t, w, "it is gone", func(st Status) bool { return st.Busy == 0 })
}

// TestFewerSlots: one of two guests is held, the other goes on, and tasks behind
// it too; then they change places with nobody lost.
func TestFewerSlots(t *testing.T) {
	w := startWorker(t, nil)
	b := newBatch(t, w, "probe")
	spins := []chan answer{doLater(t, w, b.task("spin"))}
	waitFor(t, w, "one runs", inSandbox(1))
	w.Allow(Allowance{Slots: 1, Why: "half the cores", Hold: time.Hour})
	if st := w.Status(); st.Held != 0 || st.Busy != 1 || st.Allowed != 1 {
		t.Fatalf("%+v, want the idle slot withheld", st)
	}
	w.Allow(Allowance{Slots: 2})
	spins = append(spins, doLater(t, w, b.task("spin")))
	waitFor(t, w, "two run", inSandbox(2))
	w.Allow(Allowance{Slots: 1, Why: "half the cores", Hold: 50 * time.Millisecond})
	if st := w.Status(); st.Held != 1 {
		t.Fatalf("%+v, want one held", st)
	}
	var a answer
	select {
	case a = <-spins[0]:
	case a = <-spins[1]:
	}
	if !errors.Is(a.err, tasks.ErrWithdrawn) {
		t.Errorf("%+v", a)
	}
	if st := w.Status(); st.Busy < 1 || st.Counts.Withdrawn != 1 {
		t.Errorf("%+v, want the other to run", st)
	}
}

// TestAllowanceComesAndGoes while many tasks run: each is done, or came back and
// is handed in again.
func TestAllowanceComesAndGoes(t *testing.T) {
	w := startWorker(t, nil)
	changes := make(chan struct{})
	go func() {
		defer close(changes)
		for i := range 60 {
			time.Sleep(15 * time.Millisecond)
			w.Allow(Allowance{Slots: i % 3, Why: "test", Hold: time.Duration(i%2) * 20 * time.Millisecond})
		}
		w.Allow(Allowance{Slots: 2})
	}()
	const count = 100
	results := make(chan error, count)
	for j := range 4 {
		b := newBatch(t, w, "probe")
		for range count / 4 {
			task := b.task("echo", strings.Repeat("x", j+1))
			go func() {
				for {
					r, err := w.Do(t.Context(), task)
					switch {
					case errors.Is(err, tasks.ErrWithdrawn) || errors.Is(err, tasks.ErrRefused):
						time.Sleep(5 * time.Millisecond)
						continue
					case err == nil && r.State != tasks.StateDone:
						err = errors.New(r.Why)
					}
					results <- err
					return
				}
			}()
		}
	}
	for range count {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	<-changes
	st := waitFor(t, w, "all is quiet", func(st Status) bool { return st.Busy == 0 && st.Waiting == 0 })
	if st.Counts.Done != count || st.Held != 0 {
		t.Errorf("%+v", st)
	}
}
