package jobs

import (
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gotong/grid"
	"gotong/tasks"
)

// view is what a state says of a job.
type view struct {
	State      JobState
	Why        string
	Counts     Counts
	Steps      []StepState
	Epoch      uint64
	EpochOf    grid.PeerID
	Hashes     []uint64
	Peers      map[grid.PeerID]Counts
	Trust      map[grid.PeerID]int
	Failures   []Range
	Generation uint32
	Ended      time.Time
	Tries      []map[int]int
	Lost       []map[int]int
}

func viewOf(s *State) view {
	v := view{State: s.State(), Why: s.Why(), Counts: s.Counts(), Steps: s.StepStates(), Peers: s.PeerCounts(), Trust: s.Trust(),
		Failures: s.Failures(), Generation: s.Generation(), Ended: s.EndedAt()}
	v.Epoch, v.EpochOf = s.Epoch()
	for step := range s.plan.Steps {
		v.Tries, v.Lost = append(v.Tries, s.Tries(step)), append(v.Lost, s.Lost(step))
	}
	for _, e := range s.tasks {
		if e.stands() {
			v.Hashes = append(v.Hashes, e.hash)
		} else {
			v.Hashes = append(v.Hashes, 0)
		}
	}
	return v
}

// TestFoldIsOrderless: the records of several drivers, in any order and some of
// them twice, give one state.
func TestFoldIsOrderless(t *testing.T) {
	p := planOf(t, 5, 4)
	p.Steps[1].OnFailure = FailureStop
	rapid.Check(t, func(r *rapid.T) {
		var records []*Record
		for range rapid.IntRange(1, 12).Draw(r, "records") {
			rec := &Record{
				Epoch:  uint64(rapid.IntRange(1, 3).Draw(r, "epoch")),
				Driver: grid.PeerID{byte(rapid.IntRange(1, 2).Draw(r, "driver"))},
				At:     time.Unix(int64(rapid.IntRange(1, 100).Draw(r, "at")), 0).UTC(), Generation: uint32(rapid.IntRange(0, 2).Draw(r, "generation")),
				Begun: rapid.Bool().Draw(r, "begun"),
			}
			for range rapid.IntRange(0, 4).Draw(r, "results") {
				states := []tasks.State{tasks.StateDone, tasks.StateFailed, tasks.StateLost}
				res := signedResults(t, p, keyOf(byte(rapid.IntRange(1, 3).Draw(r, "worker"))), rapid.SampledFrom(states).Draw(r, "state"),
					rapid.StringN(0, 2, 2).Draw(r, "text"), rapid.IntRange(0, 8).Draw(r, "index"))
				rec.Results = append(rec.Results, res...)
			}
			if rapid.IntRange(0, 4).Draw(r, "retry") == 0 {
				rec.Retried = []Range{{rapid.IntRange(0, 4).Draw(r, "from"), 3}}
			}
			if rapid.IntRange(0, 6).Draw(r, "cancel") == 0 {
				rec.Cancelled = &Cancelled{rapid.SampledFrom([]string{"a", "b"}).Draw(r, "why")}
			}
			if rapid.IntRange(0, 4).Draw(r, "end") == 0 {
				rec.Ended = &Ended{Done: rapid.Bool().Draw(r, "done"), Why: rapid.SampledFrom([]string{"c", "d"}).Draw(r, "end why")}
			}
			if rapid.Bool().Draw(r, "tried") {
				rec.Tried = []Tried{{rapid.IntRange(0, 8).Draw(r, "failed"), rapid.IntRange(1, 3).Draw(r, "runs")}}
			}
			if rapid.Bool().Draw(r, "lost") {
				rec.Lost = []Tried{{rapid.IntRange(0, 8).Draw(r, "lost task"), rapid.IntRange(1, 3).Draw(r, "lost runs")}}
			}
			if rapid.Bool().Draw(r, "trusts") {
				rec.Trust = []Trust{{grid.PeerID{4}, rapid.IntRange(0, 3).Draw(r, "trust")}}
			}
			records = append(records, rec)
		}
		apply := func(order []int) view {
			s := NewState(p)
			for _, i := range order {
				if err := s.Apply(records[i], int64(i)); err != nil {
					r.Fatal(err)
				}
			}
			return viewOf(s)
		}
		var straight []int
		for i := range records {
			straight = append(straight, i)
		}
		mixed := rapid.Permutation(append(straight, straight[:len(straight)/2]...)).Draw(r, "order")
		if a, b := apply(straight), apply(mixed); !reflect.DeepEqual(a, b) {
			r.Fatalf("in order %v:\n%+v\nelse\n%+v", mixed, b, a)
		}
	})
}

func TestStateOfAJob(t *testing.T) {
	p := planOf(t, 2, 2)
	p.Steps[1].Needs = []Need{{Step: 0, Stdin: true}}
	s, place := NewState(p), int64(0)
	apply := func(r Record) {
		t.Helper()
		r.Driver, r.At = grid.PeerID{1}, time.Unix(1000+place, 0)
		if err := s.Apply(&r, place); err != nil {
			t.Fatal(err)
		}
		place++
	}
	want := func(state JobState, steps ...StepState) {
		t.Helper()
		if s.State() != state || !reflect.DeepEqual(s.StepStates(), steps) {
			t.Errorf("after %d records %s %v, want %s %v", place, s.State(), s.StepStates(), state, steps)
		}
	}
	want(JobQueued, StepReady, StepWaiting)
	apply(Record{Epoch: 1, Begun: true})
	apply(Record{Epoch: 1, Results: signedResults(t, p, keyOf(2), tasks.StateDone, "", 0)})
	want(JobRunning, StepReady, StepWaiting)
	apply(Record{Epoch: 1, Results: signedResults(t, p, keyOf(2), tasks.StateFailed, "", 1)})
	want(JobRunning, StepFailed, StepSkipped)
	apply(Record{Epoch: 1, Ended: &Ended{Why: "step-0 failed"}})
	want(JobFailed, StepFailed, StepSkipped)
	apply(Record{Epoch: 1, Generation: 1, Retried: s.Failures()})
	want(JobRunning, StepReady, StepWaiting)
	if got := s.Counts(); got != (Counts{Tasks: 4, Done: 1}) {
		t.Errorf("counts %+v", got)
	}
	apply(Record{Epoch: 2, Generation: 1, Results: signedResults(t, p, keyOf(2), tasks.StateDone, "", 1)})
	want(JobRunning, StepDone, StepReady)
	apply(Record{Epoch: 2, Generation: 1, Results: signedResults(t, p, keyOf(3), tasks.StateDone, "", 2, 3)})
	want(JobRunning, StepDone, StepDone)
	apply(Record{Epoch: 2, Generation: 1, Ended: &Ended{Done: true}})
	want(JobDone, StepDone, StepDone)
	if got := s.PeerCounts()[peerOf(keyOf(2))]; got != (Counts{Tasks: 2, Done: 2}) {
		t.Errorf("worker %+v", got)
	}
}
