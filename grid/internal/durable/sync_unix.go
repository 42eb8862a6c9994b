//go:build unix

package durable

import (
	"errors"
	"os"
)

// SyncDir makes the entries of a directory durable: files created, renamed or
// removed in it before the call.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
