package jobs

import (
	"bytes"
	"sync/atomic"
	"testing"

	"gotong/grid"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// withKnown is p with remembered results of some tasks.
func withKnown(t testing.TB, p Plan, indexes ...int) Plan {
	t.Helper()
	var known []Known
	for _, i := range indexes {
		known = append(known, Known{Index: i, Result: tasks.Result{State: tasks.StateDone, Stdout: []byte("remembered"), Engine: "fake"}})
	}
	var err error
	if p.Known, err = Vouch(keyOf(1), p.Job, known); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestKnownResultsStand: what comes with the plan is the job's from the beginning,
// signed, and only the others run; a retry of the job runs what is begun anew.
func TestKnownResultsStand(t *testing.T) {
	var known []int
	for i := range 300 { // more than one signature covers
		known = append(known, i)
	}
	j := runnable(t, withKnown(t, planOf(t, 310), known...))
	if raw, err := SignPlan(keyOf(1), j.Plan()); err != nil || !bytes.Equal(raw, j.SignedPlan()) {
		t.Errorf("the plan cannot be signed again as it is: %v", err)
	}
	if state, counts, _ := stateOf(j); state != JobQueued || counts != (Counts{Tasks: 310, Done: 300, Remembered: 300}) {
		t.Errorf("%s %+v", state, counts)
	}
	var ran atomic.Int64
	pool := fakePool{newWorker(2, func(g guest) tasks.Result { ran.Add(1); return echo(g) })}
	if err := driveJob(t.Context(), t, j, 1, pool); err != nil {
		t.Fatal(err)
	}
	if state, counts, _ := stateOf(j); state != JobDone || counts != (Counts{Tasks: 310, Done: 310, Remembered: 300}) || ran.Load() < 10 || ran.Load() > 20 {
		t.Errorf("%s %+v, %d ran", state, counts, ran.Load())
	}
	for i, want := range map[int]string{0: "remembered", 299: "remembered", 309: "item-309||"} {
		if got := stdoutOf(t, j, i); got != want {
			t.Errorf("task %d: %q", i, got)
		}
	}
	j.View(func(s *State) {
		if got := s.PeerCounts(); len(got) != 1 {
			t.Errorf("who ran tasks: %v", got)
		}
	})
	if err := j.Append(&Record{Epoch: 2, Driver: grid.PeerID{1}, Generation: 1, Retried: []Range{{0, 2}}}); err != nil {
		t.Fatal(err)
	}
	if err := driveJob(t.Context(), t, j, 3, pool); err != nil {
		t.Fatal(err)
	}
	if _, counts, _ := stateOf(j); counts != (Counts{Tasks: 310, Done: 310, Remembered: 298}) || stdoutOf(t, j, 1) != "item-1||" {
		t.Errorf("%+v", counts)
	}
}

// TestDriverRemembers: a driver that may takes what it remembers for its own
// word, but not for what is begun anew or when the plan forbids it.
func TestDriverRemembers(t *testing.T) {
	for name, c := range map[string]struct {
		noCache bool
		retried []Range
		want    int
	}{"takes": {want: 4}, "no cache": {noCache: true}, "begun anew": {retried: []Range{{0, 4}}}} {
		p := planOf(t, 4)
		p.NoCache = c.noCache
		j := runnable(t, p)
		begun := &Record{Epoch: 1, Driver: peerOf(keyOf(4)), Begun: true, Retried: c.retried}
		if c.retried != nil {
			begun.Generation = 1
		}
		if err := j.Append(begun); err != nil {
			t.Fatal(err)
		}
		kept := 0
		err := Drive(t.Context(), DriveConfig{
			Job: j, Self: peerOf(keyOf(4)), Epoch: 1, Contents: fakeContents{}, Dir: t.TempDir(), Key: keyOf(4),
			Pool: func(Step) (scheduler.Pool, error) { return fakePool{newWorker(2, echo)}, nil },
			Remember: func(_ scheduler.Job, cfg scheduler.Config, fresh bool, receive Receive) (scheduler.Config, Receive) {
				before := cfg.Known
				cfg.Known = func(spec [32]byte, i int) *scheduler.Accepted {
					if a := before(spec, i); a != nil || fresh {
						return a
					}
					return &scheduler.Accepted{FromCache: true, Result: tasks.Result{State: tasks.StateDone, Stdout: []byte("remembered")}}
				}
				return cfg, func(a *scheduler.Accepted) error { kept++; return receive(a) }
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if state, counts, _ := stateOf(j); state != JobDone || counts.Remembered != c.want || counts.Done != 4 || kept != 4 {
			t.Errorf("%s: %s %+v, %d received", name, state, counts, kept)
		}
		if r, _, err := j.Result(1); err != nil || r.Verify(p.Job) != nil || (r.Peer == peerOf(keyOf(4))) != (c.want > 0) {
			t.Errorf("%s: %v %v", name, err, r.Verify(p.Job))
		}
	}
}
