//go:build unix

package node

import (
	"io/fs"
	"os"
	"syscall"
)

// ownedAndPrivate reports whether only this user can enter a directory.
func ownedAndPrivate(info fs.FileInfo) bool {
	sys, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Getuid() && info.Mode().Perm() == 0o700
}
