package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"gotong/tasks"
	"gotong/tasks/contents"
	"gotong/tasks/scheduler"
)

// When what a run brought is stored on the grid, from where workers fetch it,
// rather than sent to each of them.
const (
	// storeFrom is the size from which that is worth it, storeWorkers how many
	// other workers have to lack it.
	storeFrom    = 4 << 20
	storeWorkers = 3
	// storeAsks is how many workers are asked, storeAsk how long they have.
	storeAsks = 16
	storeAsk  = 3 * time.Second
	// storeLife is for how long it is kept. Workers that come later are sent it.
	storeLife = 12 * time.Hour
)

// source opens the contents of a run.
type source interface {
	scheduler.Contents
	// size returns the bytes of a content.
	size(id tasks.ContentID) int64
}

// grantRun makes the grant of a run, and stores the large contents that all of
// its tasks need and that several workers lack. Where they cannot be stored they
// are sent to the workers.
func (p *Peer) grantRun(ctx context.Context, job *scheduler.Job, from source) (err error) {
	var large []tasks.ContentID
	bytes := int64(0)
	for _, id := range job.Contents() {
		if size := from.size(id); size >= storeFrom {
			large = append(large, id)
			bytes += contents.Bytes(size)
		}
	}
	if job.Grant, err = p.grantJob(job.Job, bytes, runLife); err != nil || len(large) == 0 || job.Count < storeWorkers {
		return err
	}
	lacking := p.lacking(ctx, job.Header)
	h := &job.Header
	h.Key, h.Stored = tasks.NewKey(), map[tasks.ContentID]tasks.Stored{}
	for _, id := range large {
		if lacking[id] < storeWorkers {
			continue
		}
		stored, err := p.storeRun(ctx, h, id, from)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			p.logger.Info("content of a run is not stored on the grid but sent to each worker", "content", id.Short(), "err", err)
			continue
		}
		h.Stored[id] = stored
	}
	return nil
}

func (p *Peer) storeRun(ctx context.Context, h *scheduler.Header, id tasks.ContentID, from source) (tasks.Stored, error) {
	r, size, err := from.OpenContent(id)
	if err != nil {
		return tasks.Stored{}, fmt.Errorf("content %s: %w", id.Short(), err)
	}
	defer r.Close()
	job := contents.Job{ID: h.Job, Key: h.Key, Grant: h.Grant, Expires: time.Now().Add(storeLife)}
	return p.work.contents.Put(ctx, job, id, size, r)
}

// lacking asks some other workers what they lack of a job, and returns how many
// lack each content. Who refuses the job or does not answer lacks nothing.
func (p *Peer) lacking(ctx context.Context, h scheduler.Header) map[tasks.ContentID]int {
	ctx, cancel := context.WithTimeout(ctx, storeAsk)
	defer cancel()
	workers := slices.DeleteFunc(p.work.Candidates(), func(c scheduler.Candidate) bool { return c.Peer == p.ID() })
	var mu sync.Mutex
	var asking sync.WaitGroup
	out := map[tasks.ContentID]int{}
	for _, c := range workers[:min(len(workers), storeAsks)] {
		asking.Go(func() {
			w, err := p.work.Worker(c.Peer)
			if err != nil {
				return
			}
			offer, err := w.Offer(ctx, h)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, id := range offer.Missing {
				out[id]++
			}
		})
	}
	asking.Wait()
	return out
}
