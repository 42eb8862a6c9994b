package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile replaces the file at path: temporary file in the same directory,
// write, fsync, close, rename, fsync of the directory. An error of fsync is
// final: the temporary file is removed and nothing is tried again.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, tempPattern(path))
	if err != nil {
		return err
	}
	if err := fill(temp, data, perm); err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return SyncDir(dir)
}

func tempPattern(path string) string { return "." + filepath.Base(path) + ".*.tmp" }

// RemoveTemps deletes what a crash in the middle of WriteFile left beside path.
// Nobody else may be writing that file.
func RemoveTemps(path string) error { return removeMatching(filepath.Dir(path), tempPattern(path)) }

// RemoveAllTemps deletes what crashes in the middle of WriteFile left in a
// directory, which need not exist. Nobody else may be writing files there.
func RemoveAllTemps(dir string) error { return removeMatching(dir, tempPattern("*")) }

func removeMatching(dir, pattern string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if ok, _ := filepath.Match(pattern, entry.Name()); ok { // a bad pattern matches nothing
			err = errors.Join(err, os.Remove(filepath.Join(dir, entry.Name())))
		}
	}
	return err
}

func fill(temp *os.File, data []byte, perm fs.FileMode) error {
	_, err := temp.Write(data)
	if err == nil {
		err = temp.Chmod(perm)
	}
	if err == nil {
		err = temp.Sync()
	}
	return errors.Join(err, temp.Close())
}

// Remove deletes the file and makes the deletion durable.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// ReadFile reads a file that may have at most max bytes; a longer one is an
// error, not a truncated answer.
func ReadFile(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // opened for reading only
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > max {
		return nil, fmt.Errorf("%s: more than %d bytes", path, max)
	}
	return data, nil
}

// SyncDir makes the entries of a directory durable: files created, renamed or
// removed in it before the call.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(SyncOpenDir(d), d.Close())
}
