package node_test

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"gotong/grid"
	"gotong/grid/gridtest"
	"gotong/grid/node"
	"gotong/storage"
	"gotong/tasks"
	"gotong/tasks/contents"
	"gotong/tasks/jobs"
	"gotong/tasks/taskrpc"
)

// storer is an idler whose tasks leave a large file. It stores it, or says so.
type storer struct {
	idler
	peer func() *gridtest.ClusterPeer // nil: it lies
	ran  *atomic.Int64
}

var largeOutput = bytes.Repeat([]byte("output "), 50_000)

func (s storer) Do(ctx context.Context, work taskrpc.Work) (tasks.Result, error) {
	r, err := s.idler.Do(ctx, work)
	if err != nil || r.State != tasks.StateDone {
		return r, err
	}
	s.ran.Add(1)
	id := tasks.ContentID(blake3.Sum256(largeOutput))
	at := tasks.Stored{Size: int64(len(largeOutput)), Segments: []storage.SegmentID{{1, 2, 3}}, Holders: []grid.PeerID{work.Job.Peer}}
	if s.peer != nil {
		job := contents.Job{ID: work.Job.Job, Key: work.Job.Key, Grant: work.Job.Grant, Expires: work.Job.Expires}
		if at, err = s.peer().JobContents().Put(ctx, job, id, at.Size, bytes.NewReader(largeOutput)); err != nil {
			return tasks.Result{}, err
		}
	}
	r.Outputs = []tasks.Output{{Name: "large", Content: id, Size: at.Size, Stored: &at}}
	return r, nil
}

// TestOutputsThatNobodyStored: whole peers, one of which says of its outputs that
// they are stored. Nobody has them, so none of its results counts and others
// run the tasks; what counts can be fetched.
func TestOutputsThatNobodyStored(t *testing.T) {
	const count, liar = 20, 3
	var ran [6]atomic.Int64
	var c *gridtest.Cluster
	cfg := gridtest.ClusterConfig{
		Peers:       len(ran),
		Reconfigure: func(_ int, c *node.Config) { c.Slots = 1 },
		Runner: func(i int, _ taskrpc.Runner) taskrpc.Runner {
			s := storer{idler: idler{slots: 1, takes: 5 * time.Second}, ran: &ran[i]}
			if i != liar {
				s.peer = func() *gridtest.ClusterPeer { return c.Peers[i] }
			}
			return s
		},
	}
	gridtest.Run(t, cfg, func(t *testing.T, cluster *gridtest.Cluster) {
		c = cluster
		plan := numbered(t, count)
		plan.Steps[0].Outputs, plan.Steps[0].Limits.OutputBytes = true, 1<<20
		plan.Retention = time.Hour
		owner := c.Peers[0]
		id, err := owner.SubmitJob(t.Context(), plan)
		if err != nil {
			t.Fatal(err)
		}
		var job *jobs.Job
		time.Sleep(5 * time.Minute)
		c.Wait("the job is done", func() bool {
			if job, _, err = owner.FetchJob(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			over := false
			job.View(func(s *jobs.State) { over = s.State() == jobs.JobDone })
			return over
		})
		if ran[liar].Load() == 0 {
			t.Fatal("the one that lies was given no task")
		}
		key := contents.Job{ID: id, Key: job.Plan().Key, Grant: job.Plan().Grant}
		for i := range count {
			accepted, ok, err := job.Result(i)
			if err != nil || !ok || accepted.Peer == c.Peers[liar].ID {
				t.Errorf("task %d: %v, %v, of %s", i, ok, err, accepted.Peer.Short())
				continue
			}
			r, err := accepted.Decode()
			if err != nil || len(r.Outputs) != 1 {
				t.Errorf("task %d: %+v, %v", i, r, err)
				continue
			}
			out := r.Outputs[0]
			if slices.Contains(out.Stored.Segments, storage.SegmentID{1, 2, 3}) {
				t.Errorf("task %d is stored at %+v", i, out.Stored)
			}
			from, err := owner.JobContents().Open(t.Context(), key, out.Content, *out.Stored)
			if err != nil {
				t.Errorf("task %d: %v", i, err)
				continue
			}
			got, err := io.ReadAll(from)
			from.Close()
			if err != nil || !bytes.Equal(got, largeOutput) {
				t.Errorf("task %d: %d bytes, %v", i, len(got), err)
			}
		}
	})
}
