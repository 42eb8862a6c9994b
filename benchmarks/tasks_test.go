package benchmarks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotong/grid/localgrid"
	"gotong/tasks/guests"
)

// The works of the task benchmarks.
const (
	workNoop    = "no-op tasks in C"
	workGo      = "no-op tasks in Go"
	workFirst   = "submit to first result, one task"
	workFirstGo = "submit to first result, one task in Go"
	workCommand = "a command that asks the peer"
	workSpin    = "CPU-bound task"
	workEach    = "one more no-op task in C in a warm worker"
	workRunning = "memory of a running task, anon"
)

const (
	workers     = 2  // friends with one slot each, and processes of xargs
	goShare     = 20 // a Go guest starts so much more slowly that fewer do
	firstTasks  = 5  // latencies measured in each repetition
	spinMillion = 400
	spinLong    = 1000 // long enough to look at
	eachWorker  = 10   // tasks of the shorter of two runs, whose difference is so many times as long
)

const (
	nativeNoop = "int main(void) { return 0; }\n"
	nativeSpin = `#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
  uint64_t steps = argc > 1 ? strtoull(argv[1], 0, 10) * 1000000 : 0;
  uint64_t x = 88172645463325252u;
  for (uint64_t i = 0; i < steps; i++) { x ^= x << 13; x ^= x >> 7; x ^= x << 17; }
  printf("%llu\n", (unsigned long long)x);
  return 0;
}
`
	goNoop = "package main\n\nfunc main() {}\n"
)

// BenchmarkTasks runs tasks on two friends with one slot each and compares with
// xargs -P2 and native programs.
func BenchmarkTasks(b *testing.B) {
	t := run.results.newTable(fmt.Sprintf("Tasks over %d friends with one slot each", workers), map[string]string{
		workNoop: "≥ 5 × xargs", workFirst: "≤ 50 to the first start, warm", workSpin: "≤ 1.6 × native",
	})
	t.note("xargs runs native programs, %d at once, with the same number of items; native is one process. %s: %d tasks; %s: %d.",
		workers, workNoop, run.settings.Tasks, workGo, goTasks())
	t.note("%s: how much longer a run of one worker takes with more tasks, for each of them. %s: of all processes below the workers, while each runs one that computes; native: of one that does the same.", workEach, workRunning)
	grid := newCluster(b, quickGossip, workers, 1)
	bench := &taskBench{table: t, you: grid.you, dir: tempDir(b)}
	if err := bench.prepare(b); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := bench.repeat(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := bench.running(b.Context(), grid.friendPIDs()); errors.Is(err, errNoProc) {
			t.note("%s is not shown: %v.", workRunning, errNoProc)
		} else if err != nil {
			b.Fatal(err)
		}
	}
	t.report(b)
}

func goTasks() int { return max(1, run.settings.Tasks/goShare) }

// taskBench holds the programs of the benchmark: modules and what they are
// compared with; a native program that could not be built is empty.
type taskBench struct {
	*table
	you *localgrid.Peer
	dir string

	noop, spin, goModule             string
	nativeNoop, nativeSpin, nativeGo string
}

// prepare makes the programs and runs each module once, so that it is compiled.
func (t *taskBench) prepare(b *testing.B) error {
	t.noop, t.spin = guest(b, guests.Noop), guest(b, guests.Spin)
	var err error
	if t.goModule, err = t.goBuild("noop.wasm", "GOOS=wasip1", "GOARCH=wasm"); err != nil {
		return err
	}
	if t.nativeGo, err = t.goBuild("gonoop"); err != nil {
		return err
	}
	t.nativeNoop = t.cBuild("noop", nativeNoop)
	t.nativeSpin = t.cBuild("spin", nativeSpin)
	for _, module := range []string{t.noop, t.goModule} {
		if _, err := t.tasks(b.Context(), module, workers*4, workers); err != nil {
			return err
		}
	}
	_, _, err = t.runSpin(b.Context(), 1)
	return err
}

// goBuild builds the Go program that does nothing.
func (t *taskBench) goBuild(name string, env ...string) (string, error) {
	source, path := filepath.Join(t.dir, "noop.go"), filepath.Join(t.dir, name)
	if err := os.WriteFile(source, []byte(goNoop), 0o600); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, source)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	return path, ran(cmd)
}

// cBuild builds a native C program; without a compiler it notes that.
func (t *taskBench) cBuild(name, text string) string {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		compiler, err = exec.LookPath("clang")
	}
	path := filepath.Join(t.dir, name)
	if err == nil {
		err = os.WriteFile(path+".c", []byte(text), 0o600)
	}
	if err == nil {
		err = command(context.Background(), compiler, "-O2", "-o", path, path+".c")
	}
	if err != nil {
		t.note("Not compared with a native %s: %v.", name, err)
		return ""
	}
	return path
}

// repeat does all works once.
func (t *taskBench) repeat(ctx context.Context) error {
	if err := t.rates(ctx, workNoop, t.noop, t.nativeNoop, run.settings.Tasks); err != nil {
		return err
	}
	if err := t.rates(ctx, workGo, t.goModule, t.nativeGo, goTasks()); err != nil {
		return err
	}
	if err := t.each(ctx); err != nil {
		return err
	}
	for range firstTasks {
		if err := t.latencies(ctx); err != nil {
			return err
		}
	}
	own, native, err := t.runSpin(ctx, spinMillion)
	if err != nil {
		return err
	}
	t.add(workSpin, seconds, product, own)
	if native > 0 {
		t.add(workSpin, seconds, "native", native)
	}
	return nil
}

