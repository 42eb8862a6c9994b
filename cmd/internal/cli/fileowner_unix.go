//go:build !windows

package cli

import (
	"os"
	"syscall"
)

// fileOwner returns the number of the user whose a file is.
func fileOwner(path string) (uint32, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Uid, nil // what os.Stat returns on all such systems
}
