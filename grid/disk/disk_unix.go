//go:build linux || darwin || freebsd

package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Lock takes the exclusive lock of an open file without waiting; ErrLocked when
// it is taken. Closing the file or the end of the process gives it back.
func Lock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

// Free returns the bytes that this user may still write below dir.
func Free(dir string) (uint64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, err
	}
	// The count is signed, and below zero for users who may not touch the
	// reserve, on some systems.
	return uint64(max(0, int64(stat.Bavail))) * uint64(stat.Bsize), nil
}

// IsFull reports whether err says that the disk or the user's quota of it is
// used up.
func IsFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// SyncOpenDir makes the entries of an open directory durable: files created,
// renamed or removed in it before the call.
func SyncOpenDir(dir *os.File) error { return dir.Sync() }
