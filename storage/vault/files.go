package vault

import "gotong/grid/disk"

// files is the one way in which the vault itself writes to disk, besides the
// index; tests put a failing one in its place.
type files interface {
	// writeDurable makes path hold data, all of it or what was there before,
	// and returns once a power cut cannot undo that.
	writeDurable(path string, data []byte) error
}

type diskFiles struct{}

func (diskFiles) writeDurable(path string, data []byte) error {
	return disk.WriteFile(path, data, 0o600)
}
