package benchmarks

import (
	"bytes"
	"context"
	"fmt"
	"io"
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

const (
	batchWorkers = 6  // friends with one slot each
	batchFew     = 20 // the others start processes: so many times fewer items
)

// BenchmarkBatch runs no-op tasks over one, two and six workers, beside what
// people use on one machine, and a run of very many items.
func BenchmarkBatch(b *testing.B) {
	t := run.results.newTable(fmt.Sprintf("Batches over %d friends with one slot each", batchWorkers), nil)
	t.note("All share the cores of one machine, so more workers do not mean more tasks per second. parallel, xargs and xargs with bubblewrap start a native program for each of a %dth of the items, two at once.", batchFew)
	bench := &taskBench{table: t, you: newCluster(b, quickGossip, batchWorkers, 1).you, dir: tempDir(b)}
	bench.noop, bench.nativeNoop = guest(b, guests.Noop), bench.cBuild("noop", nativeNoop)
	for b.Loop() {
		for _, n := range []int{1, 2, batchWorkers} {
			took, _, err := bench.batch(b.Context(), run.settings.Tasks, "--peers", strconv.Itoa(n))
			if err != nil {
				b.Fatal(err)
			}
			t.add(fmt.Sprintf("no-op tasks, workers: %d", n), perSecond, product, float64(run.settings.Tasks)/took.Seconds())
		}
		if err := bench.others(b.Context(), run.settings.Tasks/batchFew); err != nil {
			b.Fatal(err)
		}
		if err := bench.million(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	t.report(b)
}

// batch runs n no-op tasks and returns how long the command took and its peak
// memory in MiB, 0 where that is not known.
func (t *taskBench) batch(ctx context.Context, n int, flags ...string) (time.Duration, float64, error) {
	path := filepath.Join(t.dir, "items")
	if err := os.WriteFile(path, []byte(strings.Join(items(n), "\n")+"\n"), 0o600); err != nil {
		return 0, 0, err
	}
	args := append(append([]string{"run", "--no-cache"}, flags...), t.noop, "::::", path)
	cmd := t.you.Command(ctx, args...)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &stderr
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	watching, end := context.WithCancel(ctx)
	stop := watch(watching, cmd.Process.Pid)
	err := cmd.Wait()
	took := time.Since(begin)
	end()
	peaks, _ := stop() // the process is gone at the end, which is an error there
	if err != nil {
		err = &localgrid.CommandError{Peer: t.you.Name, Args: args, Code: cmd.ProcessState.ExitCode(), Stderr: stderr.String()}
	}
	return took, peaks[0].total, err
}

// others adds the rates of programs that run tasks as processes here.
func (t *taskBench) others(ctx context.Context, n int) error {
	if t.nativeNoop == "" {
		return nil
	}
	work := fmt.Sprintf("no-op tasks, workers: %d", workers)
	jail := []string{"bwrap", "--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64",
		"--ro-bind", t.nativeNoop, "/noop", "--tmpfs", "/tmp", "/noop"}
	for _, other := range []struct {
		name string
		args []string
	}{
		{"parallel", []string{"parallel", "--will-cite", "-j" + strconv.Itoa(workers), t.nativeNoop}},
		{"xargs", []string{"xargs", "-P" + strconv.Itoa(workers), "-n1", t.nativeNoop}},
		{"xargs + bwrap", append([]string{"xargs", "-P" + strconv.Itoa(workers), "-n1"}, jail...)},
	} {
		if _, err := exec.LookPath(other.args[0]); err != nil || (strings.Contains(other.name, "bwrap") && !installed("bwrap")) {
			t.note("Not compared with %s: it is not installed.", other.name)
			continue
		}
		cmd := exec.CommandContext(ctx, other.args[0], other.args[1:]...)
		cmd.Stdin = strings.NewReader(strings.Join(items(n), "\n") + "\n")
		begin := time.Now()
		if err := ran(cmd); err != nil {
			t.note("Not compared with %s: %v.", other.name, err)
			continue
		}
		t.add(work, perSecond, other.name, float64(n)/time.Since(begin).Seconds())
	}
	return nil
}

func installed(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

// million adds how long a run of very many items takes, and what memory.
func (t *taskBench) million(ctx context.Context) error {
	if err := resetPeak(t.you.PID()); err != nil {
		return err
	}
	took, command, err := t.batch(ctx, run.settings.Items)
	if err != nil {
		return err
	}
	peer, err := memoryOf(t.you.PID())
	if err != nil {
		return err
	}
	work := fmt.Sprintf("a run of %d items", run.settings.Items)
	t.add(work, seconds, product, took.Seconds())
	t.add(work+": memory of the command", mebibytes, product, command)
	t.add(work+": memory of the peer that drives it", mebibytes, product, peer.total)
	return nil
}
