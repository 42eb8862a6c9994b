package remember

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

var (
	none   = Job{Owner: grid.OwnerID{1}, Engine: "e1"}
	quorum = Job{Owner: grid.OwnerID{1}, Engine: "e1", Verify: tasks.Verify{Mode: tasks.VerifyQuorum, Need: 2, Of: 3}}
	three  = Job{Owner: grid.OwnerID{1}, Engine: "e1", Verify: tasks.Verify{Mode: tasks.VerifyQuorum, Need: 3, Of: 5}}
	trust  = Job{Owner: grid.OwnerID{1}, Engine: "e1", Verify: tasks.Verify{Mode: tasks.VerifyAdaptive}}
)

func open(t *testing.T, dir string, size int64) *Memory {
	t.Helper()
	m, err := Open(Config{Dir: dir, MaxBytes: size})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func result(text string, votes int) *scheduler.Accepted {
	a := &scheduler.Accepted{Result: tasks.Result{
		Task: tasks.TaskID{Job: tasks.JobID{9}}, State: tasks.StateDone, Stdout: []byte(text), Peer: grid.PeerID{7}, Engine: "e1",
	}}
	a.Votes = make([]scheduler.Vote, votes)
	a.Checked = votes > 1
	return a
}

func spec(n int) [32]byte { return tasks.Spec{Args: []string{fmt.Sprint(n)}}.ID() }

func TestResultsAreRememberedAcrossOpenings(t *testing.T) {
	dir := t.TempDir()
	m := open(t, dir, MinBytes)
	for i := range 500 {
		m.Keep(none, spec(i), result(fmt.Sprint("result ", i), 1))
	}
	check := func(m *Memory) {
		t.Helper()
		known := m.Known(none)
		for i := range 500 {
			a := known(spec(i), i)
			if a == nil || string(a.Stdout) != fmt.Sprint("result ", i) || !a.FromCache || a.Peer != (grid.PeerID{7}) || a.Engine != "e1" {
				t.Fatalf("task %d: %+v", i, a)
			}
		}
		if known(spec(500), 500) != nil {
			t.Error("what never ran is known")
		}
	}
	check(m) // not written yet, most of it
	m.Close()
	check(open(t, dir, MinBytes))
}

func TestOnlyEqualWorkOfOneOwnerOnOneEngineIsTheSame(t *testing.T) {
	m := open(t, t.TempDir(), MinBytes)
	m.Keep(none, spec(1), result("x", 1))
	other, engine := none, none
	other.Owner = grid.OwnerID{2}
	engine.Engine = "e2"
	if m.Known(other)(spec(1), 0) != nil || m.Known(engine)(spec(1), 0) != nil || m.Known(none)(spec(2), 0) != nil {
		t.Error("a result serves other work")
	}
	if m.Known(none)(spec(1), 0) == nil {
		t.Error("a result is not known")
	}
}

func TestAWeakerVerificationDoesNotServeAStronger(t *testing.T) {
	jobs := []Job{none, trust, quorum, three}
	for i, c := range []struct {
		job     Job
		votes   int
		serves  int // the first so many of jobs
		checked bool
	}{
		{none, 1, 1, false}, {trust, 1, 2, false}, {trust, 2, 3, true}, {quorum, 2, 3, true}, {three, 3, 4, true},
	} {
		m := open(t, t.TempDir(), MinBytes)
		m.Keep(c.job, spec(i), result("x", c.votes))
		for n, job := range jobs {
			a := m.Known(job)(spec(i), 0)
			if (a != nil) != (n < c.serves) {
				t.Errorf("a result by %s with %d votes for %s: %v", c.job.Verify, c.votes, job.Verify, a != nil)
			}
			if a != nil && a.Checked != c.checked {
				t.Errorf("a result by %s with %d votes is checked: %v", c.job.Verify, c.votes, a.Checked)
			}
		}
	}
}

func TestWhatAnotherRunMayNotGiveIsNotRemembered(t *testing.T) {
	m := open(t, t.TempDir(), MinBytes)
	for i, change := range []func(*scheduler.Accepted){
		func(a *scheduler.Accepted) { a.State, a.Why = tasks.StateLost, "gone" },
		func(a *scheduler.Accepted) { a.State, a.Limit, a.ExitCode = tasks.StateLimit, tasks.LimitWall, -1 },
		func(a *scheduler.Accepted) {
			a.Outputs = []tasks.Output{{Name: "a", Size: 1 << 20, Content: tasks.ContentID{1}}}
		},
		func(a *scheduler.Accepted) { a.FromCache = true },
		func(a *scheduler.Accepted) { a.Peer = grid.PeerID{} },
		func(a *scheduler.Accepted) { a.Stdout = make([]byte, MinBytes/buckets) },
	} {
		a := result("x", 1)
		change(a)
		m.Keep(none, spec(i), a)
		if m.Known(none)(spec(i), 0) != nil {
			t.Errorf("case %d is remembered", i)
		}
	}
	failed := result("x", 1)
	failed.State, failed.ExitCode = tasks.StateFailed, 3
	m.Keep(none, spec(99), failed)
	if a := m.Known(none)(spec(99), 0); a == nil || a.ExitCode != 3 {
		t.Error("a program that fails is not remembered to")
	}
}

func TestWrongResultsAreForgotten(t *testing.T) {
	dir := t.TempDir()
	m := open(t, dir, MinBytes)
	m.Keep(none, spec(1), result("wrong", 1))
	m.flush()
	m.Forget(none, spec(1))
	if m.Known(none)(spec(1), 0) != nil {
		t.Error("it is still known")
	}
	m.Close()
	m = open(t, dir, MinBytes)
	if m.Known(none)(spec(1), 0) != nil {
		t.Error("it is known again")
	}
	m.Keep(none, spec(1), result("right", 1))
	if a := m.Known(none)(spec(1), 0); a == nil || string(a.Stdout) != "right" {
		t.Error("the right one is not known")
	}
}

func TestTheOldestMakeRoom(t *testing.T) {
	dir := t.TempDir()
	m := open(t, dir, MinBytes)
	text := string(bytes.Repeat([]byte("x"), 500))
	const count = 20_000 // 11 MB
	for i := range count {
		m.Keep(none, spec(i), result(fmt.Sprint(i, text), 1))
	}
	m.flush()
	total := int64(0)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		info, _ := e.Info()
		total += info.Size()
	}
	if total > MinBytes || total < MinBytes/3 {
		t.Errorf("%d bytes are taken of %d", total, MinBytes)
	}
	known, first, last := m.Known(none), 0, 0
	for i := range 1000 {
		if known(spec(i), 0) != nil {
			first++
		}
		if known(spec(count-1-i), 0) != nil {
			last++
		}
	}
	if first > 0 || last < 900 {
		t.Errorf("%d of the first thousand are known, %d of the last", first, last)
	}
}

