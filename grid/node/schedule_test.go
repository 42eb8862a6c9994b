package node

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	controlv1 "gotong/proto/control/v1"
)

const hour = time.Hour

// scheduleRun runs a schedule for a while and returns when each set was run.
type scheduleRun struct {
	t    *testing.T
	file string
	sets map[string]SetConfig
	runs map[string][]time.Time
	// outcome, when set, ends a run.
	outcome func(set string) error
	s       *schedule
}

func newScheduleRun(t *testing.T, sets map[string]SetConfig) *scheduleRun {
	return &scheduleRun{t: t, file: filepath.Join(t.TempDir(), "sets"), sets: sets, runs: map[string][]time.Time{}}
}

// during lets the peer run for d. Each call is a start and a stop.
func (r *scheduleRun) during(d time.Duration) {
	r.t.Helper()
	r.s = openSchedule(r.sets, r.file, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(r.t.Context(), d)
	defer cancel()
	err := r.s.run(ctx, func(_ context.Context, set string) error {
		began := time.Now()
		r.runs[set] = append(r.runs[set], began)
		r.s.begin(set)
		var err error
		if r.outcome != nil {
			err = r.outcome(set)
		}
		r.s.end(set, began, "id", err)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestScheduleByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScheduleRun(t, map[string]SetConfig{"a": {Every: Period(6 * hour)}, "by-hand": {}})
		began := time.Now()
		r.during(25 * hour)
		if n := len(r.runs["a"]); n != 5 {
			t.Errorf("%d runs in 25 hours: %v", n, r.runs["a"])
		}
		if first := r.runs["a"][0].Sub(began); first > scheduleSettle+scheduleJitter {
			t.Errorf("the first run came after %v", first)
		}
		for i, at := range r.runs["a"][1:] {
			if gap := at.Sub(r.runs["a"][i]); gap < 6*hour || gap > 6*hour+scheduleJitter {
				t.Errorf("runs %v apart", gap)
			}
		}
		if len(r.runs["by-hand"]) > 0 {
			t.Error("a set without a schedule was run")
		}
	})
}

// TestScheduleCatchesUpOnce: after days without power a set is run once, soon,
// and then at its pace; a restart shortly after a run does not repeat it.
func TestScheduleCatchesUpOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, set := range map[string]SetConfig{"every": {Every: Period(6 * hour)}, "cron": {Cron: "0 */6 * * *"}} {
			r := newScheduleRun(t, map[string]SetConfig{"a": set})
			r.during(7 * hour)
			before := len(r.runs["a"])
			r.during(time.Minute)
			if len(r.runs["a"]) != before {
				t.Errorf("%s: a restart repeated the run", name)
			}
			time.Sleep(100 * hour)
			r.during(10 * time.Minute)
			if n := len(r.runs["a"]) - before; n != 1 {
				t.Errorf("%s: %d runs in the first minutes after 100 hours off", name, n)
			}
			if set.Every > 0 {
				r.during(5 * hour)
				if n := len(r.runs["a"]) - before; n != 1 {
					t.Errorf("%s: %d runs in 5 hours after catching up", name, n)
				}
			}
		}
	})
}

func TestScheduleByCron(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScheduleRun(t, map[string]SetConfig{"a": {Cron: "0 3 * * *"}})
		r.during(72 * hour)
		if len(r.runs["a"]) != 3 {
			t.Fatalf("runs %v", r.runs["a"])
		}
		for _, at := range r.runs["a"] {
			if local := at.Local(); local.Hour() != 3 || local.Minute() > 2 {
				t.Errorf("run at %v", local)
			}
		}
	})
}

// TestScheduleBacksOff: failures are repeated ever more rarely, and one success
// ends that, also after a restart.
func TestScheduleBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScheduleRun(t, map[string]SetConfig{"a": {Every: Period(24 * hour)}})
		r.outcome = func(string) error { return errors.New("no friend is here") }
		r.during(8 * hour)
		runs := r.runs["a"]
		for i := 2; i < len(runs); i++ {
			gap, before := runs[i].Sub(runs[i-1]), runs[i-1].Sub(runs[i-2])
			if gap < before-scheduleJitter || gap > maxRetry+scheduleJitter {
				t.Errorf("tries %v, then %v apart", before, gap)
			}
		}
		if n := len(runs); n < 6 || n > 16 {
			t.Errorf("%d tries in 8 hours", n)
		}
		if v := r.s.view(time.Now()); v[0].failed != "no friend is here" {
			t.Errorf("shown: %+v", v)
		}
		r.during(time.Minute)
		if len(r.runs["a"]) != len(runs) {
			t.Error("a restart forgot the failures")
		}
		r.outcome = nil
		r.during(24 * hour)
		if n := len(r.runs["a"]) - len(runs); n != 1 {
			t.Errorf("%d runs after the failures", n)
		}
		if v := r.s.view(time.Now()); v[0].failed != "" {
			t.Errorf("shown: %+v", v)
		}
	})
}

