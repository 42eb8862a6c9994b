//go:build unix

package identity

import (
	"fmt"
	"os"
)

// othersMask is every permission of the group and of everybody else.
const othersMask = 0o077

// checkPrivate refuses a file that others may read or write: its key may have
// been copied already, and going on in silence would hide that.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("node key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&othersMask != 0 {
		return fmt.Errorf("%w: %s has mode %04o, want 0600", ErrKeyExposed, path, mode)
	}
	return nil
}
