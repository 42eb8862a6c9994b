package contents_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gotong/storage"
	"gotong/storage/storagetest"
	"gotong/tasks"
	"gotong/tasks/contents"
)

// cache is a worker's cache in memory.
type cache struct {
	mu   sync.Mutex
	have map[tasks.ContentID][]byte
	puts int
	full error
}

func newCache() *cache { return &cache{have: map[tasks.ContentID][]byte{}} }

func (c *cache) Missing(ids []tasks.ContentID) []tasks.ContentID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(ids), func(id tasks.ContentID) bool { return c.have[id] != nil })
}

func (c *cache) Put(_ context.Context, id tasks.ContentID, size int64, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.puts++
	if c.full != nil {
		return c.full
	}
	if int64(len(b)) != size || idOf(b) != id {
		return tasks.ErrContent
	}
	c.have[id] = b
	return nil
}

// at returns where contents are stored, as a header tells it.
func at(all map[tasks.ContentID]tasks.Stored) func(tasks.ContentID) (tasks.Stored, bool) {
	return func(id tasks.ContentID) (tasks.Stored, bool) { s, ok := all[id]; return s, ok }
}

// TestWhoWantsTheSameWaitsForIt: many tasks that need a content fetch it once,
// each hears of the progress, and one that gives up does not hold up the others.
func TestWhoWantsTheSameWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, job, data := newHolders(5), newJob(t), random(100_000)
		stored := at(map[tasks.ContentID]tasks.Stored{idOf(data): put(t, all.by(t, owner), job, data)})
		for _, h := range all {
			h.faults.Set(storagetest.Faults{Delay: time.Second})
		}
		c := newCache()
		f := contents.NewFetcher(all.by(t, worker), c)
		leaves, leave := context.WithCancel(t.Context())
		var group sync.WaitGroup
		var progress [10]atomic.Int64
		for i := range progress {
			ctx := t.Context()
			if i == 0 {
				ctx = leaves
			}
			group.Go(func() {
				err := f.Fetch(ctx, job, []tasks.ContentID{idOf(data), {9}}, stored, func() { progress[i].Add(1) })
				if (i == 0) != errors.Is(err, context.Canceled) {
					t.Errorf("task %d: %v", i, err)
				}
			})
			synctest.Wait()
		}
		leave()
		group.Wait()
		if c.puts != 1 || len(c.Missing([]tasks.ContentID{idOf(data)})) != 0 {
			t.Errorf("%d puts", c.puts)
		}
		for i := range progress[1:] {
			if progress[i+1].Load() == 0 {
				t.Errorf("task %d heard of no progress", i+1)
			}
		}
		if err := f.Fetch(t.Context(), job, []tasks.ContentID{idOf(data)}, stored, nil); err != nil || c.puts != 1 {
			t.Errorf("once more: %v, %d puts", err, c.puts)
		}
	})
}

// TestFetchThatNobodyWaitsForEnds.
func TestFetchThatNobodyWaitsForEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, job, data := newHolders(3), newJob(t), random(1000)
		stored := at(map[tasks.ContentID]tasks.Stored{idOf(data): put(t, all.by(t, owner), job, data)})
		for _, h := range all {
			h.faults.Set(storagetest.Faults{Delay: 20 * time.Second})
		}
		c := newCache()
		f := contents.NewFetcher(all.by(t, worker), c)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Fetch(ctx, job, []tasks.ContentID{idOf(data)}, stored, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		if len(c.have) != 0 {
			t.Error("it was fetched all the same")
		}
		for _, h := range all {
			h.faults.Set(storagetest.Faults{})
		}
		if err := f.Fetch(t.Context(), job, []tasks.ContentID{idOf(data)}, stored, nil); err != nil {
			t.Error(err)
		}
	})
}

// TestFetchesThatFail end soon, with the reason.
func TestFetchesThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, job, data := newHolders(5), newJob(t), random(1000) // 2 of 5
		s := put(t, all.by(t, owner), job, data)
		id := []tasks.ContentID{idOf(data)}
		wrong := job
		wrong.Key[0]++
		full := newCache()
		full.full = fmt.Errorf("no room: %w", tasks.ErrStoreFull)
		for name, c := range map[string]struct {
			job   contents.Job
			cache *cache
			down  int
			want  error
		}{
			"too few holders": {job, newCache(), 4, storage.ErrTooFewShards},
			"wrong key":       {wrong, newCache(), 0, storage.ErrCorrupt},
			"no room":         {job, full, 0, tasks.ErrStoreFull},
		} {
			for i, h := range all {
				h.faults.Set(storagetest.Faults{})
				if i < c.down {
					h.faults.Set(storagetest.Faults{Garbage: true})
				}
			}
			f := contents.NewFetcher(all.by(t, worker), c.cache)
			began := time.Now()
			err := f.Fetch(t.Context(), c.job, id, at(map[tasks.ContentID]tasks.Stored{id[0]: s}), nil)
			if !errors.Is(err, tasks.ErrNoContent) || !errors.Is(err, c.want) || !strings.Contains(err.Error(), id[0].Short()) && c.want != tasks.ErrStoreFull {
				t.Errorf("%s: %v", name, err)
			}
			if d := time.Since(began); d > 5*time.Minute {
				t.Errorf("%s: failed after %s", name, d)
			}
		}
	})
}

// TestKeysOfOthersDoNoHarm: a job with a wrong key makes only its own fetch fail.
func TestKeysOfOthersDoNoHarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, job, data := newHolders(5), newJob(t), random(1000)
		stored := at(map[tasks.ContentID]tasks.Stored{idOf(data): put(t, all.by(t, owner), job, data)})
		for _, h := range all {
			h.faults.Set(storagetest.Faults{Delay: time.Second})
		}
		wrong := job
		wrong.ID, wrong.Key = tasks.JobID{9}, tasks.Key{9}
		f := contents.NewFetcher(all.by(t, worker), newCache())
		var group sync.WaitGroup
		group.Go(func() {
			if err := f.Fetch(t.Context(), wrong, []tasks.ContentID{idOf(data)}, stored, nil); err == nil {
				t.Error("fetched with a wrong key")
			}
		})
		synctest.Wait()
		group.Go(func() {
			if err := f.Fetch(t.Context(), job, []tasks.ContentID{idOf(data)}, stored, nil); err != nil {
				t.Error(err)
			}
		})
		group.Wait()
	})
}

// TestManyFetchesAtOnce: large and small ones, all end, in bounded memory.
func TestManyFetchesAtOnce(t *testing.T) {
	all, job := newHolders(3), newJob(t)
	c := all.by(t, owner)
	stored, ids := map[tasks.ContentID]tasks.Stored{}, []tasks.ContentID(nil)
	for i := range 24 {
		size := 1000 + i
		if i%8 == 0 {
			size = piece + 1 + i
		}
		data := random(size)
		stored[idOf(data)] = put(t, c, job, data)
		ids = append(ids, idOf(data))
	}
	cached := newCache()
	f := contents.NewFetcher(all.by(t, worker), cached)
	var group sync.WaitGroup
	for i := range ids {
		group.Go(func() {
			if err := f.Fetch(t.Context(), job, []tasks.ContentID{ids[i], ids[(i+1)%len(ids)]}, at(stored), nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if len(cached.have) != len(ids) || cached.puts != len(ids) {
		t.Errorf("%d of %d contents, %d puts", len(cached.have), len(ids), cached.puts)
	}
}
