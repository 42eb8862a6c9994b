package jobs

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// runnable makes the module of a plan one that the job has.
func runnable(t *testing.T, p Plan) *Job {
	t.Helper()
	module := []byte("a module")
	for i := range p.Steps {
		p.Steps[i].Module = blake3.Sum256(module)
	}
	_, j := newJob(t, p)
	if err := j.KeepContent(blake3.Sum256(module), strings.NewReader(string(module))); err != nil {
		t.Fatal(err)
	}
	return j
}

// drive drives a job in an epoch of its own.
func driveJob(ctx context.Context, t *testing.T, j *Job, epoch uint64, pool scheduler.Pool) error {
	t.Helper()
	if err := j.Append(&Record{Epoch: epoch, Driver: grid.PeerID{1}, Begun: true}); err != nil {
		t.Fatal(err)
	}
	contents := fakeContents{}
	workers, _ := pool.(fakePool)
	for _, w := range workers {
		if w.store != nil {
			contents = w.store
		}
	}
	return Drive(ctx, DriveConfig{
		Job: j, Self: grid.PeerID{1}, Epoch: epoch, Contents: contents, Dir: t.TempDir(),
		Pool: func(Step) (scheduler.Pool, error) { return pool, nil },
	})
}

func stateOf(j *Job) (state JobState, counts Counts, steps []StepState) {
	j.View(func(s *State) { state, counts, steps = s.State(), s.Counts(), s.StepStates() })
	return state, counts, steps
}

func stdoutOf(t *testing.T, j *Job, index int) string {
	t.Helper()
	r, ok, err := j.Result(index)
	if err != nil || !ok {
		t.Fatalf("result %d: %v %v", index, ok, err)
	}
	if err := r.Verify(j.ID()); err != nil {
		t.Errorf("result %d: %v", index, err)
	}
	out, err := r.Decode()
	if err != nil {
		t.Fatal(err)
	}
	return string(out.Stdout)
}

// echo prints what it sees and leaves a file.
func echo(g guest) tasks.Result {
	var in []string
	for name, data := range g.in {
		in = append(in, name+"="+data)
	}
	slices.Sort(in)
	text := strings.Join(g.args, " ") + "|" + g.stdin + "|" + strings.Join(in, ",")
	return tasks.Result{Stdout: []byte(text), Outputs: []tasks.Output{{Name: "f", Data: []byte("file of " + strings.Join(g.args, " "))}}}
}

func TestStepsFeedEachOther(t *testing.T) {
	p := planOf(t, 3, 3, 1)
	for i := range p.Steps {
		p.Steps[i].Outputs = true
	}
	p.Steps[0].Args = []string{"a-{}"}
	p.Steps[1].Args = []string{"b", "{#}"}
	p.Steps[1].Needs = []Need{{Step: 0, Stdin: true, Files: true}}
	p.Steps[2].Args, p.Steps[2].Items = []string{"all"}, Items{Count: 1}
	p.Steps[2].Needs = []Need{{Step: 1, Stdin: true, Gather: true}, {Step: 0, Files: true, Gather: true}}
	j := runnable(t, p)
	if err := driveJob(t.Context(), t, j, 1, fakePool{newWorker(2, echo), newWorker(3, echo)}); err != nil {
		t.Fatal(err)
	}
	if state, counts, _ := stateOf(j); state != JobDone || counts != (Counts{Tasks: 7, Done: 7}) {
		t.Errorf("%s %+v", state, counts)
	}
	if got, want := stdoutOf(t, j, 4), "b 2|a-item-1|||step-0/f=file of a-item-1"; got != want {
		t.Errorf("second step: %q, want %q", got, want)
	}
	got := stdoutOf(t, j, 6)
	for _, want := range []string{
		"all|b 1|a-item-0|||step-0/f=file of a-item-0b 2|a-item-1",
		"|step-0/0/f=file of a-item-0,step-0/1/f=file of a-item-1,step-0/2/f=file of a-item-2",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("third step: %q lacks %q", got, want)
		}
	}
}

