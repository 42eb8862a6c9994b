package worker

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid/blake3"
	"gotong/tasks"
	"gotong/tasks/sandbox"
)

// fakeGuest is a sandbox without a process.
type fakeGuest struct {
	submit func(done func(sandbox.Outcome)) abandoner
	output func() io.Reader
	ended  chan struct{}
	closed bool
}

func (g *fakeGuest) Submit(_ sandbox.Request, done func(sandbox.Outcome)) (abandoner, error) {
	return g.submit(done), nil
}
func (g *fakeGuest) Hold() bool                       { return true }
func (g *fakeGuest) Resume()                          {}
func (g *fakeGuest) Stop()                            {}
func (g *fakeGuest) Close()                           { g.closed = true }
func (g *fakeGuest) Ended() <-chan struct{}           { return g.ended }
func (g *fakeGuest) Engine() string                   { return "fake" }
func (g *fakeGuest) InputPath(tasks.ContentID) string { return "" }
func (g *fakeGuest) DropOutput(sandbox.File) error    { return nil }

func (g *fakeGuest) OpenOutput(sandbox.File) (io.ReadCloser, error) {
	if g.closed {
		return nil, errors.New("closed")
	}
	return io.NopCloser(g.output()), nil
}

// idleWorker is one that was not started.
func idleWorker(t *testing.T, slots int) *Worker {
	t.Helper()
	w, err := New(Config{Dir: t.TempDir(), Slots: slots})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.close() })
	w.phase, w.refusal = phaseRunning, nil
	return w
}

// TestOutputsAreTakenOverBeforeTheirSandboxIsGone: a slot turns to another job as
// soon as the task has ended, however long it takes to copy what that left.
func TestOutputsAreTakenOverBeforeTheirSandboxIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := idleWorker(t, 1)
		data := bytes.Repeat([]byte("x"), 1000)
		g := &fakeGuest{output: func() io.Reader {
			time.Sleep(time.Second)
			return bytes.NewReader(data)
		}}
		s := w.slots[0]
		s.box = &box{guest: g, dir: t.TempDir(), store: w.store}
		results := make(chan tasks.Result, 1)
		e := &job{done: func(r tasks.Result) { results <- r }}
		s.box.collect(t.Context(), w, e, sandbox.Outcome{State: tasks.StateDone, Files: []sandbox.File{
			sandbox.SpilledFile("a", 1000, 1), sandbox.SpilledFile("b", 1000, 2),
		}})
		s.closeBox()
		r := <-results
		if r.State != tasks.StateDone || len(r.Outputs) != 2 || r.Outputs[1].Content != blake3.Sum256(data) {
			t.Errorf("%+v", r)
		}
		if !g.closed {
			t.Error("the sandbox was not closed")
		}
	})
}

type fakeRun struct{ abandoned bool }

func (r *fakeRun) Abandon() { r.abandoned = true }

// TestCancelReachesTheRunThatIs: a sandbox ends before it comes to a task, which is
// in another one before the first slot knows.
func TestCancelReachesTheRunThatIs(t *testing.T) {
	w := idleWorker(t, 2)
	e := &job{key: key{job: tasks.NewJobID()}, done: func(tasks.Result) {}}
	first, second := w.slots[0], w.slots[1]
	serve := func(s *slot, submit func(func(sandbox.Outcome)) abandoner) {
		if got := w.take(s); got != e {
			t.Fatalf("took %+v", got)
		}
		s.box = &box{key: e.key, guest: &fakeGuest{submit: submit}, store: w.store}
		if err := s.serve(t.Context(), nil, e); err != nil {
			t.Fatal(err)
		}
	}
	ended, runs := &fakeRun{}, &fakeRun{}
	w.queue.push(e)
	serve(first, func(done func(sandbox.Outcome)) abandoner {
		done(sandbox.Outcome{NotRun: true})
		serve(second, func(func(sandbox.Outcome)) abandoner { return runs })
		return ended
	})
	if w.cancel(e); !runs.abandoned {
		t.Error("it goes on")
	}
}
