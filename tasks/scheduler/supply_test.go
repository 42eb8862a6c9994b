package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// ownJob returns a job whose tasks each have an input of their own and share
// one standard input among ten.
func ownJob(count int) (scheduler.Job, fakeContents) {
	job, contents := newJob(count)
	parts := make([]scheduler.Part, count)
	for i := range parts {
		text := fmt.Sprint("input of ", i)
		parts[i] = scheduler.Part{
			Inputs:    []tasks.Input{{Name: "own", Content: contents.add(text), Size: int64(len(text))}},
			Stdin:     contents.add(fmt.Sprint("stdin ", i/10)),
			StdinSize: int64(len(fmt.Sprint("stdin ", i/10))),
		}
	}
	job.Task = func(index int) scheduler.Part { return parts[index] }
	return job, contents
}

// needsContents makes a worker lose tasks of which it lacks a content.
func needsContents(w *fakeWorker) {
	w.run = func(_ context.Context, o scheduler.Order) tasks.Result {
		time.Sleep(10 * time.Millisecond)
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, id := range o.Spec.Contents() {
			if !w.contents[id] {
				return tasks.Result{State: tasks.StateFailed, ExitCode: tasks.NoExitCode, Why: "lacks " + id.Short()}
			}
		}
		return tasks.Result{State: tasks.StateDone}
	}
}

func TestContentsOfTasksReachTheirWorkerFirstAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		a, b := pool.add(2, needsContents), pool.add(2, needsContents)
		job, contents := ownJob(100)
		_, sum := runJob(t, pool, job, scheduler.Config{}, contents)
		if sum.Done != 100 || sum.Retried != 0 {
			t.Errorf("summary %+v", sum)
		}
		// Module, common input, 100 inputs once; the ten standard inputs on both.
		if puts := a.puts + b.puts; puts > 2*2+100+2*10+sum.Duplicated {
			t.Errorf("%d contents were sent", puts)
		}
	})
}

func TestTasksWhoseContentsCannotBeReadFailAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		pool.add(2, needsContents)
		job, contents := ownJob(20)
		delete(contents, job.Task(7).Inputs[0].Content)
		results, sum := runJob(t, pool, job, scheduler.Config{}, contents)
		if sum.Done != 19 || sum.Failed != 1 || results[7].State != tasks.StateFailed || !strings.Contains(results[7].Why, "content") {
			t.Errorf("summary %+v; %s: %s", sum, results[7].State, results[7].Why)
		}
	})
}

func TestAPartThatCannotBeMadeFailsItsTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		pool.add(2, nil)
		job, contents := newJob(10)
		task := job.Task
		job.Task = func(index int) scheduler.Part {
			p := task(index)
			if index%2 == 1 {
				p.Err = errors.New("no such item")
			}
			return p
		}
		results, sum := runJob(t, pool, job, scheduler.Config{}, contents)
		if sum.Done != 5 || sum.Failed != 5 || results[3].Why != "no such item" {
			t.Errorf("summary %+v; %s", sum, results[3].Why)
		}
	})
}

// TestWorkersThatLoseContents are sent them again when they give the task back.
func TestWorkersThatLoseContents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		pool.add(1, func(w *fakeWorker) { needsContents(w); w.returns = 3 })
		job, contents := ownJob(20)
		_, sum := runJob(t, pool, job, scheduler.Config{}, contents)
		if sum.Done != 20 {
			t.Errorf("summary %+v", sum)
		}
	})
}

// slowContents hands its bytes over slowly, and counts how many it gives at once.
type slowContents struct {
	fakeContents
	mu         sync.Mutex
	open, most int
}

func (c *slowContents) OpenContent(id tasks.ContentID) (io.ReadCloser, int64, error) {
	r, size, err := c.fakeContents.OpenContent(id)
	if err != nil {
		return nil, 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open++
	c.most = max(c.most, c.open)
	return &slowReader{r, c}, size, nil
}

type slowReader struct {
	io.ReadCloser
	from *slowContents
}

func (r *slowReader) Read(p []byte) (int, error) {
	time.Sleep(20 * time.Second)
	return r.ReadCloser.Read(p)
}

func (r *slowReader) Close() error {
	r.from.mu.Lock()
	defer r.from.mu.Unlock()
	r.from.open--
	return r.ReadCloser.Close()
}

// TestSlowContents: the lease lives on while contents take longer than it, the
// worker is not taken for stalled, and several are sent at once.
func TestSlowContents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		w := pool.add(8, needsContents)
		job, contents := ownJob(16)
		job.Limits.Wall = time.Second
		slow := &slowContents{fakeContents: contents}
		sum, err := scheduler.Run(t.Context(), job, scheduler.Config{Pool: pool, Contents: slow}, func(*scheduler.Accepted) error { return nil })
		if err != nil || sum.Done != 16 || sum.Retried != 0 || w.claims != 1 {
			t.Errorf("%+v, %v, %d claims", sum, err, w.claims)
		}
		if slow.most < 2 || slow.most > 8 {
			t.Errorf("%d contents at once", slow.most)
		}
	})
}
