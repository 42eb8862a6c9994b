package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"gotong/grid/localgrid"
	"gotong/tasks/jobs"
)

// storm kills peers, and stops and continues them, at random; in the end all of
// them run.
func storm(ctx context.Context, t *testing.T, rounds int, peers ...*localgrid.Peer) {
	t.Helper()
	for range rounds {
		p := peers[rand.IntN(len(peers))]
		<-time.After(time.Duration(100+rand.IntN(400)) * time.Millisecond)
		switch rand.IntN(4) {
		case 0: // for a moment
			must(t, syscall.Kill(p.PID(), syscall.SIGSTOP))
			<-time.After(time.Duration(100+rand.IntN(400)) * time.Millisecond)
			must(t, syscall.Kill(p.PID(), syscall.SIGCONT))
		case 1: // until its work was given to others
			must(t, syscall.Kill(p.PID(), syscall.SIGSTOP))
			<-time.After(3 * time.Second)
			must(t, syscall.Kill(p.PID(), syscall.SIGCONT))
		case 2:
			must(t, p.Kill())
			must(t, p.Start(ctx))
		default:
			must(t, p.Kill())
			<-time.After(3 * time.Second)
			must(t, p.Start(ctx))
		}
	}
}

// device makes another device of the owner of p, which may be gone.
func device(ctx context.Context, t *testing.T, g *localgrid.Grid, p, through *localgrid.Peer, name string) *localgrid.Peer {
	t.Helper()
	phrase := filepath.Join(shortTempDir(t), "phrase")
	must(t, os.WriteFile(phrase, []byte(p.Phrase), 0o600))
	d, err := g.Join(ctx, through, name, "--phrase-file", phrase)
	must(t, err)
	return d
}

// TestJobOutlivesItsSubmitter: the submitter's home is deleted, the keeper that
// drives is killed for good, workers are killed, stopped and continued; a device
// that the owner makes afterwards, with nothing but the phrase, has all results,
// and they are right.
func TestJobOutlivesItsSubmitter(t *testing.T) {
	tasks := sizeFrom(t, "SURVIVE_TASKS", 400)
	ctx := testContext(t)
	g := newGridWith(t, []string{"GOTONG_TASKS_KEEPER_LEASE=2s", "GOTONG_TASKS_KEEPER_GRACE=5s"})
	you, friends := grow(ctx, t, g, 6)
	id := submit(ctx, t, you, jobDir(t, fmt.Sprintf("keepers: friends\nsteps:\n- name: say\n  module: echo.wasm\n  args: ['item', '{}']\n  items: {range: {from: 1, to: %d}}\n", tasks), map[string]string{}))
	keepers := map[string]bool{}
	for _, k := range showJob(ctx, t, you, id).Keepers {
		keepers[k.ID] = true
	}
	must(t, you.Kill())
	must(t, os.RemoveAll(you.Home))
	if len(keepers) != 3 {
		t.Fatalf("keepers %v", keepers)
	}
	var left []*localgrid.Peer
	killed := false
	for _, f := range friends {
		if keepers[f.ID] && !killed {
			must(t, f.Kill())
			killed = true
			continue
		}
		left = append(left, f)
	}
	storm(ctx, t, 6, left...)
	laptop := device(ctx, t, g, you, left[0], "laptop")
	accepted(ctx, t, laptop, id, tasks)
	to := filepath.Join(shortTempDir(t), "results")
	must(t, laptop.JSON(ctx, nil, "job", "results", id, "--to", to))
	for i := 1; i <= tasks; i++ {
		got, err := os.ReadFile(filepath.Join(to, fmt.Sprint(i), "stdout"))
		if want := fmt.Sprintf("item %d\n", i); err != nil || string(got) != want {
			t.Fatalf("item %d: %q %v", i, got, err)
		}
	}
}

// TestSubmitterStormed: the submitter drives its job as long as it is up, is
// killed and started again and again with all workers, and every task is
// accepted once.
func TestSubmitterStormed(t *testing.T) {
	tasks := sizeFrom(t, "SURVIVE_TASKS", 400)
	ctx := testContext(t)
	g := newGridWith(t, []string{"GOTONG_TASKS_KEEPER_LEASE=2s"})
	you, friends := grow(ctx, t, g, 6)
	id := submit(ctx, t, you, jobDir(t, fmt.Sprintf("steps:\n- module: spin.wasm\n  args: ['2', '{}']\n  items: {range: {from: 1, to: %d}}\n", tasks), map[string]string{}))
	driver := showJob(ctx, t, you, id).Driver
	for _, f := range friends {
		if f.ID == driver || f.Name == driver {
			must(t, f.Kill())
			<-time.After(4 * time.Second) // another takes over
			must(t, f.Start(ctx))
		}
	}
	storm(ctx, t, 6, append(friends, you)...)
	accepted(ctx, t, you, id, tasks)
}

