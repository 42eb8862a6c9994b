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
	"gotong/tasks"
	"gotong/tasks/guests"
	"gotong/tasks/scheduler"
	"gotong/tasks/taskrpc"
)

// falsifier is a worker that lies in one of so many results.
type falsifier struct {
	taskrpc.Runner
	every int64
	lie   string
	ran   atomic.Int64
	lied  func()
}

func (f *falsifier) Do(ctx context.Context, work taskrpc.Work) (tasks.Result, error) {
	r, err := f.Runner.Do(ctx, work)
	if err == nil && f.ran.Add(1)%f.every == 0 {
		r.Stdout = append(r.Stdout, f.lie...)
		f.lied()
	}
	return r, err
}

// patient is an honest worker that begins when somebody has lied.
type patient struct {
	taskrpc.Runner
	lied <-chan struct{}
}

func (p patient) Do(ctx context.Context, work taskrpc.Work) (tasks.Result, error) {
	select {
	case <-p.lied:
	case <-ctx.Done():
	}
	return p.Runner.Do(ctx, work)
}

// oneContent has the bytes of a module.
type oneContent []byte

func (c oneContent) OpenContent(tasks.ContentID) (io.ReadCloser, int64, error) {
	return io.NopCloser(bytes.NewReader(c)), int64(len(c)), nil
}

// echoJob prints a text for each task.
func echoJob(count int) (scheduler.Job, oneContent) {
	module := guests.Module(guests.Echo)
	limits := tasks.DefaultLimits()
	limits.MemoryBytes = 16 << 20
	return scheduler.Job{
		Header: scheduler.Header{Job: tasks.NewJobID(), Module: blake3.Sum256(module), Limits: limits},
		Count:  count,
		Task:   func(i int) scheduler.Part { return scheduler.Part{Args: []string{"task", fmt.Sprint(i)}} },
	}, module
}

// TestRealPeersCatchOneThatFalsifies: four peers with guests in sandboxes, one
// of which lies in a tenth of its results, and two on one site that always tell
// the same lie. What was checked is remembered and need not run again.
func TestRealPeersCatchOneThatFalsifies(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many sandboxes")
	}
	lied := make(chan struct{})
	tell := sync.OnceFunc(func() { close(lied) })
	liars := map[int]*falsifier{3: {every: 10, lie: "alone"}, 4: {every: 1, lie: "both"}, 5: {every: 1, lie: "both"}}
	c := gridtest.New(t, gridtest.ClusterConfig{
		Peers: 6,
		Reconfigure: func(i int, c *node.Config) {
			c.Slots = 1
			if i >= 4 {
				c.Site = "den"
			}
		},
		Runner: func(i int, r taskrpc.Runner) taskrpc.Runner {
			if liars[i] == nil {
				return patient{r, lied}
			}
			liars[i].Runner, liars[i].lied = r, tell
			return liars[i]
		},
	})
	job, module := echoJob(150)
	verify := tasks.Verify{Mode: tasks.VerifyQuorum, Need: 2, Of: 3}
	run := func(verify tasks.Verify, fresh bool) (scheduler.Summary, int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		honest, disagreed := 0, 0
		sum, err := c.Peers[0].RunJob(ctx, job, scheduler.Config{
			Contents: module, Verify: verify,
			Caught: func(found scheduler.Caught) error {
				for i, p := range c.Peers {
					if p.ID == found.Vote.Peer && liars[i] == nil {
						return fmt.Errorf("honest %s was caught", p.Name)
					}
				}
				return found.Vote.Proof.Verify(found.Vote.Peer)
			},
		}, fresh, func(a *scheduler.Accepted) error {
			switch want := fmt.Sprintf("task %d\n", a.Task.Index); {
			case a.State == tasks.StateFailed && len(a.Evidence) == 3:
				disagreed++ // by three different answers, two of them lies
			case string(a.Stdout) != want:
				return fmt.Errorf("task %d gave %q, %s", a.Task.Index, a.Stdout, a.Why)
			default:
				honest++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if disagreed > job.Count/int(liars[3].every) { // each takes a lie of the one that lies alone
			t.Errorf("%d tasks ended in disagreement", disagreed)
		}
		return sum, honest
	}
	sum, honest := run(verify, false)
	if sum.Caught == 0 || sum.Checked != honest || sum.Remembered != 0 {
		t.Errorf("%+v, %d right", sum, honest)
	}
	if again, _ := run(verify, false); again.Remembered != honest {
		t.Errorf("%d of %d were remembered", again.Remembered, honest)
	}
	if stronger, _ := run(tasks.Verify{Mode: tasks.VerifyQuorum, Need: 3, Of: 5}, false); stronger.Remembered != 0 {
		t.Errorf("%d results of two sites serve a quorum of three", stronger.Remembered)
	}
	if fresh, _ := run(tasks.Verify{Mode: tasks.VerifyAdaptive}, true); fresh.Remembered != 0 || fresh.Checked == 0 {
		t.Errorf("%+v", fresh)
	}
	_, err := c.Peers[0].RunJob(t.Context(), job, scheduler.Config{
		Contents: module, Verify: tasks.Verify{Mode: tasks.VerifyQuorum, Need: 6, Of: 6},
	}, true, func(*scheduler.Accepted) error { return nil })
	if !errors.Is(err, scheduler.ErrTooFewSites) {
		t.Errorf("a quorum of six on five sites: %v", err)
	}
}