func TestDamageHidesOnlyWhatItHit(t *testing.T) {
	dir := t.TempDir()
	m := open(t, dir, MinBytes)
	m.bucket = 1 << 20 // all in one is fine
	for i := range 300 {
		m.Keep(none, spec(i), result(fmt.Sprint(i), 1))
	}
	m.Close()
	entries, _ := os.ReadDir(dir)
	for i, e := range entries {
		path := filepath.Join(dir, e.Name())
		raw, _ := os.ReadFile(path)
		switch i % 3 {
		case 0: // torn
			raw = raw[:len(raw)-3]
		case 1: // a flipped bit
			raw[len(raw)/2] ^= 1
		case 2: // rubbish behind
			raw = append(raw, 1, 2, 3)
		}
		os.WriteFile(path, raw, 0o600)
	}
	m = open(t, dir, MinBytes)
	known := 0
	for i := range 300 {
		if a := m.Known(none)(spec(i), 0); a != nil {
			if known++; string(a.Stdout) != fmt.Sprint(i) {
				t.Fatalf("task %d gave %q", i, a.Stdout)
			}
		}
	}
	if known < 50 || known == 300 {
		t.Errorf("%d of 300 are known", known)
	}
	for i := range 300 { // what is written now is found, behind what was torn too
		m.Keep(none, spec(i), result(fmt.Sprint("new ", i), 1))
	}
	m.Close()
	m = open(t, dir, MinBytes)
	for i := range 300 {
		if a := m.Known(none)(spec(i), 0); a == nil || string(a.Stdout) != fmt.Sprint("new ", i) {
			t.Fatalf("task %d is not known any more", i)
		}
	}
}

func TestWhatWaitsIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		m := open(t, dir, MinBytes)
		m.Keep(none, spec(1), result("x", 1))
		time.Sleep(2 * flushAfter)
		synctest.Wait()
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("%d buckets", len(entries))
		}
	})
}

func FuzzBucket(f *testing.F) {
	v, _ := appendValue(2, result("x", 2).Result)
	f.Add(appendRecord(appendRecord(nil, none.key(spec(1)), v), none.key(spec(2)), nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		k := none.key(spec(1))
		value, _ := find(b, k)
		if value != nil {
			parseValue(value)
		}
		end := len(b) - len(rest(b))
		got, ok := find(appendRecord(bytes.Clone(b[:end]), k, []byte("new")), k)
		if !ok || string(got) != "new" {
			t.Error("a new record is hidden")
		}
		if kept := newest(b, len(b)); len(kept) > len(b) || len(rest(kept)) > 0 {
			t.Error("what is kept is not whole")
		}
		parseValue(b)
	})
}
