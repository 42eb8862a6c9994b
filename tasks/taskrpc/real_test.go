package taskrpc_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotong/tasks"
	"gotong/tasks/guests"
	"gotong/tasks/sandbox"
	"gotong/tasks/scheduler"
	"gotong/tasks/taskrpc"
	"gotong/tasks/worker"
)

// TestMain lets the test binary be the sandbox child of real workers.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == sandbox.ChildCommand {
		os.Exit(sandbox.ChildMain(os.Args[2:], os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// realRunner is a worker that runs guests.
type realRunner struct {
	*worker.Worker
	slots int
}

func (r realRunner) Engine(tasks.Runtime) string { return "real" }

func (r realRunner) Slots() (int, string)                  { return r.slots, "" }
func (r realRunner) Check(taskrpc.Asker, tasks.Spec) error { return r.Ready() }
func (r realRunner) Do(ctx context.Context, w taskrpc.Work) (tasks.Result, error) {
	return r.Worker.Do(ctx, w.Task)
}
func (r realRunner) Missing(ids []tasks.ContentID) []tasks.ContentID {
	return r.Store().Missing(ids)
}
func (r realRunner) PutContent(ctx context.Context, _ taskrpc.Asker, id tasks.ContentID, size int64, from io.Reader) error {
	return r.Store().Put(ctx, id, size, from)
}
func (r realRunner) OpenContent(id tasks.ContentID) (io.ReadCloser, int64, error) {
	f, size, err := r.Store().Open(id)
	if err != nil {
		return nil, 0, err
	}
	return f, size, nil
}

// newRealRunner starts a worker; it is skipped where guests cannot be confined.
func newRealRunner(t testing.TB, slots int) taskrpc.Runner {
	t.Helper()
	w, err := worker.New(worker.Config{Dir: t.TempDir(), Slots: slots})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-w.Opened()
	if err := w.Ready(); err != nil {
		t.Skip("this machine runs no guests: ", err)
	}
	return realRunner{w, slots}
}

func realJob(contents *fakeRunner, guest string, count int, args func(int) []string) scheduler.Job {
	limits := tasks.DefaultLimits()
	limits.Wall = time.Minute
	return scheduler.Job{
		Header: granted(scheduler.Header{Job: tasks.NewJobID(), Module: contents.add(guests.Module(guest)), Limits: limits}),
		Count:  count, Task: func(i int) scheduler.Part { return scheduler.Part{Args: args(i)} },
	}
}

func TestWordsAreCountedExactlyByRealWorkers(t *testing.T) {
	text := bytes.Repeat([]byte("Neighbours carry one load together, don't they? The the THE xy 12three\n"), 2000)
	contents := newRunner(1)
	job := realJob(contents, guests.Wordcount, 40, func(i int) []string { return []string{"text", fmt.Sprint(i), "40"} })
	job.Inputs = []tasks.Input{{Name: "text", Content: contents.add(text), Size: int64(len(text))}}
	workers := pool{}
	for range 2 {
		w := newWorker(t, newRealRunner(t, 1))
		workers[w.peer] = w.client(t, "a")
	}
	got := map[string]int{}
	sum, err := scheduler.Run(t.Context(), job, scheduler.Config{Pool: workers, Contents: contents}, func(a *scheduler.Accepted) error {
		if a.State != tasks.StateDone {
			return fmt.Errorf("task %d: %s, %s%s", a.Task.Index, a.State, a.Why, a.Stderr)
		}
		for line := range strings.Lines(string(a.Stdout)) {
			var n int
			var word string
			if _, err := fmt.Sscan(line, &n, &word); err != nil {
				return err
			}
			got[word] += n
		}
		return nil
	})
	if err != nil || sum.Done != 40 {
		t.Fatalf("%+v, %v", sum, err)
	}
	if want := countWords(text); !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// countWords counts runs of at least three ASCII letters, in lower case.
func countWords(text []byte) map[string]int {
	counts := map[string]int{}
	for _, word := range bytes.FieldsFunc(bytes.ToLower(text), func(r rune) bool { return r < 'a' || r > 'z' }) {
		if len(word) >= 3 {
			counts[string(word)]++
		}
	}
	return counts
}

func TestLargeOutputsComeBackFromRealWorkers(t *testing.T) {
	contents := newRunner(1)
	line := strings.Repeat("x", 999) + "\n"
	job := realJob(contents, guests.Outfile, 6, func(i int) []string {
		return []string{fmt.Sprintf("deep/%d.txt", i), line, fmt.Sprint(1000 * i)}
	})
	job.Outputs = true
	w := newWorker(t, newRealRunner(t, 2))
	cfg := scheduler.Config{Pool: pool{w.peer: w.client(t, "a")}, Contents: contents, Dir: t.TempDir()}
	sum, err := scheduler.Run(t.Context(), job, cfg, func(a *scheduler.Accepted) error {
		if len(a.Outputs) != 1 || a.Outputs[0].Name != fmt.Sprintf("deep/%d.txt", a.Task.Index) {
			return fmt.Errorf("task %d: %s %s left %v", a.Task.Index, a.State, a.Why, a.Outputs)
		}
		f, err := a.OpenOutput(a.Outputs[0])
		if err != nil {
			return err
		}
		defer f.Close()
		got, err := io.ReadAll(f)
		if err == nil && string(got) != strings.Repeat(line, 1000*a.Task.Index) {
			err = fmt.Errorf("task %d: %d bytes that are not what it wrote", a.Task.Index, len(got))
		}
		return err
	})
	if err != nil || sum.Done != 6 {
		t.Fatalf("%+v, %v", sum, err)
	}
	if left, _ := filepath.Glob(filepath.Join(cfg.Dir, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestHostileGuestsEndWithAStateWhileOthersGoOn(t *testing.T) {
	contents := newRunner(1)
	w := newWorker(t, newRealRunner(t, 2))
	cfg := scheduler.Config{Pool: pool{w.peer: w.client(t, "a")}, Contents: contents}
	for guest, want := range map[string]tasks.State{
		guests.Spin: tasks.StateLimit, guests.Flood: tasks.StateLimit, guests.Hog: tasks.StateLimit,
		guests.Escape: tasks.StateDone, guests.Socket: tasks.StateDone, guests.Fork: tasks.StateFailed,
		guests.Recurse: tasks.StateLimit,
	} {
		t.Run(guest, func(t *testing.T) {
			job := realJob(contents, guest, 1, func(int) []string { return nil })
			job.Limits.MemoryBytes, job.Limits.StdoutBytes = 64<<20, 8<<20
			if guest == guests.Spin {
				job.Limits.Wall = 2 * time.Second
			}
			_, err := scheduler.Run(t.Context(), job, cfg, func(a *scheduler.Accepted) error {
				if a.State != want {
					return fmt.Errorf("%s: %s, %s%s", a.State, a.Why, a.Stdout, a.Stderr)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// BenchmarkSandboxedNoop is BenchmarkNoop with a real sandbox on two slots.
func BenchmarkSandboxedNoop(b *testing.B) {
	contents := newRunner(1)
	w := newWorker(b, newRealRunner(b, 2))
	job := realJob(contents, guests.Noop, b.N, func(int) []string { return nil })
	b.ResetTimer()
	sum, err := scheduler.Run(b.Context(), job, scheduler.Config{Pool: pool{w.peer: w.client(b, "a")}, Contents: contents},
		func(*scheduler.Accepted) error { return nil })
	if err != nil || sum.Done != b.N {
		b.Fatalf("%+v, %v", sum, err)
	}
	b.ReportMetric(float64(b.N)/sum.Elapsed.Seconds(), "tasks/s")
}

// TestTasksSeeTheirOwnFiles gives each task an input and a standard input that no
// other task has.
func TestTasksSeeTheirOwnFiles(t *testing.T) {
	contents := newRunner(1)
	const count = 30
	parts := make([]scheduler.Part, count)
	for i := range parts {
		own, stdin := fmt.Sprintf("file of task %d\n", i), strings.Repeat(fmt.Sprintf("line %d\n", i), 1000)
		parts[i] = scheduler.Part{
			Args:   []string{"common", fmt.Sprintf("/in/dir/%d", i), "-"},
			Inputs: []tasks.Input{{Name: fmt.Sprintf("dir/%d", i), Content: contents.add([]byte(own)), Size: int64(len(own))}},
			Stdin:  contents.add([]byte(stdin)), StdinSize: int64(len(stdin)),
		}
	}
	job := realJob(contents, guests.Cat, count, nil)
	job.Task = func(i int) scheduler.Part { return parts[i] }
	job.Inputs = []tasks.Input{{Name: "common", Content: contents.add([]byte("of all\n")), Size: 7}}
	workers := pool{}
	for range 2 {
		w := newWorker(t, newRealRunner(t, 1))
		workers[w.peer] = w.client(t, "a")
	}
	sum, err := scheduler.Run(t.Context(), job, scheduler.Config{Pool: workers, Contents: contents}, func(a *scheduler.Accepted) error {
		i := a.Task.Index
		want := "of all\n" + fmt.Sprintf("file of task %d\n", i) + strings.Repeat(fmt.Sprintf("line %d\n", i), 1000)
		if a.State != tasks.StateDone || string(a.Stdout) != want {
			return fmt.Errorf("task %d: %s, %s%s; %d bytes, want %d", i, a.State, a.Why, a.Stderr, len(a.Stdout), len(want))
		}
		return nil
	})
	if err != nil || sum.Done != count {
		t.Errorf("%+v, %v", sum, err)
	}
}
