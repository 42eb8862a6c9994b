package worker

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gotong/tasks"
)

// sandboxes returns the processes that this one started as sandboxes.
func sandboxes(t *testing.T) (pids []int) {
	t.Helper()
	list, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range list {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // the thread ended
		}
		for field := range strings.FieldsSeq(string(b)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestSandboxKilledFromOutside: the task that ran is lost, the others run in a
// new sandbox, and the worker does not notice.
func TestSandboxKilledFromOutside(t *testing.T) {
	w := startWorker(t, func(c *Config) { c.Slots = 1 })
	b := newBatch(t, w, "probe")
	for range 50 { // short tasks make the window wide
		wantDone(t, do(t, w, b.task("exit", "0")))
	}
	results := make(chan tasks.Result, 11)
	for i := range 11 {
		args := []string{"exit", "0"}
		if i == 0 {
			args = []string{"spin"}
		}
		if _, err := w.Submit(b.task(args...), func(r tasks.Result) { results <- r }); err != nil {
			t.Fatal(err)
		}
	}
	pids := sandboxes(t)
	if len(pids) != 1 {
		t.Fatalf("%d sandboxes, want 1", len(pids))
	}
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	lost := 0
	for range 11 {
		r := <-results
		switch {
		case r.State == tasks.StateLost:
			lost++
			t.Log(r.Why)
		case r.State != tasks.StateDone:
			t.Errorf("%+v", r)
		}
	}
	if lost > 1 {
		t.Errorf("%d tasks are lost, want at most the one that ran", lost)
	}
	if got := w.Status().Counts.SandboxesStarted; got != 2 {
		t.Errorf("%d sandboxes were started, want 2", got)
	}
}
