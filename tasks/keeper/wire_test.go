package keeper

import (
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"gotong/grid"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks/jobs"
)

func TestWireRoundTrip(t *testing.T) {
	s, other := Stream{3, grid.PeerID{1}}, Stream{4, grid.PeerID{2}}
	v := Vector{s: 7, other: 1}
	if got, err := vectorFromProto(vectorToProto(v)); err != nil || !reflect.DeepEqual(got, v) {
		t.Errorf("%v %v", got, err)
	}
	l := List{By: s, Number: 2, Peers: []grid.PeerID{{1}, {2}}}
	if got, err := listFromProto(listToProto(l)); err != nil || !reflect.DeepEqual(got, l) {
		t.Errorf("%v %v", got, err)
	}
	b := []Batch{{s, 5, [][]byte{{1}, {2, 3}}}}
	if got, err := batchesFromProto(batchesToProto(b)); err != nil || !reflect.DeepEqual(got, b) {
		t.Errorf("%v %v", got, err)
	}
	sum := Summary{Name: "n", State: jobs.JobDone, Counts: jobs.Counts{Tasks: 3, Done: 2, Failed: 1}, Submitted: time.Unix(9, 0).UTC(), Ended: time.Unix(10, 0).UTC(), Why: "w"}
	raw, err := sum.encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseSummary(raw); err != nil || got != sum {
		t.Errorf("%+v %v", got, err)
	}
}

func FuzzAppendFromProto(f *testing.F) {
	raw, err := proto.Marshal(&tasksv1.AppendJobRequest{
		Job: make([]byte, 32), Epoch: 1, Batches: []*tasksv1.RecordBatch{{Epoch: 1, Driver: make([]byte, 32), Records: [][]byte{{1}}}},
		Keepers: listToProto(List{Number: 1, Peers: []grid.PeerID{{1}}}),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m tasksv1.AppendJobRequest
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		r, err := appendFromProto(&m)
		if err == nil && len(r.List.Peers) > maxKeepers {
			t.Errorf("%d keepers", len(r.List.Peers))
		}
	})
}

func FuzzParseSummary(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if s, err := ParseSummary(raw); err == nil && (s.Counts.Tasks < 0 || s.Counts.Done < 0 || s.Counts.Failed < 0) {
			t.Errorf("%+v", s)
		}
	})
}
