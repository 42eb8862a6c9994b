package snapshot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync"
	"testing"
	"time"

	"gotong/storage/vault"
)

// peakHeap returns how much the heap grew at most while fn ran.
func peakHeap(fn func()) (bytes uint64) {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(2 * time.Millisecond)
		defer ticker.Stop()
		for {
			metrics.Read(sample)
			bytes = max(bytes, sample[0].Value.Uint64())
			select {
			case <-ticker.C:
			case <-done:
				return
			}
		}
	})
	fn()
	close(done)
	wg.Wait()
	return bytes - min(before, bytes)
}

// manyFiles makes small files in memory, 500 in a directory.
func manyFiles(b *testing.B, count int) string {
	base, err := os.MkdirTemp("/dev/shm", "many")
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(base) })
	src := filepath.Join(base, "src")
	for i := range count {
		dir := fmt.Sprintf("%s/d%d/e%d", src, i/50_000, i/500%100)
		if i%500 == 0 {
			must(b, os.MkdirAll(dir, 0o755))
		}
		must(b, os.WriteFile(fmt.Sprintf("%s/file-%d", dir, i), fmt.Appendf(nil, "content of file %d", i), 0o644))
	}
	return src
}

// BenchmarkManyFiles reports the memory of backups and restores of many small
// files: FILES of them, 100,000 unless it is set. It should not grow with their
// number.
func BenchmarkManyFiles(b *testing.B) {
	count := 100_000
	if n, err := strconv.Atoi(os.Getenv("FILES")); err == nil {
		count = n
	}
	src := manyFiles(b, count)
	v, segments := newVault(b)
	segments.dir = filepath.Dir(src)
	measure := func(name string, fn func()) {
		began := time.Now()
		peak := peakHeap(fn)
		b.Logf("%-18s %9d files %7.1f s %7.1f MiB", name, count, time.Since(began).Seconds(), float64(peak)/(1<<20))
		b.ReportMetric(float64(peak)/(1<<20), name+"-MiB")
	}
	for b.Loop() {
		measure("first", func() { backUp(b, v, src) })
		measure("unchanged", func() { backUp(b, v, src) })
		measure("dry", func() { backUpWith(b, v, BackupOptions{Paths: []string{src}, DryRun: true}) })
		target := filepath.Join(filepath.Dir(src), "restored")
		restore := func(options RestoreOptions) {
			options.Path = src
			_, err := Restore(context.Background(), v, vault.Latest, target, options)
			must(b, err)
		}
		measure("restore", func() { restore(RestoreOptions{}) })
		measure("in-place", func() { restore(RestoreOptions{Delete: true}) })
		measure("verify", func() { restore(RestoreOptions{Compare: CompareTimes, Verify: true}) })
		measure("diff", func() {
			_, err := Diff(context.Background(), v, "latest", "latest", func(Change) error { return nil })
			must(b, err)
		})
		measure("sample", func() {
			_, err := DrawSample(context.Background(), v, "latest", 20, 1)
			must(b, err)
		})
		must(b, os.RemoveAll(target))
	}
}
