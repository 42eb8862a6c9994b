package scheduler_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gotong/storage"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// storedJob is newJob with its input stored on the grid.
func storedJob(count int) (scheduler.Job, fakeContents) {
	job, contents := newJob(count)
	job.Key = tasks.Key{1}
	job.Inputs[0].Size = 100 << 20
	job.Stored = map[tasks.ContentID]tasks.Stored{job.Inputs[0].Content: {Size: 100 << 20}}
	return job, contents
}

func TestStoredContentsAreNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		w := pool.add(2, nil)
		job, contents := storedJob(20)
		delete(contents, job.Inputs[0].Content) // nobody here has it
		runJob(t, pool, job, scheduler.Config{}, contents)
		if w.puts != 1 || w.fetched == 0 {
			t.Errorf("%d contents sent, %d fetched", w.puts, w.fetched)
		}
	})
}

// TestFetchingIsNotStalling: a worker that needs long for a content keeps its
// claim as long as it says that something comes, and no longer than for hours.
func TestFetchingIsNotStalling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		w := pool.add(2, func(w *fakeWorker) { w.fetchTime = time.Hour })
		job, contents := storedJob(10)
		job.Limits.Wall = time.Second
		runJob(t, pool, job, scheduler.Config{}, contents)
		if w.claims != 1 {
			t.Errorf("%d claims", w.claims)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		w := pool.add(1, func(w *fakeWorker) { w.fetchTime = 100 * time.Hour })
		job, contents := storedJob(1)
		job.Limits.Wall = time.Second
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Hour)
		defer cancel()
		if _, _, err := receiveAll(ctx, pool, job, scheduler.Config{}, contents); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if w.claims < 2 {
			t.Error("the claim of a worker that fetches for ever stays open")
		}
	})
}

// TestWhoCannotFetchIsSent: where the content can be read here, a worker that
// could not fetch it is sent it.
func TestWhoCannotFetchIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		w := pool.add(2, func(w *fakeWorker) { w.cannotFetch = true })
		job, contents := storedJob(10)
		job.Inputs[0].Size, job.Stored[job.Inputs[0].Content] = 8, tasks.Stored{Size: 8}
		results, _ := runJob(t, pool, job, scheduler.Config{}, contents)
		if w.puts != 2 || w.claims != 2 {
			t.Errorf("%d contents sent in %d claims", w.puts, w.claims)
		}
		for _, r := range results {
			if r.State != tasks.StateDone {
				t.Errorf("task %d: %s, %s", r.Task.Index, r.State, r.Why)
			}
		}
	})
}

// TestContentThatNobodyHas ends the job, with the reason.
func TestContentThatNobodyHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &fakePool{}
		for range 3 {
			pool.add(2, func(w *fakeWorker) { w.cannotFetch = true })
		}
		job, contents := storedJob(5)
		delete(contents, job.Inputs[0].Content)
		results, sum := runJob(t, pool, job, scheduler.Config{}, contents)
		for _, r := range results {
			if r.State != tasks.StateLost || r.Why == "" {
				t.Errorf("task %d: %s, %q", r.Task.Index, r.State, r.Why)
			}
		}
		if sum.Elapsed > time.Hour {
			t.Errorf("given up after %s", sum.Elapsed)
		}
	})
}

// TestWorkersThatHaveTheContentComeFirst, even when others have more free slots.
// While the one is being claimed another may be looked for, and be faster.
func TestWorkersThatHaveTheContentComeFirst(t *testing.T) {
	first := 0
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			pool := &fakePool{}
			job, contents := storedJob(1)
			for range 4 {
				pool.add(8, nil)
			}
			has := pool.add(1, func(w *fakeWorker) { w.contents[job.Inputs[0].Content] = true })
			results, _ := runJob(t, pool, job, scheduler.Config{}, contents)
			if results[0].Peer == has.peer {
				first++
			}
		})
	}
	if first < 12 {
		t.Errorf("the one that has the content ran %d of 20 tasks", first)
	}
}

