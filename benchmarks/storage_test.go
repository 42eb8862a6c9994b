package benchmarks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// The works of the storage benchmarks.
const (
	workBackup  = "backup"
	workAgain   = "backup again, unchanged"
	workRestore = "restore"
	workDegrade = "restore, 2 of 6 holders killed"
	workBack    = "killed holders started again to a complete backup"
	workNear    = "CPU of %s, near"
	workFar     = "CPU of %s, far"
	workAnon    = "anon of %s, near"
	workTotal   = "total of %s, near"
	workIndex   = "index for each blob"
)

// BenchmarkRandom backs up and restores data that nothing can make smaller.
func BenchmarkRandom(b *testing.B) {
	t := run.results.newTable(fmt.Sprintf("%d MiB of random data, %s on %d holders", run.settings.MiB, redundancy, holders), map[string]string{
		workBackup: "≤ 0.6 × restic", workAgain: "≤ 0.25 × restic", workDegrade: "≤ 1.0 × restic",
	})
	storage(b, t, func(dir string, seed byte) error { return writeRandom(dir, seed, run.settings.MiB) })
}

// BenchmarkTree backs up and restores a tree of many small files of text.
func BenchmarkTree(b *testing.B) {
	t := run.results.newTable(fmt.Sprintf("Tree of %d source-like files, %s on %d holders", run.settings.Files, redundancy, holders), map[string]string{
		workBackup: "≤ 0.4 × restic", workAgain: "≤ 0.25 × restic", workDegrade: "≤ 1.0 × restic",
	})
	storage(b, t, func(dir string, seed byte) error { return writeSources(dir, seed, run.settings.Files) })
}

// BenchmarkSmall backs up and restores very many files of a few bytes.
func BenchmarkSmall(b *testing.B) {
	t := run.results.newTable(fmt.Sprintf("%d files of a few bytes, %s on %d holders", run.settings.Small, redundancy, holders), map[string]string{
		fmt.Sprintf(workAnon, workBackup): "≤ 256", fmt.Sprintf(workAnon, workAgain): "≤ 256", fmt.Sprintf(workAnon, workRestore): "≤ 256",
	})
	storage(b, t, func(dir string, seed byte) error { return writeSmall(dir, seed, run.settings.Small) })
}

// trial is one storage benchmark.
type trial struct {
	*table
	us       *ourselves
	all      []archiver
	place    string
	backed   backupSummary // of the newest repetition
	restores int           // so far
}

// storage lets every archiver do every work on the same data, in turn, with
// new data in each repetition.
func storage(b *testing.B, t *table, write func(dir string, seed byte) error) {
	us, all := archivers(b, t)
	t.note("Near is one's own peer, or restic; far are the six holders, or rclone. Peaks of memory, anon: RssAnon, sampled every %s; total: VmHWM. The restore of restic beside the one without two holders has all its data.", samplePeriod)
	trial := &trial{table: t, us: us, all: all, place: tempDir(b)}
	var repetition byte
	for b.Loop() {
		repetition++
		source := filepath.Join(trial.place, fmt.Sprintf("source%d", repetition))
		if err := write(source, repetition); err != nil {
			b.Fatal(err)
		}
		if err := trial.repeat(b.Context(), source, int(repetition)); err != nil {
			b.Fatal(err)
		}
	}
	if err := trial.index(b.Context()); err != nil {
		b.Fatal(err)
	}
	last := trial.backed
	t.note("The last backup: %d files, %.1f MiB, of them %.1f MiB new, stored as %.1f MiB with redundancy.", last.Files,
		float64(last.Bytes)/(1<<20), float64(last.NewBytes)/(1<<20), float64(last.StoredBytes)/(1<<20))
	t.report(b)
}

// repeat does all works once. Who begins changes with the repetition.
func (t *trial) repeat(ctx context.Context, source string, repetition int) error {
	turn := repetition % len(t.all)
	order := slices.Concat(t.all[turn:], t.all[:turn])
	for _, a := range order {
		if _, err := t.metered(ctx, workBackup, a, func() error { return a.backup(ctx, source) }); err != nil {
			return err
		}
	}
	t.backed = t.us.last
	for _, a := range order {
		if _, ok := a.(*copier); ok { // a copy cannot know what is unchanged
			continue
		}
		if _, err := t.metered(ctx, workAgain, a, func() error { return a.backup(ctx, source) }); err != nil {
			return err
		}
	}
	for _, a := range order {
		took, err := t.restored(ctx, workRestore, a, source)
		if err != nil {
			return err
		}
		if a.name() != product {
			t.add(workDegrade, seconds, a.name(), took)
		}
	}
	again, err := t.us.killTwo(repetition)
	if err != nil {
		return err
	}
	if _, err := t.restored(ctx, workDegrade, t.us, source); err != nil {
		return err
	}
	return t.comeBack(ctx, again)
}

