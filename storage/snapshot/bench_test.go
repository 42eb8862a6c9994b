package snapshot

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

func benchTree(b *testing.B, files int) (dir string, total int64) {
	dir = b.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	word := func() string { return fmt.Sprintf("word%d ", r.IntN(3000)) }
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprintf("d%d", i%97), fmt.Sprintf("e%d", i%13))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		var content []byte
		for size := int(r.ExpFloat64() * 6600); len(content) < size; {
			content = append(content, word()...)
		}
		total += int64(len(content))
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%d", i)), content, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return dir, total
}

const sourceFiles = 15_036

func BenchmarkBackupSourceTree(b *testing.B) {
	dir, total := benchTree(b, sourceFiles)
	b.SetBytes(total)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		v, segments := newVault(b)
		segments.discard = true
		b.StartTimer()
		backUp(b, v, dir)
	}
}

func BenchmarkBackupUnchanged(b *testing.B) {
	dir, total := benchTree(b, sourceFiles)
	v, _ := newVault(b)
	backUp(b, v, dir)
	b.SetBytes(total)
	b.ReportAllocs()
	for b.Loop() {
		if s := backUp(b, v, dir); s.NewBytes > 1000 {
			b.Fatalf("%d new bytes", s.NewBytes)
		}
	}
}

func BenchmarkRestoreSourceTree(b *testing.B) {
	dir, total := benchTree(b, sourceFiles)
	v, _ := newVault(b)
	backUp(b, v, dir)
	b.SetBytes(total)
	b.ReportAllocs()
	for b.Loop() {
		target := restoreAll(b, v, dir)
		b.StopTimer()
		if err := os.RemoveAll(target); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkBackupRandom(b *testing.B) {
	dir := b.TempDir()
	const size = 1 << 30
	f, err := os.Create(filepath.Join(dir, "big"))
	if err != nil {
		b.Fatal(err)
	}
	r := rand.NewChaCha8([32]byte{1})
	buf := make([]byte, 1<<20)
	for range size >> 20 {
		_, _ = r.Read(buf)
		if _, err := f.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		v, segments := newVault(b)
		segments.discard = true
		b.StartTimer()
		if _, err := Backup(context.Background(), v, BackupOptions{Paths: []string{dir}}); err != nil {
			b.Fatal(err)
		}
	}
}
