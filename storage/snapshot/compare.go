package snapshot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"syscall"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/seal"
	"gotong/storage/vault"
)

// comparison says which blobs of a file are in a file of the target, each at
// its place.
type comparison struct {
	same  []bool
	bytes uint64 // of those
	whole bool   // all are, and nothing else
}

func (c *comparison) all() bool      { return c.whole }
func (c *comparison) has(i int) bool { return i < len(c.same) && c.same[i] }

// compare finds out what of a file is in the target already. What cannot be
// read differs.
func (r *restore) compare(dir *destDir, node *vaultv1.Node, have meta) comparison {
	names := uint64(1)
	if node.Link != nil {
		names = node.Link.Names
	}
	if have.kind != vaultv1.Node_FILE || r.options.Compare == CompareNothing {
		return comparison{}
	}
	shared := have.names > names // a name elsewhere must not change with this one
	if r.options.Compare == CompareTimes && !shared && have.size == int64(node.Size) && sameTime(have, node) {
		return comparison{whole: true}
	}
	f, err := dir.openRead(string(node.Name), have)
	if err != nil {
		return comparison{}
	}
	defer func() { _ = f.Close() }() // only read
	var c comparison
	err = r.compareContent(f, node, func(size uint64, same bool) error {
		c.same = append(c.same, same)
		if same {
			c.bytes += size
		}
		return r.ctx.Err()
	})
	if err != nil {
		return comparison{}
	}
	c.whole = !shared && have.size == int64(node.Size) && c.bytes == node.Content.GetSize() && holesAreEmpty(f, node)
	return c
}

// compareContent compares a file with the content of a node, blob by blob, and
// calls fn with the size of each and whether it is there.
func (r *restore) compareContent(f *os.File, node *vaultv1.Node, fn func(size uint64, same bool) error) error {
	content, err := vault.RefOf(node.Content)
	if err != nil {
		return err
	}
	place := cursorOf(node)
	return r.reader.Leaves(content, func(leaf vault.Ref) error {
		if uint64(cap(r.buf)) < leaf.Size {
			r.buf = make([]byte, leaf.Size)
		}
		buf := r.buf[:leaf.Size]
		short := false
		err := place.split(leaf.Size, func(at, from, to uint64) error {
			_, err := f.ReadAt(buf[from:to], int64(at))
			if errors.Is(err, io.EOF) {
				short, err = true, nil
			}
			return err
		})
		if err != nil {
			return err
		}
		return fn(leaf.Size, !short && seal.Hash(buf) == leaf.Hash)
	})
}

func cursorOf(node *vaultv1.Node) extentCursor {
	if node.Sparse {
		return extentCursor{extents: node.Extents}
	}
	return extentCursor{extents: []*vaultv1.Extent{{Length: node.Size}}}
}

// eachRun calls fn with each run of the bytes [offset, offset+size) of a
// content: it is at offset at of the file, and [from, to) of those bytes.
func eachRun(node *vaultv1.Node, offset, size uint64, fn func(at, from, to uint64) error) error {
	if !node.Sparse {
		return fn(offset, 0, size)
	}
	var before, done uint64 // content in the extents so far, and bytes of the run
	for _, e := range node.Extents {
		if done == size {
			break
		}
		if offset+done < before+e.Length {
			n := min(size-done, before+e.Length-offset-done)
			if err := fn(e.Offset+offset+done-before, done, done+n); err != nil {
				return err
			}
			done += n
		}
		before += e.Length
	}
	return nil
}

// holesAreEmpty reports whether a file of the right size has only zeros where
// the node has holes.
func holesAreEmpty(f *os.File, node *vaultv1.Node) bool {
	if !node.Sparse {
		return true
	}
	end := int64(0)
	for _, e := range node.Extents {
		if !onlyZeros(f, end, int64(e.Offset)) {
			return false
		}
		end = int64(e.Offset + e.Length)
	}
	return onlyZeros(f, end, int64(node.Size))
}

func onlyZeros(f *os.File, from, to int64) bool {
	var buf [64 << 10]byte
	source := sourceOf(f)
	for from < to {
		start, end, err := source.seekData(from, to)
		if errors.Is(err, io.EOF) || err == nil && start >= to {
			return true
		}
		if err != nil {
			return false
		}
		for from = start; from < min(end, to); {
			b := buf[:min(int64(len(buf)), min(end, to)-from)]
			if _, err := f.ReadAt(b, from); err != nil {
				return false
			}
			for _, c := range b {
				if c != 0 {
					return false
				}
			}
			from += int64(len(b))
		}
	}
	return true
}

// openRead opens a regular file of the directory for reading, which must be the
// one that was looked up.
func (d *destDir) openRead(name string, want meta) (*os.File, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	m, err := sourceOf(f).stat()
	if err == nil && (m.kind != vaultv1.Node_FILE || m.inode != want.inode || m.device != want.device) {
		err = errOtherFile
	}
	if err != nil {
		_ = f.Close() // only read
		return nil, err
	}
	return f, nil
}

// keepContent leaves a file of the target as it is, but for its metadata.
func (r *restore) keepContent(dir *destDir, node *vaultv1.Node, have meta) {
	at := dir.join(node)
	action, err := dir.fixMetadata(node, have)
	if err != nil {
		r.skip(at, fmt.Errorf("metadata: %w", err))
	}
	r.files.Add(1)
	r.bytes.Add(node.Size)
	r.found.Add(node.Content.GetSize())
	r.owned(node)
	r.did(action, at)
	r.linkEnds(node, nil)
}