// index adds how large the index is.
func (t *trial) index(ctx context.Context) error {
	var stats struct {
		PerBlob float64 `json:"index_bytes_per_blob"`
		Blobs   uint64  `json:"blobs"`
	}
	if err := t.us.you.JSON(ctx, &stats, "stats"); err != nil {
		return err
	}
	t.add(workIndex, plainBytes, product, stats.PerBlob)
	t.note("The index has %d blobs in the end.", stats.Blobs)
	return nil
}

// comeBackLimit is how long friends that are back may be passed over before
// one's own peer is started anew, which remembers nothing against them.
const comeBackLimit = 20 * time.Second

// comeBack starts the killed holders again and waits until a backup of a small
// file is complete on all of them, so that the next repetition finds the grid as
// the first one did.
func (t *trial) comeBack(ctx context.Context, again func(context.Context) error) error {
	begin := time.Now()
	if err := again(ctx); err != nil {
		return err
	}
	probe := filepath.Join(t.place, "probe")
	for n := byte(0); ; n++ {
		if err := os.WriteFile(probe, append([]byte(begin.String()), n), 0o600); err != nil {
			return err
		}
		err := t.us.backup(ctx, probe)
		if err == nil {
			t.add(workBack, seconds, product, time.Since(begin).Seconds())
			return nil
		}
		if !errors.Is(err, errIncomplete) {
			return err
		}
		if time.Since(begin) > comeBackLimit {
			return t.startAnew(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(probePause):
		}
	}
}

// startAnew starts one's own peer anew.
func (t *trial) startAnew(ctx context.Context) error {
	t.note("Backups were still not complete %s after the killed holders were back; one's own peer was started anew, and %q has no sample.", comeBackLimit, workBack)
	if err := t.us.you.Stop(); err != nil {
		return err
	}
	if err := t.us.you.Start(ctx); err != nil {
		return err
	}
	return t.us.WaitAlive(ctx, t.us.you, holders+1)
}

// probePause lies between two probes.
const probePause = 200 * time.Millisecond

// metered adds the seconds that a work takes, with nothing left to write from
// before, and, where the system tells them, its CPU seconds and memory.
func (t *trial) metered(ctx context.Context, work string, a archiver, do func() error) (took float64, err error) {
	if err := settle(); err != nil {
		return 0, err
	}
	stop := func() (usage, error) { return usage{}, errNoProc }
	m, ok := a.(meter)
	if ok {
		begun, err := m.meter(ctx)
		if err == nil {
			stop = begun
		} else if !errors.Is(err, errNoProc) {
			return 0, err
		}
	}
	begin := time.Now()
	if err := do(); err != nil {
		return 0, fmt.Errorf("%s of %s: %w", work, a.name(), err)
	}
	took = time.Since(begin).Seconds()
	t.add(work, seconds, a.name(), took)
	used, err := stop()
	if errors.Is(err, errNoProc) {
		if ok {
			t.note("CPU seconds and memory not shown: %v.", errNoProc)
		}
		return took, nil
	}
	t.add(fmt.Sprintf(workNear, work), cpuSeconds, a.name(), used.near)
	t.add(fmt.Sprintf(workFar, work), cpuSeconds, a.name(), used.far)
	t.add(fmt.Sprintf(workAnon, work), mebibytes, a.name(), used.memory.anonymous)
	t.add(fmt.Sprintf(workTotal, work), mebibytes, a.name(), used.memory.total)
	return took, err
}

// restored measures a restore and compares what came back. Nothing is removed
// before the end: ext4 looks for new inodes among those that were freed in the
// last minutes and passes over each, which cost more than the restore itself.
func (t *trial) restored(ctx context.Context, work string, a archiver, source string) (took float64, err error) {
	t.restores++
	target := filepath.Join(t.place, fmt.Sprintf("back%d", t.restores))
	if took, err = t.metered(ctx, work, a, func() error { return a.restore(ctx, source, target) }); err != nil {
		return 0, err
	}
	if err := sameTree(source, filepath.Join(target, source)); err != nil {
		return 0, fmt.Errorf("restore of %s: %w", a.name(), err)
	}
	return took, nil
}

// settle waits until what was written before is on the disk, so that one
// contender does not pay for another.
func settle() error {
	err := command(context.Background(), "sync")
	if errors.Is(err, exec.ErrNotFound) {
		return nil // nothing is shared with others on such a system that could be waited for
	}
	return err
}
