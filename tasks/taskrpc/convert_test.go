package taskrpc

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"gotong/grid"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/storage"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

func TestErrorsSurviveTheWire(t *testing.T) {
	if len(problems) == 0 {
		t.Fatal("no errors listed")
	}
	for _, p := range problems {
		got := fromStatus(toStatus(fmt.Errorf("because: %w", p.err)))
		if !errors.Is(got, p.err) || got.Error() != "because: "+p.err.Error() {
			t.Errorf("%v became %v", p.err, got)
		}
	}
	for _, err := range []error{context.Canceled, context.DeadlineExceeded} {
		if got := fromStatus(toStatus(err)); !errors.Is(got, err) {
			t.Errorf("%v became %v", err, got)
		}
	}
	if got := fromStatus(toStatus(errors.New("open /home/me/secret"))).Error(); got != "Internal: the worker failed" {
		t.Errorf("an unknown error travels as %q", got)
	}
	if fromStatus(toStatus(nil)) != nil {
		t.Error("nil became an error")
	}
}

func sampleHeader() scheduler.Header {
	return scheduler.Header{
		Job: tasks.JobID{1}, Module: tasks.ContentID{2},
		Inputs: []tasks.Input{{Name: "a/b", Content: tasks.ContentID{3}, Size: 4}},
		Limits: tasks.DefaultLimits(), Step: 7, Priority: -8,
	}
}

func TestHeaderAndOrdersRoundTrip(t *testing.T) {
	h := sampleHeader()
	got, err := headerFromProto(headerToProto(h))
	if err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("%+v, %v", got, err)
	}
	o := scheduler.Orders{
		Tasks: []scheduler.Order{
			h.Order(5, scheduler.Part{Args: []string{"x", "\xff"}}),
			h.Order(6, scheduler.Part{
				Args:   []string{"y"},
				Inputs: []tasks.Input{{Name: "own", Content: tasks.ContentID{9}, Size: 3}},
				Stdin:  tasks.ContentID{8}, StdinSize: 2,
			}),
		},
		Cancel: []int{1, 2}, Release: []int{3},
	}
	orders, err := ordersFromProto(ordersToProto(o), h)
	if err != nil || !reflect.DeepEqual(orders, o) {
		t.Errorf("%+v, %v", orders, err)
	}
}

func TestHostileHeadersAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*tasksv1.Header){
		"short job":        func(h *tasksv1.Header) { h.Job = h.Job[:31] },
		"zero job":         func(h *tasksv1.Header) { h.Job = make([]byte, 32) },
		"long module":      func(h *tasksv1.Header) { h.Module = make([]byte, 33) },
		"no limits":        func(h *tasksv1.Header) { h.Limits = nil },
		"endless":          func(h *tasksv1.Header) { h.Limits.WallNanos = 1 << 62 },
		"negative memory":  func(h *tasksv1.Header) { h.Limits.MemoryBytes = -1 },
		"too many files":   func(h *tasksv1.Header) { h.Limits.OutputFiles = 1 << 40 },
		"climbing name":    func(h *tasksv1.Header) { h.Inputs[0].Name = "../x" },
		"same name":        func(h *tasksv1.Header) { h.Inputs = append(h.Inputs, h.Inputs[0]) },
		"nil input":        func(h *tasksv1.Header) { h.Inputs = append(h.Inputs, nil) },
		"too many inputs":  func(h *tasksv1.Header) { h.Inputs = make([]*tasksv1.Input, tasks.MaxInputs+1) },
		"negative content": func(h *tasksv1.Header) { h.Inputs[0].Size = -1 },
	} {
		p := headerToProto(sampleHeader())
		p = proto.CloneOf(p)
		spoil(p)
		if _, err := headerFromProto(p); !errors.Is(err, tasks.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := headerFromProto(nil); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("no header: %v", err)
	}
}

