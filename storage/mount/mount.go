package mount

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Errors of Mount. Test with errors.Is.
var (
	// ErrUnsupported: this system has no FUSE, or it cannot be used here.
	ErrUnsupported = errors.New("mounting is not possible here")
	// ErrPlace: the directory cannot be a mount point.
	ErrPlace = errors.New("is no place to mount at")
	// ErrStale: a mount whose process was killed is still there.
	ErrStale = errors.New("is an old mount that nobody serves any more")
)

// checkPlace makes sure that dir is an empty directory: a mount would hide what
// is in it.
func checkPlace(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s %w: there is no such directory", dir, ErrPlace)
	case errors.Is(err, syscall.ENOTCONN):
		return fmt.Errorf("%s %w: %w", dir, ErrStale, err)
	case err != nil:
		return fmt.Errorf("%s %w: %w", dir, ErrPlace, err)
	case len(entries) > 0:
		return fmt.Errorf("%s %w: it is not empty, and the mount would hide what is in it", dir, ErrPlace)
	}
	return nil
}