// TestStoredOutputsThatNobodyHas: who names places where an output is not, and
// nothing else, is not believed, however often; the tasks run elsewhere.
func TestStoredOutputsThatNobodyHas(t *testing.T) {
	for _, verify := range []tasks.Verify{{}, {Mode: tasks.VerifyQuorum, Need: 2, Of: 3}} {
		synctest.Test(t, func(t *testing.T) {
			pool := &fakePool{}
			at := func(segment byte) func(*fakeWorker) {
				return func(w *fakeWorker) {
					w.run = func(ctx context.Context, _ scheduler.Order) tasks.Result {
						sleep(ctx, time.Second) // so that everybody gets some
						out := tasks.Output{Name: "big", Size: 9, Content: tasks.ContentID{5}, Stored: &tasks.Stored{Size: 9, Segments: []storage.SegmentID{{segment}}}}
						return tasks.Result{State: tasks.StateDone, Outputs: []tasks.Output{out}}
					}
				}
			}
			liar := pool.add(2, at(1))
			pool.add(1, at(2))
			pool.add(1, at(2))
			var asked atomic.Int64 // several sessions ask
			held := func(_ context.Context, s tasks.Stored) error {
				asked.Add(1)
				if s.Segments[0] != (storage.SegmentID{2}) {
					return storage.ErrTooFewShards
				}
				return nil
			}
			job, contents := newJob(20)
			job.Outputs, job.StoreOutputs, job.Key = true, true, tasks.Key{1}
			results, _ := runJob(t, pool, job, scheduler.Config{Dir: t.TempDir(), Held: held, Verify: verify}, contents)
			for _, r := range results {
				if r.State != tasks.StateDone || r.Peer == liar.peer || r.Outputs[0].Stored.Segments[0] != (storage.SegmentID{2}) {
					t.Errorf("%s: task %d of %s: %s %s", verify, r.Task.Index, r.Peer.Short(), r.State, r.Why)
				}
			}
			if asked.Load() == 0 || liar.started == 0 {
				t.Errorf("%s: asked %d times; the liar ran %d", verify, asked.Load(), liar.started)
			}
		})
	}
}

// TestStoredOutputs: they are not read from the worker, and only taken when they
// were asked for.
func TestStoredOutputs(t *testing.T) {
	for _, asked := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			pool := &fakePool{}
			w := pool.add(1, nil)
			w.run = func(context.Context, scheduler.Order) tasks.Result {
				out := tasks.Output{Name: "big", Size: 9, Content: tasks.ContentID{5}, Stored: &tasks.Stored{Size: 9}}
				return tasks.Result{State: tasks.StateDone, Outputs: []tasks.Output{out}}
			}
			job, contents := newJob(1)
			job.Outputs, job.StoreOutputs, job.Key = true, asked, tasks.Key{1}
			results, _ := runJob(t, pool, job, scheduler.Config{Dir: t.TempDir()}, contents)
			if done := results[0].State == tasks.StateDone; done != asked || w.opened != 0 {
				t.Errorf("asked for: %v: %s, %d outputs read", asked, results[0].State, w.opened)
			}
		})
	}
}

// TestLargeStdout: it is read from the worker whether or not outputs are wanted, and
// other bytes than it names are not taken; where it is stored, and that was asked for,
// it is not read.
func TestLargeStdout(t *testing.T) {
	text := strings.Repeat("so many words ", 200_000)
	for name, c := range map[string]struct {
		ask, stored bool
		limit       int64
		garble      bool
		state       tasks.State
		opened      int
	}{
		"read":             {limit: 4 << 20, state: tasks.StateDone, opened: 1},
		"other bytes":      {limit: 4 << 20, garble: true, state: tasks.StateLost, opened: scheduler.MaxAttempts},
		"above the limit":  {limit: 1 << 20, state: tasks.StateLost},
		"stored":           {limit: 4 << 20, ask: true, stored: true, state: tasks.StateDone},
		"stored, unwanted": {limit: 4 << 20, stored: true, state: tasks.StateLost},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool := &fakePool{}
				w := pool.add(1, func(w *fakeWorker) { w.garble = c.garble })
				w.run = func(context.Context, scheduler.Order) tasks.Result {
					out := w.output("", text)
					if c.stored {
						out.Stored = &tasks.Stored{Size: out.Size, Segments: make([]storage.SegmentID, 1)}
					}
					return tasks.Result{State: tasks.StateDone, LargeStdout: &out}
				}
				job, contents := newJob(1)
				job.StoreStdout, job.Key, job.Limits.StdoutBytes = c.ask, tasks.Key{1}, c.limit
				var read string
				_, err := scheduler.Run(t.Context(), job, scheduler.Config{Pool: pool, Contents: contents, Dir: t.TempDir()}, func(a *scheduler.Accepted) error {
					if a.State != c.state {
						t.Errorf("%s: %s", a.State, a.Why)
					}
					if a.State != tasks.StateDone || c.stored {
						return nil
					}
					r, err := a.OpenOutput(*a.LargeStdout)
					if err != nil {
						return err
					}
					defer r.Close()
					got, err := io.ReadAll(r)
					read = string(got)
					return err
				})
				if err != nil || w.opened != c.opened {
					t.Errorf("read %d times, %v", w.opened, err)
				}
				if want := c.state == tasks.StateDone && !c.stored; want != (read == text) {
					t.Errorf("%d bytes were read", len(read))
				}
			})
		})
	}
}
