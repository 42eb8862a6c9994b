package worker

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"gotong/tasks"
)

func nativeTask(index int, args ...string) tasks.Task {
	limits := tasks.DefaultLimits()
	limits.MemoryBytes = 64 << 20
	return tasks.Task{
		ID:   tasks.TaskID{Job: tasks.JobID{1}, Index: index},
		Spec: tasks.Spec{Runtime: tasks.RuntimeNative, Args: args, Limits: limits},
	}
}

func TestNativeCommandsAreOptIn(t *testing.T) {
	w := startWorker(t, nil)
	if _, err := w.Do(context.Background(), nativeTask(0, "true")); !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "native") {
		t.Errorf("%v", err)
	}
}

// TestBwrapTasks: commands beside guests, outputs of both sizes, one that this
// machine does not have.
func TestBwrapTasks(t *testing.T) {
	w := startWorker(t, func(c *Config) { c.Native = true })
	if err := w.ReadyNative(); err != nil {
		if os.Getenv("REQUIRE_BWRAP") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	input := put(t, w, []byte("an input"))
	task := nativeTask(0, "sh", "-c", "cat; cp /in/f /out/small; head -c 1000000 /dev/zero >/out/large")
	task.Spec.Inputs = []tasks.Input{{Name: "f", Content: input, Size: 8}}
	task.Spec.Stdin, task.Spec.StdinSize = input, 8
	r, err := w.Do(context.Background(), task)
	if err != nil || r.State != tasks.StateDone || string(r.Stdout) != "an input" || !strings.HasPrefix(r.Engine, "native/linux/") {
		t.Fatalf("%+v, %v", r, err)
	}
	if len(r.Outputs) != 2 || r.Outputs[0].Name != "large" || r.Outputs[0].Inline() || string(r.Outputs[1].Data) != "an input" {
		t.Errorf("%+v", r.Outputs)
	}
	if !w.Store().Has(r.Outputs[0].Content) {
		t.Error("the large output is not held")
	}
	w.Release(task.ID)
	guest := newBatch(t, w, "probe").task("exit", "0")
	if r, err := w.Do(context.Background(), guest); err != nil || r.State != tasks.StateDone {
		t.Errorf("%+v, %v", r, err)
	}
	for _, name := range []string{"no-such-command", "/usr/bin"} {
		if r, err := w.Do(context.Background(), nativeTask(1, name)); !errors.Is(err, tasks.ErrUnfit) || !strings.Contains(err.Error(), name) {
			t.Errorf("%+v, %v", r, err)
		}
	}
	w.Allow(Allowance{Slots: 0, Why: "testing"})
	if _, err := w.Do(context.Background(), nativeTask(2, "true")); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("%v", err)
	}
}
