package scheduler_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// nearJob is a job whose tasks have one stored content each, of which that with
// this number.
func nearJob(count int, content func(i int) byte, near func(i int) []grid.PeerID) (scheduler.Job, fakeContents, *int) {
	job, contents := newJob(count)
	job.Key, job.Near = tasks.Key{1}, true
	calls := 0
	job.Task = func(i int) scheduler.Part {
		calls++
		id := tasks.ContentID{200, content(i)}
		return scheduler.Part{
			Inputs: []tasks.Input{{Name: "own", Content: id, Size: 1 << 20}},
			Stored: map[tasks.ContentID]tasks.Stored{id: {Size: 1 << 20}}, Near: near(i),
		}
	}
	return job, contents, &calls
}

func slowly(w *fakeWorker) {
	w.run = func(ctx context.Context, _ scheduler.Order) tasks.Result {
		sleep(ctx, 5*time.Second)
		return tasks.Result{State: tasks.StateDone, Elapsed: 5 * time.Second}
	}
}

// TestTasksGoWhereTheirContentsAre: to who made them, or got them before; where
// nobody has them they run all the same. All are delivered in order, and no more is
// asked for than without.
func TestTasksGoWhereTheirContentsAre(t *testing.T) {
	const workers, count = 4, 80
	peer := func(i int) grid.PeerID { return grid.PeerID{byte(1 + i*7%workers)} }
	for name, c := range map[string]struct {
		content func(i int) byte
		near    func(i int) []grid.PeerID
		right   func(results []tasks.Result) int
		want    int
	}{
		"made there": {
			content: func(i int) byte { return byte(i) }, near: func(i int) []grid.PeerID { return []grid.PeerID{peer(i)} },
			right: func(results []tasks.Result) (n int) {
				for i, r := range results {
					if r.Peer == peer(i) {
						n++
					}
				}
				return n
			}, want: count * 3 / 4,
		},
		"got before": {
			content: func(i int) byte { return byte(i % 8) }, near: func(int) []grid.PeerID { return nil },
			right: func(results []tasks.Result) int { // how often one had the content already
				has := map[grid.PeerID]map[int]bool{}
				n := 0
				for i, r := range results {
					if has[r.Peer] == nil {
						has[r.Peer] = map[int]bool{}
					}
					if has[r.Peer][i%8] {
						n++
					}
					has[r.Peer][i%8] = true
				}
				return n
			}, want: count * 3 / 4,
		},
		"nowhere": {
			content: func(i int) byte { return byte(i) }, near: func(int) []grid.PeerID { return []grid.PeerID{{99}} },
			right: func(results []tasks.Result) int { return len(results) }, want: count,
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			pool := &fakePool{}
			for range workers {
				pool.add(1, slowly)
			}
			job, contents, calls := nearJob(count, c.content, c.near)
			results, sum := runJob(t, pool, job, scheduler.Config{}, contents)
			if got := c.right(results); sum.Done != count || got < c.want {
				t.Errorf("%s: %d of %d are where their contents are; %+v", name, got, count, sum)
			}
			if *calls > count+sum.Retried+sum.Duplicated {
				t.Errorf("%s: %d tasks were asked for %d times", name, count, *calls)
			}
		})
	}
}
