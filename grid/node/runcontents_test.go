package node

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/storagetest"
	"gotong/tasks"
	"gotong/tasks/contents"
	"gotong/tasks/taskrpc"
	"gotong/tasks/worker"
)

// gridOfSegments keeps segments in memory, or refuses them.
type gridOfSegments struct {
	kept   map[storage.SegmentID][]byte
	refuse error
}

func (g *gridOfSegments) PutForJob(_ context.Context, data []byte, _ storage.SignedJobGrant, _ time.Time) (segments.Put, error) {
	id := storage.SegmentID(blake3.Sum256(data))
	if g.refuse == nil {
		g.kept[id] = bytes.Clone(data)
	}
	return segments.Put{ID: id}, g.refuse
}

func (g *gridOfSegments) Get(_ context.Context, id storage.SegmentID, _ segments.Hint) ([]byte, error) {
	if data, ok := g.kept[id]; ok {
		return bytes.Clone(data), nil
	}
	return nil, storage.ErrTooFewShards
}

func (g *gridOfSegments) Header(context.Context, storage.SegmentID, []storage.Holder) (storage.SignedHeader, error) {
	return storage.SignedHeader{}, storage.ErrTooFewShards
}

func (g *gridOfSegments) Survey(context.Context, []segments.Ask) ([]segments.Survey, error) {
	return nil, nil
}

func (g *gridOfSegments) Locate(context.Context, []storage.SegmentID, []grid.PeerID) (map[storage.SegmentID][]storage.Holder, error) {
	return nil, nil
}

// TestOutputsAreStoredAndFetched: a worker stores large outputs when it is asked
// to, another fetches them as its inputs, and what cannot be stored waits.
func TestOutputsAreStoredAndFetched(t *testing.T) {
	on := &gridOfSegments{kept: map[storage.SegmentID][]byte{}}
	newContents := func() jobContents {
		w, err := worker.New(worker.Config{Dir: t.TempDir(), Slots: 1})
		if err != nil {
			t.Fatal(err)
		}
		return newJobContents(w, contents.New(on), slog.New(slog.DiscardHandler))
	}
	device := storagetest.NewDevice("submitter")
	job := taskrpc.Job{Asker: taskrpc.Asker{Job: tasks.JobID{1}}, Key: tasks.Key{2}, StoreOutputs: true}
	job.Grant = device.JobGrant(t, job.Job, 1<<20)
	work := taskrpc.Work{Job: job}
	data := bytes.Repeat([]byte("large "), 100_000)
	id := tasks.ContentID(blake3.Sum256(data))
	result := func() tasks.Result {
		return tasks.Result{Outputs: []tasks.Output{{Name: "a", Size: 1, Data: []byte("x")}, {Name: "b", Size: int64(len(data)), Content: id}}}
	}
	maker := newContents()
	if err := maker.store.Put(t.Context(), id, int64(len(data)), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	on.refuse = storage.ErrTooFewPeers
	waits := result()
	if maker.keep(t.Context(), work, &waits) || waits.Outputs[1].Stored != nil {
		t.Error("an output that nobody takes does not wait")
	}
	on.refuse = nil
	attached := work
	attached.Job.StoreOutputs = false
	unasked := result()
	if maker.keep(t.Context(), attached, &unasked) || len(on.kept) != 0 {
		t.Error("stored what nobody asked to be stored")
	}
	kept := result()
	if !maker.keep(t.Context(), work, &kept) || kept.Outputs[0].Stored != nil || kept.Outputs[1].Stored == nil {
		t.Fatalf("%+v", kept.Outputs)
	}

	user := newContents()
	work.Task.Spec.Inputs = []tasks.Input{{Name: "in", Content: id, Size: int64(len(data))}}
	work.Stored = []map[tasks.ContentID]tasks.Stored{nil, {id: *kept.Outputs[1].Stored}}
	ran := 0
	_, err := user.with(t.Context(), work, func() (tasks.Result, error) {
		ran++
		if missing := user.store.Missing([]tasks.ContentID{id}); len(missing) > 0 {
			t.Error("it runs without its input")
		}
		if ran == 1 { // as if others had pushed it out of the cache
			return tasks.Result{}, &tasks.MissingContent{IDs: []tasks.ContentID{id}}
		}
		return tasks.Result{State: tasks.StateDone}, nil
	})
	if err != nil || ran != 2 {
		t.Errorf("ran %d times, %v", ran, err)
	}
	clear(on.kept)
	late := newContents()
	if _, err := late.with(t.Context(), work, func() (tasks.Result, error) { t.Error("it runs"); return tasks.Result{}, nil }); !errors.Is(err, tasks.ErrNoContent) {
		t.Errorf("nobody has it: %v", err)
	}
}
