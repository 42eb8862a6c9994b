package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	vaultv1 "gotong/proto/vault/v1"
)

// walkRoots emits the whole tree. It ends early when the session does.
func (b *backup) walkRoots(top *rootTree) {
	if top.backUp {
		b.walkRoot(top)
		return
	}
	b.walkTo(top)
}

// walkTo emits the directories that lead to the roots, with nothing else in
// them.
func (b *backup) walkTo(t *rootTree) {
	for _, child := range t.children {
		if b.ctx.Err() != nil {
			return
		}
		if child.backUp {
			b.walkRoot(child)
			continue
		}
		node := &vaultv1.Node{Name: []byte(child.name), Type: vaultv1.Node_DIRECTORY, Mode: 0o755}
		if dir, err := openSource(child.path); err == nil {
			if m, err := dir.lstat("."); err == nil {
				node = b.node(child.name, m)
			}
			node.Xattrs, _ = dir.ownXattrs() // of a directory that was not asked for
			_ = dir.close()
		}
		b.emit(&item{step: stepEnter, encode: node})
		b.walkTo(child)
		b.emit(&item{step: stepLeave})
	}
}

// walkRoot emits one of the paths to back up.
func (b *backup) walkRoot(t *rootTree) {
	st := beginState(b.v.StateDir(), t.path)
	b.states = append(b.states, st)
	defer b.emit(&item{step: stepFinish, state: st})
	info, err := os.Stat(t.path)
	if err == nil {
		err = b.excluded(t.path)
	}
	if err != nil {
		b.skip(t.path, err)
		return
	}
	if !info.IsDir() {
		b.walkSingle(t, st)
		return
	}
	source, err := openSource(t.path)
	if err != nil {
		b.skip(t.path, err)
		return
	}
	m, err := source.lstat(".")
	if err != nil {
		b.skip(t.path, err)
		_ = source.close()
		return
	}
	dir := newOpenDir(source, t.path)
	defer dir.release()
	if t.name == "" { // "/" itself: its listing is the snapshot's
		b.dirs.Add(1)
		b.walkDir(dir, st, nil, 0)
		return
	}
	b.enter(dir, t.name, m)
	b.walkDir(dir, st, nil, 0)
	b.emit(&item{step: stepLeave})
}

// errExcluded says why a path that was asked for is not backed up.
var errExcluded = errors.New("is left out of every backup")

// excluded returns an error when a path that was asked for is one of those to
// leave out, or in one, by whatever name.
func (b *backup) excluded(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for _, out := range b.options.Exclude {
		if left, err := filepath.EvalSymlinks(out); err == nil {
			out = left
		}
		if below, err := filepath.Rel(out, real); err == nil && filepath.IsLocal(below) {
			return errExcluded
		}
	}
	return nil
}

// walkSingle emits a root that is no directory. A link was followed: the entry
// has the name that was asked for and the content that it leads to.
func (b *backup) walkSingle(t *rootTree, st *state) {
	real, err := filepath.EvalSymlinks(t.path)
	if err != nil {
		b.skip(t.path, err)
		return
	}
	source, err := openSource(filepath.Dir(real))
	if err != nil {
		b.skip(t.path, err)
		return
	}
	dir := newOpenDir(source, filepath.Dir(real))
	defer dir.release()
	b.entry(dir, st, nil, filepath.Base(real), t.name, 0)
}

// walkDir emits all entries of a directory. key is that of the directory.
func (b *backup) walkDir(dir *openDir, st *state, key []byte, depth int) {
	names, err := dir.source.names()
	if err != nil {
		b.skip(dir.path, err)
	}
	slices.Sort(names)
	for _, name := range names {
		if b.ctx.Err() != nil {
			return
		}
		b.entry(dir, st, key, name, name, depth)
	}
}

// entry emits one entry of dir under the name as.
func (b *backup) entry(dir *openDir, st *state, key []byte, name, as string, depth int) {
	if len(b.options.Exclude) > 0 && slices.Contains(b.options.Exclude, dir.join(name)) {
		return
	}
	m, err := dir.source.lstat(name)
	if err == nil {
		key = append(append(bytes.Clone(key), name...), 0)
		switch m.kind {
		case vaultv1.Node_FILE:
			b.file(&item{dir: dir, name: name, as: as, meta: m, key: key, state: st})
			return
		case vaultv1.Node_DIRECTORY:
			err = b.directory(dir, st, key, name, m, depth+1)
		case vaultv1.Node_UNKNOWN: // a socket is made by its program, not restored
			return
		default:
			err = b.special(dir, name, as, m)
		}
	}
	if err != nil && !absent(err) {
		b.skip(dir.join(name), err)
	}
}

