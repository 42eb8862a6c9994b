package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gotong/grid/blake3"
	"gotong/tasks"
	"gotong/tasks/guests"
	"gotong/tasks/sandbox"
)

// TestMain lets the test binary be its own sandbox child.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == sandbox.ChildCommand {
		os.Exit(sandbox.ChildMain(os.Args[2:], os.Stdin, os.Stdout))
	}
	goleak.VerifyTestMain(m)
}

// startWorker runs a worker until the test ends.
func startWorker(t testing.TB, change func(*Config)) *Worker {
	t.Helper()
	cfg := Config{Dir: t.TempDir(), Slots: 2}
	if change != nil {
		change(&cfg)
	}
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(filepath.Join(cfg.Dir, slotsDir)); len(left) > 0 {
			t.Errorf("staging directories are left: %v", left)
		}
	})
	<-w.Opened()
	if err := w.Ready(); err != nil {
		t.Fatal(err)
	}
	return w
}

func put(t testing.TB, w *Worker, data []byte) tasks.ContentID {
	t.Helper()
	id := tasks.ContentID(blake3.Sum256(data))
	if err := w.Store().Put(context.Background(), id, int64(len(data)), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return id
}

func module(t testing.TB, w *Worker, name string) tasks.ContentID {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../sandbox/testdata", name+".wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return put(t, w, b)
}

// batch makes tasks of one job.
type batch struct {
	job    tasks.JobID
	module tasks.ContentID
	limits tasks.Limits
	next   int
}

func newBatch(t testing.TB, w *Worker, name string) *batch {
	limits := tasks.DefaultLimits()
	limits.MemoryBytes, limits.StdoutBytes = 32<<20, 8<<20
	return &batch{job: tasks.NewJobID(), module: module(t, w, name), limits: limits}
}

func (b *batch) task(args ...string) tasks.Task {
	b.next++
	return tasks.Task{
		ID:   tasks.TaskID{Job: b.job, Index: b.next - 1},
		Spec: tasks.Spec{Module: b.module, Args: args, Limits: b.limits},
	}
}

func do(t testing.TB, w *Worker, task tasks.Task) tasks.Result {
	t.Helper()
	r, err := w.Do(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	if r.Task != task.ID {
		t.Errorf("result of %s for %s", r.Task.Short(), task.ID.Short())
	}
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
	return r
}

func wantDone(t testing.TB, r tasks.Result) {
	t.Helper()
	if r.State != tasks.StateDone {
		t.Fatalf("state %s: %s; stdout %q; want done", r.State, r.Why, r.Stdout)
	}
}

func TestTasksOfManyJobs(t *testing.T) {
	w := startWorker(t, nil)
	var wg sync.WaitGroup
	for range 3 {
		b := newBatch(t, w, "probe")
		for i := range 30 {
			task := b.task("echo", strconv.Itoa(i))
			wg.Go(func() {
				r := do(t, w, task)
				if got, want := string(r.Stdout), strconv.Itoa(i)+"\n"; got != want || r.State != tasks.StateDone || r.Engine == "" {
					t.Errorf("%+v, want done with %q", r, want)
				}
			})
		}
	}
	wg.Wait()
	st := w.Status()
	if st.Counts.Done != 90 || st.Counts.Accepted != 90 || st.Waiting != 0 || st.Busy != 0 || st.Refusal != "" {
		t.Errorf("%+v", st)
	}
	if st.Counts.SandboxesStarted > 30 {
		t.Errorf("%d sandboxes for 3 jobs on 2 slots", st.Counts.SandboxesStarted)
	}
}

func TestInputsAndOutputs(t *testing.T) {
	w := startWorker(t, nil)
	b := newBatch(t, w, "probe")
	large := bytes.Repeat([]byte("0123456789abcdef"), 10_000)
	task := b.task("cat", "/in/small", "/in/dir/large")
	task.Spec.Inputs = []tasks.Input{
		{Name: "small", Content: put(t, w, []byte("small\n")), Size: 6},
		{Name: "dir/large", Content: put(t, w, large), Size: int64(len(large))},
	}
	r := do(t, w, task)
	wantDone(t, r)
	if want := "small\n" + string(large); string(r.Stdout) != want {
		t.Errorf("%d bytes, want %d", len(r.Stdout), len(want))
	}

	inline := do(t, w, b.task("put", "/out/d/../small", "10"))
	wantDone(t, inline)
	if len(inline.Outputs) != 1 || !inline.Outputs[0].Inline() || inline.Outputs[0].Content != tasks.ContentID(blake3.Sum256(inline.Outputs[0].Data)) {
		t.Errorf("%+v", inline.Outputs)
	}

	spilled := b.task("put", "/out/large", "1000000")
	r = do(t, w, spilled)
	wantDone(t, r)
	out := r.Outputs[0]
	if out.Inline() || out.Size != 1_000_000 {
		t.Fatalf("%s of %d bytes, inline %v", out.Name, out.Size, out.Inline())
	}
	f, size, err := w.Store().Open(out.Content)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil || size != out.Size || tasks.ContentID(blake3.Sum256(data)) != out.Content {
		t.Errorf("%d bytes (%v), want those of the hash", len(data), err)
	}
	w.Release(spilled.ID)

	b = newBatch(t, w, "probe")
	b.module = put(t, w, guests.Module(guests.Flood))
	long := b.task("3000000")
	r = do(t, w, long)
	wantDone(t, r)
	if len(r.Stdout) > 0 || r.LargeStdout == nil || r.LargeStdout.Content != blake3.Sum256(bytes.Repeat([]byte("0123456789"), 300_000)) {
		t.Fatalf("standard output %+v", r.LargeStdout)
	}
	if len(w.held) != 1 || !w.Store().Has(r.LargeStdout.Content) {
		t.Error("the standard output is not held")
	}
	w.Release(long.ID)
	if len(w.held) != 0 {
		t.Error("outputs are held after Release")
	}
}

func TestRefusals(t *testing.T) {
	w := startWorker(t, func(c *Config) { c.Limits.Wall = time.Minute })
	b := newBatch(t, w, "probe")
	b.limits.Wall = time.Minute
	ctx := t.Context()

	missing := b.task("exit", "0")
	missing.Spec.Module[0]++
	missing.Spec.Inputs = []tasks.Input{{Name: "x", Content: tasks.ContentID{1}, Size: 1}}
	_, err := w.Do(ctx, missing)
	if m, ok := errors.AsType[*tasks.MissingContent](err); !ok || !errors.Is(err, tasks.ErrNoContent) || !slices.Equal(m.IDs, missing.Spec.Contents()) {
		t.Errorf("without contents: %v", err)
	}
	long := b.task("exit", "0")
	long.Spec.Limits.Wall++
	if _, err := w.Do(ctx, long); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("above the limits: %v", err)
	}
	invalid := b.task("exit", "0")
	invalid.Spec.Inputs = []tasks.Input{{Name: "../x", Content: b.module}}
	if _, err := w.Do(ctx, invalid); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("an invalid spec: %v", err)
	}
	if got := w.Status().Counts.Refused; got != 3 {
		t.Errorf("%d refused, want 3", got)
	}
}