// drivenNow waits until a job has some results and not half of them, and returns
// the friend that drives it; nil when it is too far already.
func drivenNow(ctx context.Context, t *testing.T, you *localgrid.Peer, id string, friends []*localgrid.Peer) (driver *localgrid.Peer) {
	t.Helper()
	eventually(ctx, t, time.Minute, "a friend drives the job", func() (bool, error) {
		j := showJob(ctx, t, you, id)
		if 2*j.Done > j.Tasks {
			return true, nil
		}
		for _, f := range friends {
			if j.Done > 0 && (f.ID == j.Driver || f.Name == j.Driver) {
				driver = f
			}
		}
		return driver != nil, nil
	})
	return driver
}

// TestDriverKilledInTheMiddle: the keeper that drives is killed for good while
// the job runs, workers are killed, stopped and continued, the submitter is
// killed and comes back; another keeper goes on, and by the journals on the disks
// every task was accepted exactly once.
func TestDriverKilledInTheMiddle(t *testing.T) {
	tasks := sizeFrom(t, "SURVIVE_TASKS", 400)
	ctx := testContext(t)
	g := newGridWith(t, []string{"GOTONG_TASKS_KEEPER_LEASE=2s", "GOTONG_TASKS_KEEPER_GRACE=5s"})
	you, friends := grow(ctx, t, g, 6)
	var id string
	var driver *localgrid.Peer
	for steps := max(2, 4000/tasks); driver == nil; steps *= 4 { // until it is not over before the kill
		id = submit(ctx, t, you, jobDir(t, fmt.Sprintf("keepers: friends\nsteps:\n- module: spin.wasm\n  args: ['%d', '{}']\n  items: {range: {from: 1, to: %d}}\n", steps, tasks), map[string]string{}))
		driver = drivenNow(ctx, t, you, id, friends)
	}
	must(t, driver.Kill())
	var left []*localgrid.Peer
	for _, f := range friends {
		if f != driver {
			left = append(left, f)
		}
	}
	storm(ctx, t, 3, append(left, you)...)
	accepted(ctx, t, you, id, tasks)
	if j := showJob(ctx, t, you, id); j.Epoch < 2 || j.Driver == driver.ID {
		t.Errorf("epoch %d of %s", j.Epoch, j.Driver)
	}
	copies := 0
	for _, f := range left {
		must(t, f.Kill())
		copies += journalled(t, f, id, tasks)
	}
	if copies == 0 {
		t.Error("no journal of the job on any disk")
	}
}

// journalled checks the journal that a dead peer has of a job, and reports
// whether it has the end of it.
func journalled(t *testing.T, p *localgrid.Peer, id string, tasks int) int {
	t.Helper()
	store, err := jobs.Open(filepath.Join(p.Home, "peer", "jobs"), nil)
	must(t, err)
	defer store.Close()
	for _, job := range store.List() {
		if job.ID().String() != id {
			continue
		}
		over, results, first := false, 0, 0
		job.View(func(s *jobs.State) {
			over = s.State() == jobs.JobDone
			for i := range tasks {
				if _, ok := s.Accepted(i); ok {
					results++
				}
			}
		})
		must(t, job.Read(0, func(raw []byte, _ int64) error {
			r, err := jobs.ParseRecord(raw)
			if err == nil {
				first += len(r.Results)
			}
			return err
		}))
		if !over { // it went away before the end
			return 0
		}
		if results != tasks {
			t.Errorf("%s: %d tasks accepted in the journal, want %d", p.Name, results, tasks)
		}
		for i := range tasks {
			r, ok, err := job.Result(i)
			if err != nil || !ok || r.Verify(job.ID()) != nil {
				t.Errorf("%s: task %d: %v %v", p.Name, i, ok, err)
			}
		}
		t.Logf("%s: %d tasks, %d results in the journal", p.Name, tasks, first)
		return 1
	}
	return 0
}
