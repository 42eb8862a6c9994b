package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gotong/grid/blake3"
	"gotong/grid/gridtest"
	"gotong/grid/node"
	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
	"gotong/tasks/contents"
	"gotong/tasks/jobs"
	"gotong/tasks/scheduler"
	"gotong/tasks/taskrpc"
)

// talker is an idler whose tasks print more than rides in a result. It stores that
// for a job that asks for it, else it has it fetched.
type talker struct {
	idler
	peer func() *gridtest.ClusterPeer
	lies *atomic.Int64 // that were told
	lie  bool          // it tells them; else it is slower than who does

	mu    sync.Mutex
	texts map[tasks.ContentID][]byte
}

// longText is what a task prints.
func longText(task int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "a line of task %03d\n", task), tasks.InlineStdoutBytes/18)
}

func (w *talker) Do(ctx context.Context, work taskrpc.Work) (tasks.Result, error) {
	r, err := w.idler.Do(ctx, work)
	if err != nil || r.State != tasks.StateDone {
		return r, err
	}
	for !w.lie && w.lies.Load() == 0 && ctx.Err() == nil {
		time.Sleep(time.Second)
	}
	text := longText(work.Task.ID.Index)
	if w.lie {
		w.lies.Add(1)
		text[len(text)-2] = '!'
	}
	out := &tasks.Output{Content: blake3.Sum256(text), Size: int64(len(text))}
	r.Stdout, r.LargeStdout = nil, out
	if !work.Job.StoreStdout {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.texts[out.Content] = text
		return r, nil
	}
	job := contents.Job{ID: work.Job.Job, Key: work.Job.Key, Grant: work.Job.Grant, Expires: work.Job.Expires}
	stored, err := w.peer().JobContents().Put(ctx, job, out.Content, out.Size, bytes.NewReader(text))
	out.Stored = &stored
	return r, err
}

func (w *talker) OpenContent(id tasks.ContentID) (io.ReadCloser, int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text, ok := w.texts[id]
	if !ok {
		return nil, 0, tasks.ErrNoContent
	}
	return io.NopCloser(bytes.NewReader(text)), int64(len(text)), nil
}

// TestLargeStdoutIsCompared: whole peers, one of which alters what its tasks print
// beyond what rides in a result. It is caught, and the right one arrives whole, in
// an attached run and from a job.
func TestLargeStdoutIsCompared(t *testing.T) {
	const count, liar = 4, 3
	var lies atomic.Int64
	var c *gridtest.Cluster
	cfg := gridtest.ClusterConfig{
		Peers:       6,
		Reconfigure: func(_ int, c *node.Config) { c.Slots = 1 },
		Runner: func(i int, _ taskrpc.Runner) taskrpc.Runner {
			return &talker{
				idler: idler{slots: 1, takes: 5 * time.Second}, lies: &lies, lie: i == liar,
				peer: func() *gridtest.ClusterPeer { return c.Peers[i] }, texts: map[tasks.ContentID][]byte{},
			}
		},
	}
	gridtest.Run(t, cfg, func(t *testing.T, cluster *gridtest.Cluster) {
		c = cluster
		for _, verify := range []string{"quorum=2/3", "adaptive"} {
			for name, run := range map[string]func(*testing.T, *gridtest.Cluster, string, int) (caught bool){"run": attachedTexts, "job": jobTexts} {
				lies.Store(0)
				if caught := run(t, c, verify, count); !caught || lies.Load() == 0 {
					t.Errorf("%s of %s: after %d lies caught: %v", name, verify, lies.Load(), caught)
				}
			}
		}
	})
}

// attachedTexts runs tasks that print longText on the grid.
func attachedTexts(t *testing.T, c *gridtest.Cluster, verify string, count int) (caught bool) {
	v, err := tasks.ParseVerify(verify)
	if err != nil {
		t.Fatal(err)
	}
	job := scheduler.Job{
		Header: scheduler.Header{Job: tasks.NewJobID(), Module: tasks.ContentID{1}, Limits: tasks.DefaultLimits()},
		Count:  count, Task: func(i int) scheduler.Part { return scheduler.Part{Args: []string{fmt.Sprint(i)}} },
	}
	cfg := scheduler.Config{Contents: oneContent{}, Verify: v, Caught: func(scheduler.Caught) error {
		caught = true
		return nil
	}}
	whole := make([]bool, count)
	_, err = c.Peers[0].RunJob(t.Context(), job, cfg, true, func(a *scheduler.Accepted) error {
		if a.LargeStdout == nil || a.State != tasks.StateDone || !a.Checked {
			return fmt.Errorf("task %d: %s %s", a.Task.Index, a.State, a.Why)
		}
		from, err := a.OpenOutput(*a.LargeStdout)
		if err != nil {
			return err
		}
		defer from.Close()
		got, err := io.ReadAll(from)
		whole[a.Task.Index] = bytes.Equal(got, longText(a.Task.Index))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, right := range whole {
		if !right {
			t.Errorf("task %d of the run printed something else", i)
		}
	}
	return caught
}

// jobTexts is attachedTexts for a detached job.
func jobTexts(t *testing.T, c *gridtest.Cluster, verify string, count int) (caught bool) {
	owner := c.Peers[0]
	plan := numbered(t, count)
	plan.Steps[0].Verify, plan.Retention, plan.NoCache = verify, time.Hour, true
	id, err := owner.SubmitJob(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(30 * time.Second)
	c.Wait("the job is done", func() (done bool) {
		job, _, err := owner.FetchJob(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		job.View(func(s *jobs.State) {
			done = s.State().Over()
			for _, trust := range s.Trust() {
				caught = caught || trust == jobs.TrustCaught
			}
		})
		return done
	})
	got := make([]bytes.Buffer, count)
	err = owner.JobResults(t.Context(), id, func(e *controlv1.JobEvent) error {
		if task := e.GetTask(); task != nil && task.StdoutBytes == 0 {
			return errors.New(task.Why + task.Invalid)
		}
		if piece := e.GetStdout(); piece != nil {
			got[piece.Index].Write(piece.Data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if !bytes.Equal(got[i].Bytes(), longText(i)) {
			t.Errorf("task %d of the job printed something else, %d bytes", i, got[i].Len())
		}
	}
	return caught
}
