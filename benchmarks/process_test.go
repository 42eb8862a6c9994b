package benchmarks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// errNoProc: the system has no /proc as Linux has it.
var errNoProc = errors.New("needs the /proc of Linux")

const (
	ticksPerSecond = 100 // of /proc/PID/stat, on every Linux that Go runs on
	samplePeriod   = 10 * time.Millisecond
)

// cpuTime returns the CPU seconds that a process used so far.
func cpuTime(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, errors.Join(errNoProc, err)
	}
	fields := statFields(text)
	const user, system = 11, 12
	if len(fields) <= system {
		return 0, errNoProc
	}
	a, errA := strconv.ParseFloat(fields[user], 64)
	b, errB := strconv.ParseFloat(fields[system], 64)
	return (a + b) / ticksPerSecond, errors.Join(errA, errB)
}

// statFields returns the fields of /proc/PID/stat from the state on. The name
// before it, in parentheses, may hold anything.
func statFields(text []byte) []string {
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// cpuTimes adds up cpuTime of several processes.
func cpuTimes(pids ...int) (float64, error) {
	sum := 0.0
	for _, pid := range pids {
		t, err := cpuTime(pid)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

// memory is what a process occupies, in MiB.
type memory struct {
	anonymous float64 // RssAnon: heap and stacks, without mapped files
	total     float64 // VmRSS, or its peak VmHWM
}

// memoryOf returns the memory of a process now; total is its peak since it
// began or since resetPeak.
func memoryOf(pid int) (memory, error) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	anonymous, errA := kibibytes(procField(path, "RssAnon"))
	total, errT := kibibytes(procField(path, "VmHWM"))
	return memory{anonymous, total}, errors.Join(errA, errT)
}

// kibibytes turns "123 kB" into MiB.
func kibibytes(text string) (float64, error) {
	number, ok := strings.CutSuffix(text, " kB")
	if !ok {
		return 0, errNoProc
	}
	n, err := strconv.ParseFloat(number, 64)
	return n / 1024, err
}

// resetPeak lets the peak of a process begin anew.
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// watch samples the memory of processes until the returned function is called,
// which gives the peak of each.
func watch(ctx context.Context, pids ...int) (stop func() ([]memory, error)) {
	ctx, cancel := context.WithCancel(ctx)
	peaks := make([]memory, len(pids))
	var failed error
	var wait sync.WaitGroup
	wait.Go(func() {
		ticks := time.NewTicker(samplePeriod)
		defer ticks.Stop()
		for {
			for i, pid := range pids {
				m, err := memoryOf(pid)
				failed = errors.Join(failed, err)
				peaks[i].anonymous = max(peaks[i].anonymous, m.anonymous)
				peaks[i].total = max(peaks[i].total, m.total)
			}
			select {
			case <-ctx.Done():
				return
			case <-ticks.C:
			}
			if failed != nil {
				return
			}
		}
	})
	return func() ([]memory, error) {
		cancel()
		wait.Wait()
		return peaks, failed
	}
}

// peakBelow returns the peak of the sum of the anonymous memory, in MiB, of all
// processes below some, until ended gives something.
func peakBelow(ended <-chan error, pids []int) (peak float64, err error) {
	ticks := time.NewTicker(samplePeriod)
	defer ticks.Stop()
	for {
		select {
		case err := <-ended:
			return peak, err
		case <-ticks.C:
		}
		below, err := descendants(pids)
		if err != nil {
			return 0, err
		}
		sum := 0.0
		for _, pid := range below {
			if m, err := memoryOf(pid); err == nil { // else it has ended
				sum += m.anonymous
			}
		}
		peak = max(peak, sum)
	}
}

// descendants returns the processes that others started, and those that these
// started, as they are now.
func descendants(pids []int) (below []int, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		return nil, errNoProc
	}
	children := map[int][]int{}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, errA := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parent, errB := strconv.Atoi(statFields(text)[1])
		if err := errors.Join(errA, errB); err != nil {
			return nil, err
		}
		children[parent] = append(children[parent], pid)
	}
	next := slices.Clone(pids)
	for len(next) > 0 {
		started := children[next[0]]
		below, next = append(below, started...), append(next[1:], started...)
	}
	return below, nil
}
