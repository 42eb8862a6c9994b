//go:build !linux && !darwin

package snapshot

import (
	"errors"
	"os"

	vaultv1 "gotong/proto/vault/v1"
)

// finishFile sets the metadata of a file that is written, as far as every
// system has it.
func finishFile(_, _ *os.File, root *os.Root, name string, node *vaultv1.Node) error {
	err := root.Chtimes(name, modTime(node), modTime(node))
	return errors.Join(err, root.Chmod(name, os.FileMode(node.Mode&0o777)))
}

// finishDir sets the mode of a directory whose entries are all there.
func finishDir(f *os.File, node *vaultv1.Node) error { return f.Chmod(os.FileMode(node.Mode & 0o777)) }

// finishSpecial has nothing to set.
func finishSpecial(*os.File, *os.Root, string, *vaultv1.Node) error { return nil }
