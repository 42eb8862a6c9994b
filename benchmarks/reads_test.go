package benchmarks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The works of the benchmark of reads.
const (
	workMount = "mount to the file's size"
	workRead  = "a random read of 1 MiB"
)

const (
	readBytes  = 1 << 20
	readsAmong = 32 // in each repetition
	mountLimit = 20 * time.Second
)

// mounter is an archiver that can show its backups as a file system.
type mounter interface {
	archiver
	mount(ctx context.Context, dir string) (cmd *exec.Cmd, latest string)
}

var _ = []mounter{(*ourselves)(nil), (*restic)(nil)}

// BenchmarkReads reads pieces of a big file at random places through a mount.
func BenchmarkReads(b *testing.B) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		b.Skip("no FUSE: ", err)
	}
	t := run.results.newTable(fmt.Sprintf("Random reads in a mounted file of %d MiB, %s on %d holders", run.settings.MiB, redundancy, holders), nil)
	t.note("Each repetition reads %d pieces of a new file through a new mount; every piece is a sample, and is compared with the source.", readsAmong)
	_, all := archivers(b, t)
	place := tempDir(b)
	var repetition byte
	for b.Loop() {
		repetition++
		source := filepath.Join(place, fmt.Sprintf("big%d", repetition))
		if err := writeRandomFile(source, repetition, run.settings.MiB); err != nil {
			b.Fatal(err)
		}
		for i := range all {
			m, ok := all[(i+int(repetition))%len(all)].(mounter)
			if !ok {
				continue
			}
			if err := t.reads(b.Context(), m, source, tempDir(b), uint64(repetition)); err != nil {
				b.Fatalf("%s: %v", m.name(), err)
			}
		}
		if err := os.Remove(source); err != nil {
			b.Fatal(err)
		}
	}
	t.report(b)
}

// reads backs up source, mounts the backup at dir and reads pieces of it.
func (t *table) reads(ctx context.Context, m mounter, source, dir string, seed uint64) error {
	if err := errors.Join(m.backup(ctx, source), settle()); err != nil {
		return err
	}
	cmd, latest := m.mount(ctx, dir)
	said := &tail{}
	cmd.Stderr = said
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	err := t.readMounted(ctx, m.name(), source, filepath.Join(latest, source), begin, seed)
	end := cmd.Process.Signal(os.Interrupt)
	if ended := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %w: %s", err, ended, said.text)
	}
	return end
}

// readMounted waits for a file of a mount that began then, and reads pieces of
// it, which must be those of the source.
func (t *table) readMounted(ctx context.Context, name, source, mounted string, begin time.Time, seed uint64) error {
	for {
		_, err := os.Stat(mounted)
		if err == nil {
			break
		}
		if time.Since(begin) > mountLimit || ctx.Err() != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	t.add(workMount, millis, name, time.Since(begin).Seconds()*1000)
	original, err := os.Open(source)
	if err != nil {
		return err
	}
	defer original.Close()
	info, err := original.Stat()
	if err != nil {
		return err
	}
	shown, err := os.Open(mounted)
	if err != nil {
		return err
	}
	defer shown.Close()
	want, got := make([]byte, readBytes), make([]byte, readBytes)
	random := rand.New(rand.NewPCG(seed, 0))
	for range readsAmong {
		at := random.Int64N(info.Size() - readBytes + 1)
		begin := time.Now()
		if _, err := shown.ReadAt(got, at); err != nil {
			return err
		}
		t.add(workRead, millis, name, time.Since(begin).Seconds()*1000)
		if _, err := original.ReadAt(want, at); err != nil {
			return err
		}
		if !bytes.Equal(want, got) {
			return fmt.Errorf("the piece at %d came back different", at)
		}
	}
	return nil
}
