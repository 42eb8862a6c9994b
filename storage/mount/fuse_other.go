//go:build !linux

package mount

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
)

// Mounted is a tree that is mounted.
type Mounted struct{}

// Mount mounts the tree at an empty directory.
func Mount(context.Context, *Tree, string, *slog.Logger) (*Mounted, error) {
	return nil, fmt.Errorf("%w: only on Linux, not on %s", ErrUnsupported, runtime.GOOS)
}

// Done is closed when the tree is no longer mounted.
func (m *Mounted) Done() <-chan struct{} { return nil }

// Unmount ends the mount.
func (m *Mounted) Unmount() error { return nil }
