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

// privileged reports whether an attribute is beyond an ordinary user; none are
// restored here.
func privileged(string) bool { return true }

// canOwn reports whether the user may give an entry its owner, which nobody is
// told here.
func canOwn(*vaultv1.Node) bool { return true }

// sameRights reports whether an entry has the mode that a restore would give it.
func sameRights(have meta, node *vaultv1.Node) bool {
	return have.mode&0o200 == node.Mode&0o200
}

func sameOwner(meta, *vaultv1.Node) bool { return true }

// lstatIn tells about an entry of a directory.
func lstatIn(_ *os.File, root *os.Root, name string) (meta, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return meta{}, err
	}
	return metaOf(info), nil
}

// sourceOf reads an open file as a backup does. The file stays the caller's.
func sourceOf(f *os.File) sourceFile { return pathFile{f} }