// TestLargeStdoutFeedsSteps: it is the standard input of the task of the same place,
// and of one that gathers, whether workers stored it or the driver keeps it.
func TestLargeStdoutFeedsSteps(t *testing.T) {
	text := strings.Repeat("words ", 500_000)
	for name, store := range map[string]fakeContents{"stored": {}, "kept": nil} {
		t.Run(name, func(t *testing.T) {
			p := planOf(t, 2, 2, 1)
			p.Steps[0].Args = []string{"say", "{}"}
			p.Steps[1].Args, p.Steps[1].Needs = []string{"sum", "{}"}, []Need{{Step: 0, Stdin: true}}
			p.Steps[2].Args, p.Steps[2].Items = []string{"sum"}, Items{Count: 1}
			p.Steps[2].Needs = []Need{{Step: 0, Stdin: true, Gather: true}}
			w := newWorker(2, func(g guest) tasks.Result {
				if g.args[0] == "sum" {
					return tasks.Result{Stdout: fmt.Appendf(nil, "%x", blake3.Sum256([]byte(g.stdin)))}
				}
				return tasks.Result{Stdout: []byte(g.args[1] + text)}
			})
			w.store = store
			j := runnable(t, p)
			if err := driveJob(t.Context(), t, j, 1, fakePool{w}); err != nil {
				t.Fatal(err)
			}
			one, two := "item-0"+text, "item-1"+text
			for i, want := range []string{one, two, one + two} {
				if got := stdoutOf(t, j, 2+i); got != fmt.Sprintf("%x", blake3.Sum256([]byte(want))) {
					t.Errorf("task %d had another standard input", 2+i)
				}
			}
		})
	}
}

