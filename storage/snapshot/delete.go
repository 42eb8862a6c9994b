package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	vaultv1 "gotong/proto/vault/v1"
)

// extras are the names of a directory of the target that the snapshot does not
// have, as far as its listing was read.
type extras struct {
	names []string // by rising bytes
	found []string
}

// met drops a name that the snapshot has; those before it are extra.
func (x *extras) met(name string) {
	for len(x.names) > 0 && x.names[0] <= name {
		if x.names[0] < name {
			x.found = append(x.found, x.names[0])
		}
		x.names = x.names[1:]
	}
}

// extrasOf lists a directory of the target from which things may be removed.
func (r *restore) extrasOf(at destPlace, node *vaultv1.Node) (extras, error) {
	if !r.options.Delete || !node.Whole || !at.included || at.dir.fresh || at.dir.root == nil {
		return extras{}, nil
	}
	f, err := at.dir.root.Open(".")
	if err != nil {
		return extras{}, err
	}
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return extras{names: names}, errors.Join(err, f.Close())
}

// removeExtras removes what the snapshot does not have.
func (r *restore) removeExtras(at destPlace, x extras) {
	for _, name := range append(x.found, x.names...) {
		if r.ctx.Err() != nil {
			return
		}
		if at.dir.path == "" && name == r.notes.name() {
			continue
		}
		m, there, err := at.dir.lookup(name)
		if err == nil && there {
			if m.kind == vaultv1.Node_UNKNOWN || r.exclude.ignores(nil, at.rel+name, m.kind == vaultv1.Node_DIRECTORY) || at.dir.seen[foldName(name)] != "" {
				continue
			}
			err = r.remove(at.dir, name, at.rel+name)
		}
		if err != nil {
			r.skip(path.Join(at.dir.path, name), fmt.Errorf("remove: %w", err))
		}
	}
}

// errProtected says why something is not removed.
var errProtected = errors.New("is never removed")

// errMounted says likewise.
var errMounted = errors.New("another file system is mounted here")

// remove removes an entry with all below, unless something in it must stay.
func (r *restore) remove(dir *destDir, name, rel string) error {
	handle, err := dir.file()
	if err != nil {
		return err
	}
	top, err := lstatIn(handle, dir.root, ".")
	if err != nil {
		return err
	}
	// First look, then remove: half of what is there must not go.
	if err := r.mayRemove(dir.root, name, rel, top.device, 0); err != nil {
		return err
	}
	if !r.options.DryRun {
		if err := removeBelow(dir.root, name, top.device, 0); err != nil {
			return err
		}
	}
	r.did(ActionDeleted, path.Join(dir.path, name))
	return nil
}

// eachName calls fn with the entries of a directory of the target.
func eachName(parent *os.Root, name string, device uint64, depth int, fn func(dir *os.Root, name string) error) error {
	if depth > maxDepth {
		return fmt.Errorf("more than %d directories inside each other", maxDepth)
	}
	dir, err := parent.OpenRoot(name)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // only read
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	m, err := lstatIn(f, dir, ".")
	if err == nil && m.device != device {
		err = errMounted
	}
	var names []string
	if err == nil {
		names, err = f.Readdirnames(-1)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, below := range names {
		if err := fn(dir, below); err != nil {
			return err
		}
	}
	return nil
}

// mayRemove returns an error when something is mounted below an entry, is
// protected, or is to be left alone.
func (r *restore) mayRemove(parent *os.Root, name, rel string, device uint64, depth int) error {
	info, err := parent.Lstat(name)
	if err != nil || !info.IsDir() {
		return err
	}
	if r.isNever(parent, name) {
		return fmt.Errorf("%s %w", rel, errProtected)
	}
	return eachName(parent, name, device, depth, func(dir *os.Root, below string) error {
		return r.mayRemove(dir, below, rel+"/"+below, device, depth+1)
	})
}

// isNever reports whether a directory is one of RestoreOptions.Never.
func (r *restore) isNever(parent *os.Root, name string) bool {
	if len(r.never) == 0 {
		return false
	}
	f, err := parent.Open(name)
	if err != nil {
		return true // what cannot be looked at stays
	}
	defer func() { _ = f.Close() }() // only read
	m, err := lstatIn(f, parent, ".")
	return err != nil || r.never[fileID{m.device, m.inode}]
}

// removeBelow removes an entry with all below.
func removeBelow(parent *os.Root, name string, device uint64, depth int) error {
	err := parent.Remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	info, lerr := parent.Lstat(name)
	if lerr != nil || !info.IsDir() {
		return err
	}
	err = eachName(parent, name, device, depth, func(dir *os.Root, below string) error {
		return removeBelow(dir, below, device, depth+1)
	})
	return errors.Join(err, parent.Remove(name))
}