// TestScheduleWaitsForOthers: while another backup runs a set waits, and that is
// no failure.
func TestScheduleWaitsForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScheduleRun(t, map[string]SetConfig{"a": {Every: Period(24 * hour)}})
		free := time.Now().Add(hour)
		r.outcome = func(string) error {
			if time.Now().Before(free) {
				return &Failure{Kind: controlv1.Kind_KIND_BUSY, What: "another backup is running"}
			}
			return nil
		}
		r.during(20 * hour)
		runs := r.runs["a"]
		if last := runs[len(runs)-1]; last.Before(free) || last.After(free.Add(2*scheduleBusy)) {
			t.Errorf("backed up %v after the other was through", last.Sub(free))
		}
		if state := r.s.states["a"]; state.Failures != 0 || state.Failed != "" {
			t.Errorf("state %+v", state)
		}
	})
}

// TestScheduleInterrupted: a run that the peer's stop cut off is due at the next
// start.
func TestScheduleInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScheduleRun(t, map[string]SetConfig{"a": {Every: Period(24 * hour)}})
		r.outcome = func(string) error { time.Sleep(hour); return context.Canceled }
		r.during(30 * time.Minute)
		r.outcome = nil
		r.during(30 * time.Minute)
		if n := len(r.runs["a"]); n != 2 {
			t.Errorf("%d runs", n)
		}
	})
}

// TestScheduleWrongClock: a last run in the future does not stop a set for years.
func TestScheduleWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, set := range map[string]SetConfig{"every": {Every: Period(6 * hour)}, "cron": {Cron: "0 */6 * * *"}} {
			r := newScheduleRun(t, map[string]SetConfig{"a": set})
			future := time.Now().AddDate(3, 0, 0)
			if err := writeSetStates(r.file, setStates{"a": {FirstSeen: future, Began: future, Tried: future, Failures: 3}}); err != nil {
				t.Fatal(err)
			}
			r.during(13 * hour)
			if n := len(r.runs["a"]); n < 1 {
				t.Errorf("%s: %d runs in 13 hours", name, n)
			}
		}
	})
}

// TestScheduleAfterSleep: the wall clock jumps while the loop waits.
func TestScheduleAfterSleep(t *testing.T) {
	now := time.Now()
	s := &schedule{awake: now.Add(-hour)}
	s.noticeSleep(now, schedulePoll, now.Add(schedulePoll+time.Second))
	if !s.awake.Equal(now.Add(-hour)) {
		t.Error("a late timer was taken for a sleep")
	}
	woke := now.Round(0).Add(8 * hour)
	s.noticeSleep(now, schedulePoll, woke)
	if !s.awake.Equal(woke) {
		t.Error("a sleep of 8 hours was not noticed")
	}
}

func TestScheduleShortIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScheduleRun(t, map[string]SetConfig{"a": {Every: Period(2 * time.Second)}, "b": {Every: Period(3 * time.Second)}})
		r.during(time.Minute)
		if a, b := len(r.runs["a"]), len(r.runs["b"]); a < 27 || b < 18 {
			t.Errorf("%d and %d runs in a minute", a, b)
		}
	})
}

// TestSetStatesDamaged: a damaged file costs the knowledge, not the start, and
// sets that are configured no more are dropped.
func TestSetStatesDamaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScheduleRun(t, map[string]SetConfig{"a": {Every: Period(hour)}, "b": {Every: Period(hour)}})
		if err := os.WriteFile(r.file, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		r.during(30 * time.Minute)
		if len(r.runs) != 2 {
			t.Errorf("runs %v", r.runs)
		}
		delete(r.sets, "b")
		r.during(time.Second)
		states, err := readSetStates(r.file)
		if names := slices.Collect(maps.Keys(states)); err != nil || !slices.Equal(names, []string{"a"}) {
			t.Errorf("kept %v, %v", names, err)
		}
	})
}

func FuzzSetStates(f *testing.F) {
	f.Add([]byte(`{"version":1,"sets":{"a":{"first_seen":"2026-01-02T03:04:05Z","failures":2,"failed":"why"}}}`))
	f.Add([]byte(`{"version":1,"sets":{"a":null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		states, err := parseSetStates(data)
		if err != nil {
			return
		}
		file := filepath.Join(t.TempDir(), "sets")
		if err := writeSetStates(file, states); err != nil {
			return // years beyond 9999 cannot be written
		}
		if again, err := readSetStates(file); err != nil || !reflect.DeepEqual(keys(again), keys(states)) {
			t.Errorf("%v, then %v: %v", states, again, err)
		}
	})
}

func keys(s setStates) []string { return slices.Sorted(maps.Keys(s)) }
