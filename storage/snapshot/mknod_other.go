//go:build !linux

package snapshot

import (
	"errors"
	"fmt"
	"os"

	vaultv1 "gotong/proto/vault/v1"
)

// makeNode says that fifos and devices are not made on this system.
func makeNode(*os.File, string, *vaultv1.Node) error {
	return fmt.Errorf("fifos and devices: %w", errors.ErrUnsupported)
}
