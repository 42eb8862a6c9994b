package contents_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/storage"
	"gotong/storage/placement"
	"gotong/storage/segments"
	"gotong/storage/storagetest"
	"gotong/tasks"
	"gotong/tasks/contents"
)

var (
	owner  = storagetest.NewDevice("owner")
	worker = storagetest.NewDevice("worker")
)

// holder is a peer that keeps shards.
type holder struct {
	peer   grid.PeerID
	faults *storagetest.Faulty
	opened atomic.Int64
}

// holders are the other peers, each on a site of its own.
type holders []*holder

func newHolders(n int) holders {
	all := make(holders, n)
	for i := range all {
		all[i] = &holder{peer: storagetest.Peer(fmt.Sprint("holder ", i)), faults: storagetest.NewFaulty(storagetest.NewMemory())}
	}
	return all
}

func (all holders) Shards(peer grid.PeerID) (storage.RemoteShards, error) {
	for _, h := range all {
		if h.peer == peer {
			return counted{h.faults, h}, nil
		}
	}
	return nil, fmt.Errorf("dial %s: %w", peer.Short(), grid.ErrUnreachable)
}

// counted counts the shards that are read.
type counted struct {
	*storagetest.Faulty
	holder *holder
}

func (c counted) OpenShard(ctx context.Context, id storage.ShardID, off, n int64) (storage.ShardReader, error) {
	if n != 0 {
		c.holder.opened.Add(1)
	}
	return c.Faulty.OpenShard(ctx, id, off, n)
}

func (all holders) Candidates(context.Context, grid.OwnerID, grid.PeerID) (out []placement.Candidate) {
	for _, h := range all {
		out = append(out, placement.Candidate{Peer: h.peer, Site: h.peer.String(), Pledge: 1 << 40, Free: 1 << 40, Seen: time.Now()})
	}
	return out
}

func (all holders) Members() (out []grid.PeerID) {
	for _, h := range all {
		out = append(out, h.peer)
	}
	return out
}

func (all holders) Site(peer grid.PeerID) string { return peer.String() }

// by returns the contents of a peer over the holders.
func (all holders) by(t testing.TB, device storagetest.Device) *contents.Contents {
	t.Helper()
	s, err := segments.New(segments.Config{
		Holders: all, Node: device.Key, Grant: func() []byte { return device.Grant }, Owner: device.Owner,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return contents.New(s)
}

func newJob(t testing.TB) contents.Job {
	job := contents.Job{ID: tasks.JobID{1}, Key: tasks.Key{2}}
	job.Grant = owner.JobGrant(t, job.ID, 1<<40)
	return job
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func idOf(b []byte) tasks.ContentID { return blake3.Sum256(b) }

func put(t testing.TB, c *contents.Contents, job contents.Job, data []byte) tasks.Stored {
	t.Helper()
	s, err := c.Put(t.Context(), job, idOf(data), int64(len(data)), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	return s
}

// get reads a content to its end.
func get(t testing.TB, c *contents.Contents, job contents.Job, id tasks.ContentID, s tasks.Stored) ([]byte, error) {
	t.Helper()
	r, err := c.Open(t.Context(), job, id, s)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func want(t testing.TB, c *contents.Contents, job contents.Job, data []byte, s tasks.Stored) {
	t.Helper()
	got, err := get(t, c, job, idOf(data), s)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d of %d bytes, %v", len(got), len(data), err)
	}
}
