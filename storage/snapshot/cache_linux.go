package snapshot

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropCache makes the next reads of a file come from the disk, as far as the
// system can be told.
func dropCache(f *os.File) {
	if err := f.Sync(); err == nil { // what is not written yet cannot be dropped
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
}