// rates adds the tasks per second of a module and of xargs with a native program.
func (t *taskBench) rates(ctx context.Context, work, module, native string, n int) error {
	took, err := t.tasks(ctx, module, n, workers)
	if err != nil {
		return err
	}
	t.add(work, perSecond, product, float64(n)/took.Seconds())
	if native == "" {
		return nil
	}
	xargs := exec.CommandContext(ctx, "xargs", "-P"+strconv.Itoa(workers), "-n1", native)
	xargs.Stdin = strings.NewReader(strings.Join(items(n), "\n"))
	begin := time.Now()
	if err := ran(xargs); errors.Is(err, exec.ErrNotFound) {
		t.note("Not compared with xargs: %v.", err)
		return nil
	} else if err != nil {
		return err
	}
	t.add(work, perSecond, "xargs", float64(n)/time.Since(begin).Seconds())
	return nil
}

// items are the numbers from 0 to n-1.
func items(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = strconv.Itoa(i)
	}
	return out
}

// runLine is what is needed of a line of "gotong run --json".
type runLine struct {
	Type     string  `json:"type"`
	Done     int     `json:"done"`
	Stdout   string  `json:"stdout"`
	Seconds  float64 `json:"seconds"`
	State    string  `json:"state"`
	ExitCode int     `json:"exit_code"`
}

// each adds what one more task costs a worker that runs such tasks already: the
// start of the command, of the sandbox and of the module are in both runs.
func (t *taskBench) each(ctx context.Context) error {
	few := max(1, run.settings.Tasks/eachWorker)
	short, err := t.tasks(ctx, t.noop, few, 1)
	if err != nil {
		return err
	}
	long, err := t.tasks(ctx, t.noop, few*(eachWorker+1), 1)
	if err != nil {
		return err
	}
	t.add(workEach, millis, product, (long-short).Seconds()*1000/float64(few*eachWorker))
	return nil
}

// running adds the memory that a task takes on its worker while it computes,
// beside that of the native program.
func (t *taskBench) running(ctx context.Context, workerPIDs []int) error {
	long := strconv.Itoa(spinLong)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	// Items are appended to the arguments, and the guest reads the first only.
	go func() {
		ended <- t.you.Lines(ctx, func([]byte) error { return nil }, append([]string{"run", "--no-cache", t.spin, long, ":::"}, items(len(workerPIDs))...)...)
	}()
	sum, err := peakBelow(ended, workerPIDs)
	if err != nil {
		return err
	}
	t.add(workRunning, mebibytes, product, sum/float64(len(workerPIDs)))
	if t.nativeSpin == "" {
		return nil
	}
	native := exec.Command(t.nativeSpin, long)
	if err := native.Start(); err != nil {
		return err
	}
	stop := watch(context.Background(), native.Process.Pid)
	err = native.Wait()
	peaks, _ := stop() // the process is gone at the end, which is an error there
	t.add(workRunning, mebibytes, "native", peaks[0].anonymous)
	return err
}

// tasks runs a module over n items on so many workers and returns how long the
// command took.
func (t *taskBench) tasks(ctx context.Context, module string, n, workers int) (time.Duration, error) {
	var last []byte
	begin := time.Now()
	err := t.you.Lines(ctx, func(line []byte) error {
		last = line
		return nil
	}, append([]string{"run", "--no-cache", "--peers", strconv.Itoa(workers), module, ":::"}, items(n)...)...)
	took := time.Since(begin)
	if err != nil {
		return took, err
	}
	var summary runLine
	if err := json.Unmarshal(last, &summary); err != nil || summary.Done != n {
		return took, fmt.Errorf("%d of %d tasks done: %w", summary.Done, n, err)
	}
	return took, nil
}

// latencies adds how long one task takes from the start of the command to its
// line, and how long any command takes that asks the peer.
func (t *taskBench) latencies(ctx context.Context) error {
	for work, module := range map[string]string{workFirst: t.noop, workFirstGo: t.goModule} {
		if err := t.latency(ctx, work, module); err != nil {
			return err
		}
	}
	begin := time.Now()
	if err := t.you.JSON(ctx, nil, "peers"); err != nil {
		return err
	}
	t.add(workCommand, millis, product, time.Since(begin).Seconds()*1000)
	return nil
}

func (t *taskBench) latency(ctx context.Context, work, module string) error {
	begin := time.Now()
	var first time.Duration
	err := t.you.Lines(ctx, func([]byte) error {
		if first == 0 {
			first = time.Since(begin)
		}
		return nil
	}, "run", "--no-cache", module, ":::", "0")
	if err != nil {
		return err
	}
	t.add(work, millis, product, first.Seconds()*1000)
	return nil
}

// runSpin runs the computing guest once, as measured by the worker, and its
// native like, 0 when there is none. Both must compute the same.
func (t *taskBench) runSpin(ctx context.Context, million int) (own, native float64, err error) {
	var result runLine
	err = t.you.Lines(ctx, func(line []byte) error {
		var l runLine
		err := json.Unmarshal(line, &l)
		if l.Type == "task" {
			result = l
		}
		return err
	}, "run", "--no-cache", t.spin, strconv.Itoa(million))
	if err != nil || t.nativeSpin == "" {
		return result.Seconds, 0, err
	}
	begin := time.Now()
	out, err := exec.CommandContext(ctx, t.nativeSpin, strconv.Itoa(million)).Output()
	native = time.Since(begin).Seconds()
	if err == nil && !bytes.Equal(out, []byte(result.Stdout)) {
		err = fmt.Errorf("the guest computed %q, the native program %q", result.Stdout, out)
	}
	return result.Seconds, native, err
}
