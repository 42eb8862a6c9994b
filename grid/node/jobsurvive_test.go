package node_test

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
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
type idler struct {
	slots int
	takes time.Duration
	peer  int     // place in the cluster
	begun *starts // nil: nobody counts
}

// starts counts by task and peer how often a task was begun.
type starts struct {
	mu    sync.Mutex
	tasks map[int]map[int]int
}

func (s *starts) add(task, peer int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tasks[task] == nil {
		s.tasks[task] = map[int]int{}
	}
	s.tasks[task][peer]++
}

// again counts the tasks that were begun more than once, though on none of these
// peers, which took their tasks with them.
func (s *starts) again(gone ...int) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, on := range s.tasks {
		total, excused := 0, false
		for peer, times := range on {
			total += times
			excused = excused || slices.Contains(gone, peer)
		}
		if total > 1 && !excused {
			n++
		}
	}
	return n
}

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

func (r idler) Do(ctx context.Context, work taskrpc.Work) (tasks.Result, error) {
	if r.begun != nil {
		r.begun.add(work.Task.ID.Index, r.peer)
	}
	select {
	case <-ctx.Done():
		return tasks.Result{State: tasks.StateCancelled, ExitCode: tasks.NoExitCode}, nil
	case <-time.After(r.takes):
		return tasks.Result{State: tasks.StateDone, Stdout: fmt.Append(nil, work.Task.ID.Index), Elapsed: r.takes, Engine: "idle"}, nil
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
// drives goes in the middle; what other workers run then is not begun again. After the end
// one keeper after the other goes; others take their places. The owner comes back and has every result, books who worked,
// and in the end nobody has anything of the job any more.
func TestKeptAsLongAsItsResults(t *testing.T) {
	const count, idleFor = 60, 5 * time.Second
	begun := &starts{tasks: map[int]map[int]int{}}
	cfg := gridtest.ClusterConfig{
		Peers: 8,
		Reconfigure: func(_ int, c *node.Config) {
			c.Slots, c.Tasks.KeeperGrace = 2, time.Minute
		},
		Runner: func(i int, _ taskrpc.Runner) taskrpc.Runner { return idler{2, idleFor, i, begun} },
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
		gone := []int{0}
		owner.Stop()
		for i, p := range c.Peers {
			if p.ID == driver {
				p.Stop()
				gone = append(gone, i)
			}
		}
		time.Sleep(2 * time.Minute)
		if n := begun.again(gone...); n != 0 {
			t.Errorf("%d tasks of workers that stayed were begun again", n)
		}
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

// TestDriverIsCutOff: the keeper that drives a job is cut off from all others while
// every slot has a task, another drives, the first comes back: nothing is begun a
// second time, neither where the new one came for it nor where the old one left it.
func TestDriverIsCutOff(t *testing.T) {
	const peers, slots = 5, 2
	begun := &starts{tasks: map[int]map[int]int{}}
	cfg := gridtest.ClusterConfig{
		Peers:       peers,
		Reconfigure: func(_ int, c *node.Config) { c.Slots = slots },
		Runner:      func(i int, _ taskrpc.Runner) taskrpc.Runner { return idler{slots, 5 * time.Minute, i, begun} },
	}
	gridtest.Run(t, cfg, func(t *testing.T, c *gridtest.Cluster) {
		owner := c.Peers[0]
		id, err := owner.SubmitJob(t.Context(), numbered(t, peers*slots))
		if err != nil {
			t.Fatal(err)
		}
		c.Wait("all slots have a task", func() bool {
			begun.mu.Lock()
			defer begun.mu.Unlock()
			return len(begun.tasks) == peers*slots
		})
		state := func() (state jobs.JobState, epoch uint64, driver grid.PeerID) {
			found, _, err := owner.FetchJob(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			found.View(func(s *jobs.State) {
				state = s.State()
				epoch, driver = s.Epoch()
			})
			return state, epoch, driver
		}
		_, _, driver := state()
		var others []string
		for _, p := range c.Peers {
			if p.ID != driver {
				others = append(others, p.Name)
			}
		}
		c.Fabric.Partition(others)
		time.Sleep(time.Minute)
		if _, epoch, now := state(); epoch != 2 || now == driver {
			t.Errorf("%s drives in epoch %d", now.Short(), epoch)
		}
		c.Fabric.Heal()
		time.Sleep(5 * time.Minute)
		if s, _, _ := state(); s != jobs.JobDone {
			t.Errorf("the job is %s", s)
		}
		if n := begun.again(); n != 0 {
			t.Errorf("%d tasks were begun again", n)
		}
	})
}
