package gridtest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"gotong/grid/blake3"
	"gotong/grid/gridtest"
	"gotong/storage"
	"gotong/storage/storagetest"
	"gotong/tasks"
	"gotong/tasks/contents"
)

// jobOf returns a job of a peer's owner.
func jobOf(t *testing.T, p *gridtest.ClusterPeer, bytes int64, life time.Duration) contents.Job {
	t.Helper()
	job := contents.Job{ID: tasks.NewJobID(), Key: tasks.NewKey()}
	var err error
	if job.Grant, err = p.GrantJob(job.ID, bytes, life); err != nil {
		t.Fatal(err)
	}
	return job
}

func randomContent(n int) (tasks.ContentID, []byte) {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(data)
	return blake3.Sum256(data), data
}

// fetch reads a content at a peer and compares it.
func fetch(t *testing.T, p *gridtest.ClusterPeer, job contents.Job, id tasks.ContentID, s tasks.Stored, want []byte) error {
	r, err := p.JobContents().Open(t.Context(), job, id, s)
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%d wrong bytes", len(got))
	}
	return err
}

// TestContentReachesAllWorkers: an input of several pieces, stored once, reaches six workers
// while two of its holders are gone and one gives wrong bytes.
func TestContentReachesAllWorkers(t *testing.T) {
	skipShort(t)
	var liar *storagetest.Faulty
	cfg := gridtest.ClusterConfig{Peers: 9, Shards: func(i int, s storage.RemoteShards) storage.RemoteShards {
		if i != 3 {
			return s
		}
		liar = storagetest.NewFaulty(s)
		return liar
	}}
	gridtest.Run(t, cfg, func(t *testing.T, c *gridtest.Cluster) {
		owner := c.Peers[0]
		job := jobOf(t, owner, 50<<20, time.Hour)
		id, data := randomContent(20 << 20)
		s, err := owner.JobContents().Put(t.Context(), job, id, int64(len(data)), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		liar.Set(storagetest.Faults{Garbage: true})
		c.Peers[1].Stop()
		c.Peers[2].Stop()
		job.Grant = nil
		var group sync.WaitGroup
		for _, p := range c.Peers[3:] {
			group.Go(func() {
				if err := fetch(t, p, job, id, s, data); err != nil {
					t.Errorf("%s: %v", p.Name, err)
				}
			})
		}
		group.Wait()
	})
}

// TestAnyMemberStoresForAJob: outputs are signed by the workers that made them
// and cost the owner, not more than the grant allows, and are repaired.
func TestAnyMemberStoresForAJob(t *testing.T) {
	skipShort(t)
	gridtest.Run(t, repairing(6, "auto", nil), func(t *testing.T, c *gridtest.Cluster) {
		owner, worker := c.Peers[0], c.Peers[1]
		job := jobOf(t, owner, contents.Bytes(3<<20), 12*time.Hour)
		id, data := randomContent(2 << 20)
		s, err := worker.JobContents().Put(t.Context(), job, id, int64(len(data)), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := fetch(t, owner, job, id, s, data); err != nil {
			t.Error(err)
		}
		held := func() (n int) {
			for _, shards := range onDisk(t, c.Peers) {
				n += len(shards)
			}
			return n
		}
		n := held()
		if n == 0 {
			t.Fatal("nothing is stored")
		}
		for range 4 { // the grant is for three
			id, data := randomContent(2<<20 + 1)
			_, err = c.Peers[2].JobContents().Put(t.Context(), job, id, int64(len(data)), bytes.NewReader(data))
		}
		if !errors.Is(err, storage.ErrQuota) {
			t.Errorf("beyond the grant: %v", err)
		}
		other := jobOf(t, c.Peers[3], 1<<20, time.Hour)
		other.ID = job.ID
		if _, err := worker.JobContents().Put(t.Context(), other, id, int64(len(data)), bytes.NewReader(data)); !errors.Is(err, storage.ErrDenied) {
			t.Errorf("under the grant of another job: %v", err)
		}
		c.Peers[4].Stop()
		time.Sleep(repairGrace)
		if err := fetch(t, c.Peers[5], job, id, s, data); err != nil {
			t.Error(err)
		}
		waitHealthy(t, c, n, 10*time.Minute, c.Peers[4])
	})
}
