package main

import (
	"context"
	"errors"
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

// storm kills peers, and stops and continues them, at random, two at a time; in
// the end all of them run.
func storm(ctx context.Context, t *testing.T, rounds int, peers ...*localgrid.Peer) {
	t.Helper()
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	other := make(chan error, 1)
	go func() { other <- batter(ctx, rounds/2, peers[:len(peers)/2]) }()
	err := batter(ctx, rounds-rounds/2, peers[len(peers)/2:])
	must(t, errors.Join(err, <-other))
}

func batter(ctx context.Context, rounds int, peers []*localgrid.Peer) error {
	for range rounds {
		p := peers[rand.IntN(len(peers))]
		<-time.After(time.Duration(100+rand.IntN(400)) * time.Millisecond)
		away := time.Duration(100+rand.IntN(400)) * time.Millisecond // for a moment
		if rand.IntN(2) == 0 {
			away = 3 * time.Second // until its work was given to others
		}
		var gone, back error
		if rand.IntN(2) == 0 {
			gone = syscall.Kill(p.PID(), syscall.SIGSTOP)
			<-time.After(away)
			back = syscall.Kill(p.PID(), syscall.SIGCONT)
		} else {
			gone = p.Kill()
			<-time.After(away)
			back = p.Start(ctx)
		}
		if err := errors.Join(gone, back); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return nil
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
// drives is killed for good in the middle of the job, workers are killed, stopped
// and continued. Another keeper goes on, and a device that the owner made meanwhile,
// with nothing but the phrase, has all results, and they are right. By the journals
// on the disks every task was accepted exactly once.
func TestJobOutlivesItsSubmitter(t *testing.T) {
	each := sizeFrom(t, "SURVIVE_TASKS", 400) / 2
	ctx := testContext(t)
	g := newGridWith(t, []string{"GOTONG_TASKS_KEEPER_LEASE=2s", "GOTONG_TASKS_KEEPER_GRACE=5s"})
	you, friends := grow(ctx, t, g, 6)
	var id string
	var laptop, driver *localgrid.Peer
	for steps := max(2, 4000/each); driver == nil; steps *= 4 { // until it is not over before the kill
		by := you
		if laptop != nil {
			by = laptop
		}
		id = submit(ctx, t, by, jobDir(t, fmt.Sprintf(`
keepers: friends
steps:
- name: work
  module: spin.wasm
  args: ['%d', '{}']
  items: {range: {from: 1, to: %d}}
- name: say
  module: echo.wasm
  args: ['item', '{}']
  items: {like: work}
  needs: [work]
`, steps, each), map[string]string{}))
		if laptop == nil {
			must(t, you.Kill())
			must(t, os.RemoveAll(you.Home))
			laptop = device(ctx, t, g, you, friends[0], "laptop")
		}
		driver = drivenNow(ctx, t, laptop, id, friends)
	}
	must(t, driver.Kill())
	var left []*localgrid.Peer
	for _, f := range friends {
		if f != driver {
			left = append(left, f)
		}
	}
	storm(ctx, t, 6, left...)
	accepted(ctx, t, laptop, id, 2*each)
	if j := showJob(ctx, t, laptop, id); j.Epoch < 2 || j.Driver == driver.ID {
		t.Errorf("epoch %d of %s", j.Epoch, j.Driver)
	}
	to := filepath.Join(shortTempDir(t), "results")
	must(t, laptop.JSON(ctx, nil, "job", "results", id, "--to", to))
	for i := 1; i <= each; i++ {
		got, err := os.ReadFile(filepath.Join(to, "say", fmt.Sprint(i), "stdout"))
		if want := fmt.Sprintf("item %d\n", i); err != nil || string(got) != want {
			t.Fatalf("item %d: %q %v", i, got, err)
		}
	}
	allJournalled(t, left, id, 2*each)
}

// TestSubmitterStormed: the submitter drives its job as long as it is up, is
// killed and started again and again with all workers, and every task is
// accepted once.
func TestSubmitterStormed(t *testing.T) {
	tasks := sizeFrom(t, "SURVIVE_TASKS", 2000)
	ctx := testContext(t)
	g := newGridWith(t, []string{"GOTONG_TASKS_KEEPER_LEASE=2s"})
	you, friends := grow(ctx, t, g, 6)
	id := submit(ctx, t, you, jobDir(t, fmt.Sprintf("steps:\n- module: spin.wasm\n  args: ['1', '{}']\n  items: {range: {from: 1, to: %d}}\n", tasks), map[string]string{}))
	all := append([]*localgrid.Peer{you}, friends...)
	storm(ctx, t, 8, all...)
	accepted(ctx, t, you, id, tasks)
	allJournalled(t, all, id, tasks)
}

// drivenNow waits until a job has some results and not half of them, and returns
// the friend that drives it; nil when it is too far already.
func drivenNow(ctx context.Context, t *testing.T, you *localgrid.Peer, id string, friends []*localgrid.Peer) (driver *localgrid.Peer) {
	t.Helper()
	eventually(ctx, t, time.Minute, "a friend drives the job", func() (bool, error) {
		var j jobDoc
		if you.JSON(ctx, &j, "job", "show", id) != nil { // a new device knows nobody yet
			return false, nil
		}
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

// allJournalled kills peers and looks at what they have on their disks of a job.
func allJournalled(t *testing.T, peers []*localgrid.Peer, id string, tasks int) {
	t.Helper()
	copies := 0
	for _, p := range peers {
		must(t, p.Kill())
		copies += journalled(t, p, id, tasks)
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
