package benchmarks

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// idlePeriod is how long peers are watched doing nothing.
const idlePeriod = 10 * time.Second

// BenchmarkMemory watches the memory of one's own peer and of a holder while
// one big file is backed up and restored, and of a peer that does nothing.
func BenchmarkMemory(b *testing.B) {
	for _, mib := range run.settings.Memory {
		b.Run(fmt.Sprintf("random%d", mib), func(b *testing.B) { watchMemory(b, "random", mib, writeRandomFile) })
		b.Run(fmt.Sprintf("sparse%d", mib), func(b *testing.B) { watchMemory(b, "sparse", mib, writeSparse) })
	}
}

func watchMemory(b *testing.B, kind string, mib int, write func(path string, seed byte, mib int) error) {
	if _, err := memoryOf(os.Getpid()); err != nil {
		b.Skip(err)
	}
	t := run.results.newTable(fmt.Sprintf("Memory with one %s file of %d MiB, %s on %d holders", kind, mib, redundancy, holders), memoryGoals)
	bench := &memoryBench{table: t, us: &ourselves{cluster: newCluster(b, defaultGossip, holders, 1)}, place: tempDir(b)}
	t.note("Peaks. anon: RssAnon, sampled every %s; total: VmHWM, which counts mapped files too.", samplePeriod)
	if err := bench.idle(b.Context()); err != nil {
		b.Fatal(err)
	}
	var repetition byte
	for b.Loop() {
		repetition++
		source := filepath.Join(bench.place, fmt.Sprintf("big%d", repetition))
		if err := write(source, repetition, mib); err != nil {
			b.Fatal(err)
		}
		if err := bench.repeat(b.Context(), source); err != nil {
			b.Fatal(err)
		}
	}
	t.report(b)
}

var memoryGoals = map[string]string{
	"anon, backup, own peer":  "≤ 256",
	"anon, restore, own peer": "≤ 256",
	"anon, idle, a holder":    "≤ 60",
	"CPU of an idle holder":   "≤ 0.5",
}

type memoryBench struct {
	*table
	us    *ourselves
	place string
}

// idle measures a holder that has nothing to do.
func (m *memoryBench) idle(ctx context.Context) error {
	pid := m.us.friends[0].PID()
	stop := watch(ctx, pid)
	before, err := cpuTime(pid)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(idlePeriod):
	}
	after, err := cpuTime(pid)
	if err != nil {
		return err
	}
	peaks, err := stop()
	if err != nil {
		return err
	}
	m.add("CPU of an idle holder", percent, product, 100*(after-before)/idlePeriod.Seconds())
	m.addPeak("idle, a holder", peaks[0])
	return nil
}

func (m *memoryBench) addPeak(what string, peak memory) {
	m.add("anon, "+what, mebibytes, product, peak.anonymous)
	m.add("total, "+what, mebibytes, product, peak.total)
}

// repeat backs up, restores, compares, and removes the file.
func (m *memoryBench) repeat(ctx context.Context, source string) error {
	if err := m.watched(ctx, "backup", func() error { return m.us.backup(ctx, source) }); err != nil {
		return err
	}
	target := filepath.Join(m.place, "back")
	if err := m.watched(ctx, "restore", func() error { return m.us.restore(ctx, source, target) }); err != nil {
		return err
	}
	if err := sameTree(source, filepath.Join(target, source)); err != nil {
		return err
	}
	if err := removeTree(target); err != nil {
		return err
	}
	return os.Remove(source)
}

// watched adds the peaks of one's own peer and of a holder during a work, and
// how long it took.
func (m *memoryBench) watched(ctx context.Context, work string, do func() error) error {
	pids := []int{m.us.you.PID(), m.us.friends[0].PID()}
	for _, pid := range pids {
		if err := resetPeak(pid); err != nil {
			m.note("total is the peak since the peer began: %v.", err)
		}
	}
	if err := settle(); err != nil {
		return err
	}
	begin := time.Now()
	stop := watch(ctx, pids...)
	if err := do(); err != nil {
		return err
	}
	took := time.Since(begin)
	peaks, err := stop()
	if err != nil {
		return err
	}
	m.addPeak(work+", own peer", peaks[0])
	m.addPeak(work+", a holder", peaks[1])
	m.add("time of "+work, seconds, product, took.Seconds())
	return nil
}