// fixMetadata gives a file that has the right content the right metadata.
func (d *destDir) fixMetadata(node *vaultv1.Node, have meta) (action string, err error) {
	name := string(node.Name)
	f, err := d.openRead(name, have)
	if err != nil {
		return ActionUnchanged, err
	}
	defer func() { _ = f.Close() }() // only read
	if metadataFits(f, have, node) {
		return ActionUnchanged, nil
	}
	if d.r.options.DryRun {
		return ActionMetadata, nil
	}
	handle, err := d.file()
	if err != nil {
		return ActionMetadata, err
	}
	return ActionMetadata, finishFile(f, handle, d.root, name, node)
}

// metadataFits reports whether an open file or directory has the metadata that
// a restore would give it.
func metadataFits(f *os.File, have meta, node *vaultv1.Node) bool {
	if !sameTime(have, node) || !sameRights(have, node) {
		return false
	}
	attrs, err := sourceOf(f).xattrs()
	return err == nil && sameXattrs(restorable(attrs), restorable(node.Xattrs))
}

func sameTime(have meta, node *vaultv1.Node) bool {
	return have.mtime == node.Mtime && have.mtimeNanos == int64(node.MtimeNanos)
}

// restorable returns the attributes that a restore sets and removes here.
func restorable(attrs []*vaultv1.Xattr) (out []*vaultv1.Xattr) {
	for _, x := range attrs {
		if ours(string(x.Name)) {
			out = append(out, x)
		}
	}
	return out
}

// ours reports whether an attribute is part of what is backed up, rather than
// something that the system gives each file, such as a security label.
func ours(attr string) bool {
	return !privileged(attr) && attr != "security.selinux"
}

// sameSpecial reports whether a link, fifo or device of the target is as in the
// snapshot.
func (d *destDir) sameSpecial(have meta, node *vaultv1.Node) bool {
	if have.kind != node.Type || !sameTime(have, node) || node.Type != vaultv1.Node_SYMLINK && !sameRights(have, node) ||
		!sameOwner(have, node) || len(node.Xattrs) > 0 || have.major != node.DeviceMajor || have.minor != node.DeviceMinor {
		return false
	}
	if node.Type != vaultv1.Node_SYMLINK {
		return true
	}
	target, err := d.root.Readlink(string(node.Name))
	return err == nil && target == string(node.Target)
}

// linkOf returns the key of a file's names; the zero key when it has one.
func linkOf(node *vaultv1.Node) linkKey {
	if node.Link == nil {
		return linkKey{}
	}
	return keyOf(node.Link)
}

// linkEnds tells the group of a file's names that the file is there, or why not.
func (r *restore) linkEnds(node *vaultv1.Node, err error) {
	if node.Link == nil {
		return
	}
	if group := r.links[keyOf(node.Link)]; group != nil {
		group.finish(r, err)
	}
}

// verify reads what was restored again and compares it with the snapshot.
func (r *restore) verify(node *vaultv1.Node) {
	at := destPlace{dir: newTopDir(r, r.top, false), included: len(r.options.Include) == 0}
	if isDir(node) {
		r.verifyDir(at, node)
		return
	}
	r.verifyEntry(at, node)
}

func (r *restore) verifyDir(at destPlace, node *vaultv1.Node) {
	err := Entries(r.reader, node, func(n *vaultv1.Node) error {
		r.verifyEntry(at, n)
		return r.ctx.Err()
	})
	if err != nil {
		r.skip(at.dir.path, fmt.Errorf("verify: %w", err))
	}
}

// verifyEntry follows the choices of entry.
func (r *restore) verifyEntry(at destPlace, node *vaultv1.Node) {
	rel, some := at.rel+string(node.Name), false
	at.included, some = r.chosen(rel, isDir(node), at.included)
	if !some || checkLocalName(string(node.Name)) != nil {
		return
	}
	switch {
	case isDir(node):
		root, err := at.dir.root.OpenRoot(string(node.Name))
		if err != nil { // reported when it could not be made, or closed by its mode
			if at.included && !errors.Is(err, os.ErrNotExist) {
				r.skip(at.dir.join(node), fmt.Errorf("verify: %w", err))
			}
			return
		}
		child := &destDir{r: r, root: root, path: path.Join(at.dir.path, string(node.Name)), made: true}
		r.verifyDir(destPlace{child, rel + "/", at.included, at.depth + 1}, node)
		child.close()
	case at.included && node.Type == vaultv1.Node_FILE && !r.leftOut(at.dir.join(node)):
		if err := r.verifyFile(at.dir, node); err != nil {
			r.skip(at.dir.join(node), fmt.Errorf("verify: %w", err))
		}
	}
}

func (r *restore) verifyFile(dir *destDir, node *vaultv1.Node) error {
	have, there, err := dir.lookup(string(node.Name))
	if err != nil {
		return err
	}
	if !there || have.kind != vaultv1.Node_FILE {
		return errOtherFile
	}
	if r.options.Overwrite != OverwriteAny && !sameTime(have, node) {
		return nil // it was kept
	}
	f, err := dir.openRead(string(node.Name), have)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	dropCache(f)
	err = r.compareContent(f, node, func(_ uint64, same bool) error {
		if !same {
			return errNotWritten
		}
		return r.ctx.Err()
	})
	if err == nil && (have.size != int64(node.Size) || !holesAreEmpty(f, node)) {
		err = errNotWritten
	}
	if err == nil {
		r.verified++
		r.verifiedBytes += node.Size
	}
	return err
}

// errNotWritten says that the disk gives something else than what was written.
var errNotWritten = errors.New("what is on the disk is not what is in the snapshot")
