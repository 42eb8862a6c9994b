package snapshot

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// errNoXattr is what a missing attribute gives.
const errNoXattr = unix.ENODATA

// entryPath names an entry of an open directory to calls that take a path only.
func entryPath(dirfd int, _, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, name)
}
