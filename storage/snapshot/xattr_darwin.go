package snapshot

import "golang.org/x/sys/unix"

// errNoXattr is what a missing attribute gives.
const errNoXattr = unix.ENOATTR

// entryPath names an entry of a directory to calls that take a path only.
func entryPath(_ int, dir, name string) string { return dir + "/" + name }
