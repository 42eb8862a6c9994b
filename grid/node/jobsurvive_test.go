package node_test

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/gridtest"
	"gotong/grid/node"
	"gotong/tasks"
	"gotong/tasks/jobs"
	"gotong/tasks/keeper"
	"gotong/tasks/taskrpc"
)

// idler takes tasks without a sandbox: each takes a while and prints its number.
type idler struct{ slots int }

const idleFor = 5 * time.Second

func (r idler) Slots() (int, string)                      { return r.slots, "" }
func (idler) Check(taskrpc.Asker, tasks.Spec) error       { return nil }
func (idler) Missing([]tasks.ContentID) []tasks.ContentID { return nil }
func (idler) Release(tasks.TaskID)                        {}

func (idler) Engine(tasks.Runtime) string { return "idle" }

func (idler) PutContent(context.Context, taskrpc.Asker, tasks.ContentID, int64, io.Reader) error {
	return tasks.ErrStoreFull
}

func (idler) OpenContent(tasks.ContentID) (io.ReadCloser, int64, error) {
	return nil, 0, tasks.ErrNoContent
}

func (idler) Do(ctx context.Context, work taskrpc.Work) (tasks.Result, error) {
	select {
	case <-ctx.Done():
		return tasks.Result{State: tasks.StateCancelled, ExitCode: tasks.NoExitCode}, nil
	case <-time.After(idleFor):
		return tasks.Result{State: tasks.StateDone, Stdout: fmt.Append(nil, work.Task.ID.Index), Elapsed: idleFor, Engine: "idle"}, nil
	}
}

// numbered returns a plan of one step with so many tasks.
func numbered(t *testing.T, count int) jobs.Plan {
	t.Helper()
	items, err := jobs.WriteItems(filepath.Join(t.TempDir(), "items"), func(add func(jobs.Item) error) error {
		for i := range count {
			if err := add(jobs.Item{Words: []string{fmt.Sprint(i)}}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return jobs.Plan{
		Keepers: jobs.KeepersFriends, Retention: 15 * time.Minute,
		Steps: []jobs.Step{{
			Name: "idle", Runtime: tasks.RuntimeWASI, Module: tasks.ContentID{1}, Args: []string{"{}"}, Items: items,
			Limits: tasks.DefaultLimits(), OnFailure: jobs.FailureFinish,
		}},
	}
}

// keeping returns the peers that run and keep a job.
func keeping(c *gridtest.Cluster, id tasks.JobID) (out []*gridtest.ClusterPeer) {
	for _, p := range c.Peers {
		if !p.Running() {
			continue
		}
		if kept, _ := p.JobsHere(); slices.Contains(kept, id) {
			out = append(out, p)
		}
	}
	return out
}

// TestKeptAsLongAsItsResults: whole peers. The submitter goes, the keeper that
// drives goes in the middle, after the end one keeper after the other goes; others
// take their places. The owner comes back and has every result, books who worked,
// and in the end nobody has anything of the job any more.
func TestKeptAsLongAsItsResults(t *testing.T) {
	const count = 60
	cfg := gridtest.ClusterConfig{
		Peers: 8,
		Reconfigure: func(_ int, c *node.Config) {
			c.Slots, c.Tasks.KeeperGrace = 2, time.Minute
		},
		Runner: func(int, taskrpc.Runner) taskrpc.Runner { return idler{2} },
	}
	gridtest.Run(t, cfg, func(t *testing.T, c *gridtest.Cluster) {
		owner := c.Peers[0]
		id, err := owner.SubmitJob(t.Context(), numbered(t, count))
		if err != nil {
			t.Fatal(err)
		}
		job := func(p *gridtest.ClusterPeer) (state jobs.JobState, done int, epoch uint64, driver grid.PeerID) {
			found, _, err := p.FetchJob(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			found.View(func(s *jobs.State) {
				state, done = s.State(), s.Counts().Done
				epoch, driver = s.Epoch()
			})
			return state, done, epoch, driver
		}
		var driver grid.PeerID
		c.Wait("some results", func() bool {
			_, done, _, by := job(owner)
			driver = by
			return done > 0
		})
		owner.Stop()
		for _, p := range c.Peers {
			if p.ID == driver {
				p.Stop()
			}
		}
		time.Sleep(2 * time.Minute)
		for range 3 {
			keeping(c, id)[0].Stop()
			time.Sleep(3 * time.Minute)
			if n := len(keeping(c, id)); n != keeper.Copies {
				t.Fatalf("%d peers keep the job", n)
			}
		}
		owner.Start()
		c.Wait("the keepers are there", func() bool { return owner.Alive() == 4 })
		state, done, epoch, _ := job(owner)
		if state != jobs.JobDone || done != count || epoch < 2 {
			t.Errorf("%s, %d done, epoch %d", state, done, epoch)
		}
		found, _, err := owner.FetchJob(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for i := range count {
			r, ok, err := found.Result(i)
			if err == nil {
				err = r.Verify(id)
			}
			if err != nil || !ok {
				t.Errorf("task %d: %v %v", i, ok, err)
			}
		}
		// Some tasks ran on the submitter itself; nothing is booked twice.
		own := 0
		found.View(func(s *jobs.State) { own = s.PeerCounts()[owner.ID].Done })
		if got, want := owner.WorkFrom(), float64(count-own)*idleFor.Seconds(); got != want {
			t.Errorf("%v core-seconds are booked, want %v", got, want)
		}
		time.Sleep(15 * time.Minute)
		for _, p := range c.Peers {
			if !p.Running() {
				continue
			}
			if kept, copied := p.JobsHere(); len(kept)+len(copied) > 0 {
				t.Errorf("%s still keeps %d jobs and has %d copies", p.Name, len(kept), len(copied))
			}
		}
	})
}
