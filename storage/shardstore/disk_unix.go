//go:build linux || darwin || freebsd

package shardstore

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncDirFile makes the names in an open directory durable.
func syncDirFile(dir *os.File) error { return dir.Sync() }

// freeBytes returns what an ordinary user may still write in the file system of dir.
func freeBytes(dir string) (uint64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, err
	}
	return uint64(max(0, int64(stat.Bavail))) * uint64(stat.Bsize), nil
}

// lockFile takes the lock of an open file without waiting.
func lockFile(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

// noSpace reports whether err says that disk or disk quota is used up.
func noSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