// TestDriveGoesOn: a drive that is cut off anywhere is gone on with by the next,
// and every task is accepted once.
func TestDriveGoesOn(t *testing.T) {
	p := planOf(t, 200)
	j := runnable(t, p)
	var ran atomic.Int64
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	run := func(g guest) tasks.Result {
		if ran.Add(1) == 100 {
			cut()
		}
		return echo(g)
	}
	pool := fakePool{newWorker(2, run), newWorker(3, run)}
	if err := driveJob(ctx, t, j, 1, pool); !errors.Is(err, context.Canceled) {
		t.Fatalf("cut off: %v", err)
	}
	state, before, _ := stateOf(j)
	if state != JobRunning || before.Done == 200 {
		t.Fatalf("cut off: %s %+v", state, before)
	}
	hashes := map[int]uint64{}
	j.View(func(s *State) {
		for i, e := range s.tasks {
			if e.stands() {
				hashes[i] = e.hash
			}
		}
	})
	if err := driveJob(t.Context(), t, j, 2, pool); err != nil {
		t.Fatal(err)
	}
	j.View(func(s *State) {
		if s.State() != JobDone || s.Counts().Done != 200 {
			t.Errorf("%s %+v", s.State(), s.Counts())
		}
		for i, hash := range hashes {
			if s.tasks[i].hash != hash {
				t.Errorf("task %d was accepted again", i)
			}
		}
	})
	results := map[int]int{}
	if err := j.Read(0, func(raw []byte, _ int64) error {
		r, err := ParseRecord(raw)
		for _, res := range r.Results {
			results[res.Index]++
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if results[i] != 1 {
			t.Errorf("task %d has %d results in the journal", i, results[i])
		}
	}
}

func TestFailurePolicies(t *testing.T) {
	odd := func(g guest) tasks.Result {
		if strings.HasSuffix(g.args[0], "item-1") {
			return tasks.Result{State: tasks.StateFailed, ExitCode: 3}
		}
		return echo(g)
	}
	for policy, want := range map[OnFailure]struct {
		state JobState
		steps []StepState
	}{
		FailureFinish: {JobFailed, []StepState{StepFailed, StepSkipped}},
		FailureStop:   {JobFailed, []StepState{StepFailed, StepSkipped}},
		FailureIgnore: {JobDone, []StepState{StepDone, StepDone}},
	} {
		t.Run(string(policy), func(t *testing.T) {
			p := planOf(t, 3, 1)
			p.Steps[0].OnFailure = policy
			p.Steps[1].Needs, p.Steps[1].Args = []Need{{Step: 0, Stdin: true, Gather: true}}, []string{"x"}
			j := runnable(t, p)
			pool := fakePool{newWorker(2, odd)}
			if err := driveJob(t.Context(), t, j, 1, pool); err != nil {
				t.Fatal(err)
			}
			if state, counts, steps := stateOf(j); state != want.state || !reflect.DeepEqual(steps, want.steps) {
				t.Errorf("%s %v %+v", state, steps, counts)
			}
			if policy == FailureIgnore {
				if got := stdoutOf(t, j, 3); got != "x item-0|item-0||item-2|||" && !strings.Contains(got, "item-2") || strings.Contains(got, "item-1|") {
					t.Errorf("gathered %q", got)
				}
				return
			}
			var failures []Range
			j.View(func(s *State) { failures = s.Failures() })
			if err := j.Append(&Record{Epoch: 1, Driver: grid.PeerID{1}, Generation: 1, Retried: failures}); err != nil {
				t.Fatal(err)
			}
			good := fakePool{newWorker(4, echo)}
			if err := driveJob(t.Context(), t, j, 2, good); err != nil {
				t.Fatal(err)
			}
			if state, counts, _ := stateOf(j); state != JobDone || counts.Done != 4 {
				t.Errorf("again: %s %+v", state, counts)
			}
		})
	}
}

// TestGatheredFiles: a task takes all files of the tasks of a step, up to a bound
// beyond which the step fails with the reason.
func TestGatheredFiles(t *testing.T) {
	const each = tasks.MaxOutputFiles
	for _, n := range []int{tasks.MaxInputs / each, tasks.MaxInputs/each + 1} {
		p := planOf(t, n, 1)
		p.Steps[0].Outputs, p.Steps[0].Limits.OutputFiles = true, each
		p.Steps[1].Needs = []Need{{Step: 0, Files: true, Gather: true}}
		j := runnable(t, p)
		w := newWorker(2, func(g guest) tasks.Result {
			if len(g.in) > 0 {
				return tasks.Result{Stdout: fmt.Appendf(nil, "%d %s", len(g.in), g.in["step-0/1/4095"])}
			}
			var r tasks.Result
			for i := range each {
				r.Outputs = append(r.Outputs, tasks.Output{Name: fmt.Sprintf("%04d", i), Data: fmt.Appendf(nil, "%s %d", g.args[0], i)})
			}
			return r
		})
		if err := driveJob(t.Context(), t, j, 1, fakePool{w}); err != nil {
			t.Fatal(err)
		}
		state, _, _ := stateOf(j)
		if n*each <= tasks.MaxInputs {
			if got, want := stdoutOf(t, j, n), fmt.Sprintf("%d item-1 4095", n*each); state != JobDone || got != want {
				t.Errorf("%s, %q, want %q", state, got, want)
			}
			continue
		}
		r, ok, err := j.Result(n)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if out, err := r.Decode(); err != nil || state != JobFailed || !strings.Contains(out.Why, strconv.Itoa(tasks.MaxInputs)) {
			t.Errorf("%s %+v %v", state, out, err)
		}
	}
}

func TestFullJournalEndsTheDrive(t *testing.T) {
	p := planOf(t, 20)
	j := runnable(t, p)
	full := errors.New("no space left on device")
	err := Drive(t.Context(), DriveConfig{
		Job: j, Self: grid.PeerID{1}, Epoch: 1, Contents: fakeContents{}, Dir: t.TempDir(),
		Pool:   func(Step) (scheduler.Pool, error) { return fakePool{newWorker(2, echo)}, nil },
		Append: func([][]byte) error { return full },
	})
	if !errors.Is(err, full) {
		t.Fatal(err)
	}
	if _, counts, _ := stateOf(j); counts.Done != 0 {
		t.Errorf("%+v", counts)
	}
}

// TestBytesPerTask: what a job of many small tasks costs on disk and in memory.
func TestBytesPerTask(t *testing.T) {
	const n = 20_000
	p := planOf(t, n)
	_, j := newJob(t, p)
	for from := 0; from < n; from += 250 {
		var indexes []int
		for i := range 250 {
			indexes = append(indexes, from+i)
		}
		if err := j.Append(recordOf(signedResults(t, p, keyOf(2), tasks.StateDone, "ok\n", indexes...)...)); err != nil {
			t.Fatal(err)
		}
	}
	per := float64(j.Length()) / n
	t.Logf("%.1f bytes on disk and %d in memory for a task", per, int(reflect.TypeFor[entry]().Size()))
	if per > 130 {
		t.Errorf("%.1f bytes for a task", per)
	}
}