func sampleResult() tasks.Result {
	return tasks.Result{
		Task:  tasks.TaskID{Job: tasks.JobID{1}, Index: 9},
		State: tasks.StateFailed, ExitCode: 3, Why: "exit code 3", Stdout: []byte("out"), Stderr: []byte("err"),
		Outputs: []tasks.Output{{Name: "a", Size: 2, Content: tasks.ContentID{4}, Data: []byte("hi")}, {Name: "b", Size: 1 << 40, Content: tasks.ContentID{5}}},
		Elapsed: time.Second, Engine: "engine",
	}
}

// largeStdout is sampleResult with a standard output that lies elsewhere.
func largeStdout() tasks.Result {
	r := sampleResult()
	r.Stdout = nil
	r.LargeStdout = &tasks.Output{Size: 3 << 20, Content: tasks.ContentID{6}, Stored: &tasks.Stored{Size: 3 << 20, Segments: []storage.SegmentID{{1}}}}
	return r
}

func TestResultRoundTrip(t *testing.T) {
	for _, want := range []tasks.Result{sampleResult(), largeStdout()} {
		raw, err := encodeResult(want, [32]byte{7})
		if err != nil {
			t.Fatal(err)
		}
		got, seed, err := decodeResult(raw)
		if err != nil || seed != [32]byte{7} || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func FuzzResult(f *testing.F) {
	raw, err := encodeResult(sampleResult(), [32]byte{7})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(raw[:len(raw)/2])
	f.Add([]byte{})
	if raw, err = encodeResult(largeStdout(), [32]byte{7}); err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, seed, err := decodeResult(raw)
		if err != nil {
			return
		}
		if err := r.Validate(); err != nil {
			t.Fatalf("accepted an invalid result: %v", err)
		}
		again, err := encodeResult(r, seed)
		if err != nil {
			t.Fatal(err)
		}
		back, _, err := decodeResult(again)
		if err != nil {
			t.Fatalf("%+v does not come back: %v", r, err)
		}
		if third, err := encodeResult(back, seed); err != nil || !bytes.Equal(third, again) {
			t.Fatalf("%+v became %+v, %v", r, back, err)
		}
	})
}

func FuzzWorkRequest(f *testing.F) {
	h := sampleHeader()
	add := func(m *tasksv1.WorkRequest) {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	add(&tasksv1.WorkRequest{Begin: headerToProto(h)})
	add(ordersToProto(scheduler.Orders{Tasks: []scheduler.Order{h.Order(1, scheduler.Part{
		Args: []string{"x"}, Inputs: []tasks.Input{{Name: "own", Content: tasks.ContentID{9}, Size: 3}}, Stdin: tasks.ContentID{8}, StdinSize: 2,
	})}, Cancel: []int{2}, Release: []int{3}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var p tasksv1.WorkRequest
		if proto.Unmarshal(raw, &p) != nil {
			return
		}
		if got, err := headerFromProto(p.Begin); err == nil {
			if err := got.Validate(); err != nil {
				t.Fatalf("accepted an invalid header: %v", err)
			}
		}
		o, err := ordersFromProto(&p, h)
		if err != nil {
			return
		}
		for _, order := range o.Tasks {
			if err := order.Spec.Validate(); err != nil {
				t.Fatalf("accepted an invalid task: %v", err)
			}
		}
	})
}

func FuzzWorkResponse(f *testing.F) {
	raw, err := encodeResult(sampleResult(), [32]byte{7})
	if err != nil {
		f.Fatal(err)
	}
	m, err := proto.Marshal(&tasksv1.WorkResponse{
		Results: [][]byte{raw}, Signature: make([]byte, 64), Closing: "why",
		Returned: []*tasksv1.Returned{{Index: 3, Why: "busy"}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m)
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var p tasksv1.WorkResponse
		if proto.Unmarshal(raw, &p) != nil {
			return
		}
		s := &session{header: sampleHeader(), peer: grid.PeerID{1}, key: key, seeds: map[int][32]byte{9: {7}}}
		r, err := s.open(&p)
		if err == nil && len(r.Results) > 0 {
			t.Fatal("accepted results without a signature of the peer")
		}
	})
}
