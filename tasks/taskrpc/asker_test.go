package taskrpc_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/storagetest"
	"gotong/tasks"
	"gotong/tasks/scheduler"
	"gotong/tasks/taskrpc"
)

// askedRunner notes for whom it is asked.
type askedRunner struct {
	*fakeRunner
	check taskrpc.Asker
	work  taskrpc.Work
}

func (r *askedRunner) Check(a taskrpc.Asker, s tasks.Spec) error {
	r.check = a
	return r.fakeRunner.Check(a, s)
}

func (r *askedRunner) Do(ctx context.Context, w taskrpc.Work) (tasks.Result, error) {
	r.work = w
	return r.fakeRunner.Do(ctx, w)
}

// TestAskerIsTheOwnerOfTheGrant: whoever calls, the worker decides by the owner
// of the job.
func TestAskerIsTheOwnerOfTheGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &askedRunner{fakeRunner: newRunner(1)}
		w := newWorker(t, r)
		h := header(r.fakeRunner)
		h.Key, h.StoreOutputs = tasks.Key{7}, true
		h.Stored = map[tasks.ContentID]tasks.Stored{h.Module: {Size: 6, Segments: make([]storage.SegmentID, 1)}}
		s, err := w.client(t, "a").Claim(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		o := order(h, 7)
		o.Part.Stored = map[tasks.ContentID]tasks.Stored{{9}: {Size: 3, Segments: make([]storage.SegmentID, 1)}}
		s.Send(scheduler.Orders{Tasks: []scheduler.Order{o}})
		collect(t, s, 1)
		want := taskrpc.Asker{Peer: grid.PeerID{'a'}, Owner: submitter.Owner, Job: h.Job}
		if r.check != want || r.work.Job.Asker != want {
			t.Errorf("asked by %+v and %+v, want %+v", r.check, r.work.Job.Asker, want)
		}
		if r.work.Job.Key != h.Key || !r.work.Job.StoreOutputs || string(r.work.Job.Grant) != string(h.Grant) || r.work.Job.Expires.IsZero() {
			t.Errorf("told of the job %+v", r.work.Job)
		}
		if at, ok := r.work.StoredAt(h.Module); !ok || at.Size != 6 {
			t.Errorf("module stored at %+v", at)
		}
		if at, ok := r.work.StoredAt(tasks.ContentID{9}); !ok || at.Size != 3 {
			t.Errorf("input stored at %+v", at)
		}
	})
}

// TestStoredContentsNeedNotBeHere: what the worker fetches itself does not keep
// a claim from being granted.
func TestStoredContentsNeedNotBeHere(t *testing.T) {
	eachWay(t, 1, func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker) {
		h := header(r)
		h.Inputs = []tasks.Input{{Name: "big", Content: tasks.ContentID{5}, Size: 9}, {Name: "small", Content: tasks.ContentID{6}, Size: 1}}
		h.Key, h.Stored = tasks.Key{7}, map[tasks.ContentID]tasks.Stored{{5}: {Size: 9, Segments: make([]storage.SegmentID, 1)}}
		var missing *tasks.MissingContent
		if _, err := way.Claim(t.Context(), h); !errors.As(err, &missing) || len(missing.IDs) != 1 || missing.IDs[0] != (tasks.ContentID{6}) {
			t.Errorf("missing: %v", err)
		}
		h.Inputs = h.Inputs[:1]
		if _, err := way.Claim(t.Context(), h); err != nil {
			t.Error(err)
		}
	})
}

func TestGrantsThatDoNotHold(t *testing.T) {
	eachWay(t, 1, func(t *testing.T, r *fakeRunner, w *servedWorker, way scheduler.Worker) {
		good := header(r)
		for name, spoil := range map[string]func(*scheduler.Header){
			"none":         func(h *scheduler.Header) { h.Grant = nil },
			"nonsense":     func(h *scheduler.Header) { h.Grant = []byte("please") },
			"altered":      func(h *scheduler.Header) { h.Grant = append([]byte(nil), h.Grant...); h.Grant[100] ^= 1 },
			"of other job": func(h *scheduler.Header) { h.Job = tasks.JobID{2} },
			"of stranger": func(h *scheduler.Header) {
				h.Grant = storagetest.NewDevice("stranger").With(0, 1).Grant // a delegation
			},
		} {
			h := good
			spoil(&h)
			_, offer := way.Offer(t.Context(), h)
			_, claim := way.Claim(t.Context(), h)
			put := way.PutContent(t.Context(), h, h.Module, 6, strings.NewReader("module"))
			for i, err := range []error{offer, claim, put} {
				if name == "of other job" && i == 2 {
					continue // it is handed over for the job of the grant
				}
				if !errors.Is(err, tasks.ErrRefused) {
					t.Errorf("%s, call %d: %v", name, i, err)
				}
			}
		}
		if _, err := way.Offer(t.Context(), good); err != nil {
			t.Error(err)
		}
		time.Sleep(366 * 24 * time.Hour)
		if _, err := way.Offer(t.Context(), good); !errors.Is(err, tasks.ErrRefused) {
			t.Errorf("after it expired: %v", err)
		}
	})
}
