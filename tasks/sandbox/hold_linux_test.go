package sandbox

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotong/tasks"
)

// processState is the letter of a process's state: T is stopped.
func processState(t testing.TB, pid int) string {
	t.Helper()
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "gone"
	}
	return strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))[0]
}

func waitState(t testing.TB, pid int, want func(string) bool) {
	t.Helper()
	for range 12_000 {
		if want(processState(t, pid)) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("process %d is %q", pid, processState(t, pid))
}

func isStopped(state string) bool { return state == "T" }
func isRunning(state string) bool { return state == "R" || state == "S" }

// TestHeldTimeDoesNotCount: a guest is held beyond its wall time, goes on, and
// then has what is left of it.
func TestHeldTimeDoesNotCount(t *testing.T) {
	const wall = 500 * time.Millisecond
	c := start(t, "probe", func(cfg *Config) { cfg.Limits.Wall = wall })
	out := make(chan Outcome, 1)
	begin := time.Now()
	if _, err := c.Submit(Request{Args: []string{"spin"}}, func(o Outcome) { out <- o }); err != nil {
		t.Fatal(err)
	}
	pid := c.cmd.Process.Pid
	for range 2 {
		if !c.Hold() {
			t.Fatal("not held")
		}
	}
	held := time.Now()
	waitState(t, pid, isStopped)
	select {
	case o := <-out:
		t.Fatalf("%+v while it was held", o)
	case <-time.After(2 * wall):
	}
	pause := time.Since(held)
	c.Resume()
	c.Resume()
	o := <-out
	wantLimit(t, o, tasks.LimitWall)
	if ran := time.Since(begin) - pause; o.Elapsed < wall || o.Elapsed > ran {
		t.Errorf("it ran for %s, limit %s, at most %s", o.Elapsed, wall, ran)
	}
	if c.Hold() {
		t.Error("a child that has ended is held")
	}
	c.Resume()
}

// TestHeldChildFinishes: what a guest had begun it ends after it was held, and the
// time is not its own.
func TestHeldChildFinishes(t *testing.T) {
	c := start(t, "probe", nil)
	if !c.Hold() {
		t.Fatal("not held")
	}
	held := time.Now()
	out := make(chan Outcome, 1)
	if _, err := c.Submit(Request{Args: []string{"echo", "a"}}, func(o Outcome) { out <- o }); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	resumed := time.Now()
	c.Resume()
	o := <-out
	wantDone(t, o)
	if ran := time.Since(resumed); o.Elapsed > ran || string(o.Stdout) != "a\n" {
		t.Errorf("%+v, at most %s after it was held for %s", o, ran, resumed.Sub(held))
	}
}

func TestHeldRunIsAbandoned(t *testing.T) {
	c := start(t, "probe", nil)
	out := make(chan Outcome, 1)
	r, err := c.Submit(Request{Args: []string{"spin"}}, func(o Outcome) { out <- o })
	if err != nil {
		t.Fatal(err)
	}
	c.Hold()
	r.Abandon()
	if o := <-out; o.State != tasks.StateCancelled {
		t.Errorf("%+v", o)
	}
}

func TestHeldChildIsClosed(t *testing.T) {
	c := start(t, "probe", nil)
	c.Hold()
	c.Close()
	if state := processState(t, c.cmd.Process.Pid); state != "gone" {
		t.Errorf("the process is %s", state)
	}
}

// TestHoldStopsWhatTheChildStarted: processes in sessions of their own too.
func TestHoldStopsWhatTheChildStarted(t *testing.T) {
	cmd := exec.Command("sh", "-c", "setsid sleep 60 & sleep 60 & wait")
	setProcess(cmd, isolationNone)
	cmd.SysProcAttr.Pdeathsig = 0 // of this thread, which may end
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	var all []int
	defer func() {
		for _, pid := range all {
			if p, err := os.FindProcess(pid); err == nil {
				p.Kill()
			}
		}
		killGroup(cmd.Process)
		cmd.Wait()
	}()
	for range 12_000 {
		if all = below(cmd.Process.Pid); len(all) == 2 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(all) != 2 {
		t.Fatalf("%v are below", all)
	}
	if !stopProcesses(cmd.Process) {
		t.Fatal("not stopped")
	}
	for _, pid := range append(all, cmd.Process.Pid) {
		waitState(t, pid, isStopped)
	}
	continueProcesses(cmd.Process)
	for _, pid := range append(all, cmd.Process.Pid) {
		waitState(t, pid, isRunning)
	}
}

// TestGivenUpWhileItDies: a run may be given up, and a child closed, while the child
// finds out why its process went. The race detector judges.
func TestGivenUpWhileItDies(t *testing.T) {
	c := &Child{cmd: exec.Command("sleep", "60"), ended: make(chan struct{})}
	setProcess(c.cmd, isolationNone)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	outcomes := make(chan Outcome, 1)
	r := &Run{child: c, done: func(o Outcome) { outcomes <- o }}
	c.runs = []*Run{r}
	c.stdin = slowCloser{func() {
		go r.Abandon()
		go c.kill(causeClosed)
		time.Sleep(50 * time.Millisecond)
	}}
	c.end()
	if o := <-outcomes; o.NotRun || o.State == tasks.StateDone {
		t.Errorf("%+v", o)
	}
}

// slowCloser does something when it is closed.
type slowCloser struct{ do func() }

func (slowCloser) Write(p []byte) (int, error) { return len(p), nil }

func (s slowCloser) Close() error {
	s.do()
	return nil
}
