package cli

import (
	"context"
	"crypto/sha256"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
)

// compareTrees compares every entry below want with the one of the same name
// below got: regular files by SHA-256, links by target, others by type. It
// returns how many it compared and the names that differ.
func compareTrees(ctx context.Context, want, got string) (compared int, different []string, err error) {
	var mu sync.Mutex
	differs := func(name string) {
		mu.Lock()
		defer mu.Unlock()
		different = append(different, name)
	}
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(2 * runtime.NumCPU())
	err = filepath.WalkDir(want, func(path string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		name, _ := filepath.Rel(want, path) // below want: cannot fail
		if err != nil {                     // the backup could not read it either
			differs(name)
			return nil
		}
		compared++
		work.Go(func() error {
			if !sameEntry(path, filepath.Join(got, name), entry.Type()) {
				differs(name)
			}
			return nil
		})
		return nil
	})
	if waitErr := work.Wait(); err == nil {
		err = waitErr
	}
	return compared, different, err
}

func sameEntry(want, got string, kind fs.FileMode) bool {
	switch {
	case kind.IsRegular():
		a, errA := fileHash(want)
		b, errB := fileHash(got)
		return errA == nil && errB == nil && a == b
	case kind&fs.ModeSymlink != 0:
		a, errA := os.Readlink(want)
		b, errB := os.Readlink(got)
		return errA == nil && errB == nil && a == b
	}
	info, err := os.Lstat(got)
	return kind&fs.ModeSocket != 0 || err == nil && info.Mode().Type() == kind
}

func fileHash(path string) (sum [sha256.Size]byte, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return sum, err
	}
	if !info.Mode().IsRegular() {
		return sum, fs.ErrInvalid
	}
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