// directory emits a directory with all below. When it cannot be opened it is
// there, empty.
func (b *backup) directory(parent *openDir, st *state, key []byte, name string, m meta, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("more than %d directories inside each other", maxDepth)
	}
	source, err := parent.source.openDir(name)
	if absent(err) {
		return err
	}
	if err != nil {
		b.dirs.Add(1)
		b.emit(&item{step: stepEnter, encode: b.node(name, m)})
		b.emit(&item{step: stepLeave})
		return err
	}
	dir := newOpenDir(source, parent.join(name))
	defer dir.release()
	b.enter(dir, name, m)
	b.walkDir(dir, st, key, depth)
	b.emit(&item{step: stepLeave})
	return nil
}

func (b *backup) enter(dir *openDir, name string, m meta) {
	node := b.node(name, m)
	var err error
	if node.Xattrs, err = dir.source.ownXattrs(); err != nil {
		b.skip(dir.path, fmt.Errorf("attributes: %w", err))
	}
	b.dirs.Add(1)
	b.emit(&item{step: stepEnter, encode: node})
}

// special emits links, fifos and devices.
func (b *backup) special(dir *openDir, name, as string, m meta) (err error) {
	node := b.node(as, m)
	if m.kind == vaultv1.Node_SYMLINK {
		target, err := dir.source.readlink(name)
		if err != nil {
			return err
		}
		node.Target = []byte(target)
	}
	if node.Xattrs, err = dir.source.xattrs(name); err != nil {
		return fmt.Errorf("attributes: %w", err)
	}
	it := &item{encode: node}
	if it.node, err = encodeNode(nil, node); err != nil {
		return err
	}
	b.emit(it)
	return nil
}

// node describes an entry, but for what has to be read.
func (b *backup) node(name string, m meta) *vaultv1.Node {
	n := &vaultv1.Node{
		Name: []byte(name), Type: m.kind, Mode: m.mode, Uid: m.uid, Gid: m.gid,
		Mtime: m.mtime, MtimeNanos: uint32(m.mtimeNanos), DeviceMajor: m.major, DeviceMinor: m.minor,
	}
	if m.kind == vaultv1.Node_FILE && m.names > 1 {
		n.Link = &vaultv1.HardLink{Device: b.deviceNumber(m.device), Inode: m.inode, Names: m.names}
	}
	return n
}

// deviceNumber numbers devices as they come: the system's own numbers change
// from boot to boot and would make listings differ.
func (b *backup) deviceNumber(device uint64) uint32 {
	number, ok := b.devices[device]
	if !ok {
		number = uint32(len(b.devices) + 1)
		b.devices[device] = number
	}
	return number
}

// file emits a regular file: as it was when it did not change, else to be read.
func (b *backup) file(it *item) {
	if known, ok := it.state.find(it.key); ok && known.meta == stateOf(it.meta) && b.reuse(it, known) {
		b.files.Add(1)
		b.bytes.Add(uint64(it.meta.size))
		b.emit(it)
		return
	}
	it.encode = b.node(it.as, it.meta)
	it.ready = make(chan struct{})
	it.dir.refs.Add(1)
	if !b.emit(it) {
		it.dir.release()
		return
	}
	select {
	case b.jobs <- it:
	case <-b.ctx.Done():
		it.dir.release()
	}
}

// reuse takes over what is known of an unchanged file, if its blobs are all in
// the vault still.
func (b *backup) reuse(it *item, known stateRecord) bool {
	all, err := b.s.Reuse(known.blobs)
	if err != nil {
		b.log.Debug("index", "err", err)
	}
	if !all {
		return false
	}
	it.blobs, it.known = known.blobs, true
	if it.as == it.name && it.meta.names == 1 {
		it.node = bytes.Clone(known.node)
		return true
	}
	// The name that was asked for, and the number of the device, are of this backup.
	node, rest, err := cutNode(known.node)
	if err != nil || node == nil || len(rest) > 0 || node.Type != vaultv1.Node_FILE {
		return false
	}
	node.Name, node.Link = []byte(it.as), b.node(it.as, it.meta).Link
	it.node, err = encodeNode(nil, node)
	return err == nil
}

// emit hands an item to the listings; false when the session has ended.
func (b *backup) emit(it *item) bool {
	select {
	case b.items <- it:
		return true
	case <-b.ctx.Done():
		return false
	}
}

var errNotRegular = errors.New("is no regular file any more")