func TestQueueIsBoundedAndCancelled(t *testing.T) {
	w := startWorker(t, func(c *Config) { c.Slots, c.Queue = 1, 5 })
	b := newBatch(t, w, "probe")
	results := make(chan tasks.Result, 5)
	var cancels []func()
	for range 5 {
		cancel, err := w.Submit(b.task("spin"), func(r tasks.Result) { results <- r })
		if err != nil {
			t.Fatal(err)
		}
		cancels = append(cancels, cancel)
	}
	if _, err := w.Submit(b.task("spin"), func(tasks.Result) {}); !errors.Is(err, tasks.ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	for _, cancel := range slices.Backward(cancels) {
		cancel()
		if r := <-results; r.State != tasks.StateCancelled {
			t.Errorf("%+v, want cancelled", r)
		}
	}
	wantDone(t, do(t, w, b.task("exit", "0")))
}

func TestCancelByContext(t *testing.T) {
	w := startWorker(t, nil)
	b := newBatch(t, w, "probe")
	wantDone(t, do(t, w, b.task("exit", "0")))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	r, err := w.Do(ctx, b.task("spin"))
	if err != nil || r.State != tasks.StateCancelled || time.Since(begin) > time.Minute {
		t.Errorf("%+v, %v after %s, want cancelled", r, err, time.Since(begin))
	}
}

// TestHostileTasksLeaveOthersAlone: each ends by its own limit, and those in the
// same sandboxes are done. Where other programs take the processors an honest one
// may meet its limit of time too; with more of it, it does not.
func TestHostileTasksLeaveOthersAlone(t *testing.T) {
	w := startWorker(t, nil)
	for wall := 2 * time.Second; ; wall *= 4 {
		wrong := amongHostile(t, w, wall)
		if len(wrong) == 0 {
			return
		}
		if wall > time.Minute {
			t.Fatal(wrong)
		}
		t.Log(wall, wrong)
	}
}

// amongHostile runs honest and hostile tasks and says which ended otherwise than
// they should.
func amongHostile(t *testing.T, w *Worker, wall time.Duration) (wrong []string) {
	b := newBatch(t, w, "probe")
	b.limits.Wall = wall
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range 40 {
		mode := "exit"
		if i%10 == 5 {
			mode = []string{"spin", "hog", "flood", "abort"}[i/10]
		}
		task := b.task(mode, "0")
		wg.Go(func() {
			r := do(t, w, task)
			want := map[string]tasks.Limit{"spin": tasks.LimitWall, "hog": tasks.LimitMemory, "flood": tasks.LimitStdout}[mode]
			switch {
			case mode == "exit" && r.State != tasks.StateDone,
				mode == "abort" && r.State != tasks.StateFailed,
				want != "" && (r.State != tasks.StateLimit || r.Limit != want):
				mu.Lock()
				defer mu.Unlock()
				wrong = append(wrong, fmt.Sprintf("%s: %s %s (%s)", mode, r.State, r.Limit, r.Why))
			}
		})
	}
	wg.Wait()
	return wrong
}

// TestModuleThatCannotRun starts one sandbox, not one per task.
func TestModuleThatCannotRun(t *testing.T) {
	w := startWorker(t, func(c *Config) { c.Slots = 1 })
	b := newBatch(t, w, "nostart")
	for range 5 {
		if r := do(t, w, b.task()); r.State != tasks.StateFailed || !strings.Contains(r.Why, "_start") {
			t.Errorf("%+v", r)
		}
	}
}

// TestLongTaskFreesThoseBehindIt: short tasks make the window wide, then one
// hangs with others behind it in the same sandbox; the other slot takes them.
func TestLongTaskFreesThoseBehindIt(t *testing.T) {
	w := startWorker(t, nil)
	b := newBatch(t, w, "probe")
	for range 50 {
		wantDone(t, do(t, w, b.task("exit", "0")))
	}
	spinning := make(chan tasks.Result, 1)
	cancel, err := w.Submit(b.task("spin"), func(r tasks.Result) { spinning <- r })
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 60 {
		task := b.task("exit", "0")
		wg.Go(func() { wantDone(t, do(t, w, task)) })
	}
	wg.Wait()
	cancel()
	if r := <-spinning; r.State != tasks.StateCancelled {
		t.Errorf("%+v", r)
	}
}

func TestStopAnswersEverything(t *testing.T) {
	w, err := New(Config{Dir: t.TempDir(), Slots: 2})
	if err != nil {
		t.Fatal(err)
	}
	b := newBatch(t, w, "probe")
	if _, err := w.Do(t.Context(), b.task("spin")); !errors.Is(err, tasks.ErrStopped) {
		t.Errorf("before Run: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	<-w.Opened()
	const count = 20
	results := make(chan tasks.Result, count)
	for range count {
		if _, err := w.Submit(b.task("spin"), func(r tasks.Result) { results <- r }); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	for range count {
		if r := <-results; r.State != tasks.StateLost {
			t.Errorf("%+v, want lost", r)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := w.Do(t.Context(), b.task("exit", "0")); !errors.Is(err, tasks.ErrStopped) {
		t.Errorf("after Run: %v", err)
	}
}

func TestNoSandboxNoTasks(t *testing.T) {
	w, err := New(Config{Dir: t.TempDir(), Executable: "/bin/true"})
	if err != nil {
		t.Fatal(err)
	}
	b := newBatch(t, w, "probe")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	<-w.Opened()
	if _, err := w.Do(t.Context(), b.task("exit", "0")); !errors.Is(err, tasks.ErrSandbox) {
		t.Errorf("%v, want ErrSandbox", err)
	}
	if w.Status().Refusal == "" {
		t.Error("no reason in the status")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestManyInputs: what many tasks left is before one that gathers it.
func TestManyInputs(t *testing.T) {
	w := startWorker(t, nil)
	b := newBatch(t, w, "probe")
	task := b.task("cat", "/in/map/0/f", "/in/map/2999/f")
	for i := range 3000 {
		data := []byte(strconv.Itoa(i) + "\n")
		task.Spec.Inputs = append(task.Spec.Inputs, tasks.Input{Name: fmt.Sprintf("map/%d/f", i), Content: put(t, w, data), Size: int64(len(data))})
	}
	r := do(t, w, task)
	wantDone(t, r)
	if string(r.Stdout) != "0\n2999\n" {
		t.Errorf("%q", r.Stdout)
	}
}
