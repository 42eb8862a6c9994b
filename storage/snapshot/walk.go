package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	vaultv1 "gotong/proto/vault/v1"
)

// maxStates bounds how many paths have a state of their own.
const maxStates = 64

// place is where the walk is: a directory below one of the paths.
type place struct {
	dir    *openDir
	key    []byte // of the directory in the state
	rel    string // its path below the backed up one, with a slash behind; "" at the top
	scope  *scope
	filter *filter
	state  *state
	device uint64 // of the backed up path
	depth  int
}

// walkRoots emits the whole tree. It ends early when the session does.
func (b *backup) walkRoots() {
	if b.options.Stdin != nil {
		b.walkStdin(b.roots)
		return
	}
	if b.roots.count() > maxStates {
		for path := b.roots; ; path = path.children[0] {
			if path.backUp || len(path.children) > 1 {
				b.shared = b.beginState("shared by many below " + path.path)
				defer b.emit(&item{step: stepFinish, state: b.shared})
				break
			}
		}
	}
	if b.roots.backUp {
		b.walkRoot(b.roots, nil)
		return
	}
	b.walkTo(b.roots, nil)
}

func (b *backup) beginState(path string) *state {
	if b.counting {
		return nil
	}
	st := beginState(b.v.StateDir(), path, b.options.DryRun)
	b.states = append(b.states, st)
	return st
}

// walkTo emits the directories that lead to the roots, with nothing else in
// them. key is that of t.
func (b *backup) walkTo(t *rootTree, key []byte) {
	for _, child := range t.children {
		if b.ctx.Err() != nil {
			return
		}
		if child.backUp {
			b.walkRoot(child, key)
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
		b.walkTo(child, childKey(key, child.name))
		b.emit(&item{step: stepLeave})
	}
}

func childKey(key []byte, name string) []byte {
	out := make([]byte, 0, len(key)+len(name)+1)
	return append(append(append(out, key...), name...), 0)
}

// walkRoot emits one of the paths to back up; key is that of where it is.
func (b *backup) walkRoot(t *rootTree, key []byte) {
	at := place{key: childKey(key, t.name), state: b.shared}
	if b.shared == nil {
		at.key, at.state = nil, b.beginState(t.path)
		defer b.emit(&item{step: stepFinish, state: at.state})
	}
	if err := b.walkPath(t, at); err != nil {
		b.skip(t.path, err)
	}
}

// walkPath emits what is at a path, or says why not.
func (b *backup) walkPath(t *rootTree, at place) error {
	info, err := os.Stat(t.path)
	if err == nil {
		err = b.neverWanted(t.path)
	}
	if err != nil {
		return err
	}
	filter, err := newFilter(b.options.Exclude, b.lines, t.path)
	if err != nil {
		return err
	}
	at.filter = &filter
	if !info.IsDir() {
		return b.walkSingle(t, at)
	}
	source, err := openSource(t.path)
	if err != nil {
		return err
	}
	m, err := source.lstat(".")
	if err != nil {
		_ = source.close()
		return err
	}
	at.device, at.dir = m.device, newOpenDir(source, t.path)
	defer at.dir.release()
	if t.name == "" { // "/" itself: its listing is the snapshot's
		b.dirs.Add(1)
		b.walkDir(at)
		return nil
	}
	b.enter(at.dir, t.name, m)
	b.emit(&item{step: stepLeave, whole: b.walkDir(at)})
	return nil
}

// errNever says why a path that was asked for is not backed up.
var errNever = errors.New("is left out of every backup")

// neverWanted returns an error when a path that was asked for is one of those to
// leave out, or in one, by whatever name.
func (b *backup) neverWanted(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for _, out := range b.options.Never {
		if left, err := filepath.EvalSymlinks(out); err == nil {
			out = left
		}
		if below, err := filepath.Rel(out, real); err == nil && filepath.IsLocal(below) {
			return errNever
		}
	}
	return nil
}

// fileID tells an entry by whatever name it is met.
type fileID struct{ device, inode uint64 }

// neverIDs returns what is known of the paths that are left out.
func neverIDs(paths []string) map[fileID]bool {
	ids := map[fileID]bool{}
	for _, path := range paths {
		dir, err := openSource(path)
		if err != nil {
			continue
		}
		if m, err := dir.lstat("."); err == nil && m.inode != 0 {
			ids[fileID{m.device, m.inode}] = true
		}
		_ = dir.close()
	}
	return ids
}

// never reports whether an entry is one of those to leave out.
func (b *backup) never(dir *openDir, name string, m meta) bool {
	if len(b.neverIDs) > 0 && m.kind == vaultv1.Node_DIRECTORY && b.neverIDs[fileID{m.device, m.inode}] {
		return true
	}
	for _, out := range b.options.Never {
		if strings.HasSuffix(out, name) && out == dir.join(name) {
			return true
		}
	}
	return false
}

// walkSingle emits a root that is no directory. A link was followed: the entry
// has the name that was asked for and the content that it leads to.
func (b *backup) walkSingle(t *rootTree, at place) error {
	real, err := filepath.EvalSymlinks(t.path)
	if err != nil {
		return err
	}
	source, err := openSource(filepath.Dir(real))
	if err != nil {
		return err
	}
	at.dir = newOpenDir(source, filepath.Dir(real))
	defer at.dir.release()
	m, err := source.lstat(filepath.Base(real))
	if err != nil {
		return err
	}
	at.device = m.device
	at.key = bytes.TrimSuffix(at.key, []byte(t.name+"\x00"))
	b.emitEntry(at, filepath.Base(real), t.name, m)
	return nil
}

// walkDir emits all entries of a directory. It reports whether none was left
// out, so that what the listing does not have was not there.
func (b *backup) walkDir(at place) (whole bool) {
	names, err := at.dir.source.names()
	whole = err == nil
	if err != nil {
		b.skip(at.dir.path, err)
	}
	slices.Sort(names)
	names, left := b.tagged(at.dir, names)
	if left > 0 {
		b.excluded.Add(uint64(left))
		whole = false
	}
	at.scope = b.readScope(at, names)
	for _, name := range names {
		if b.ctx.Err() != nil {
			return false
		}
		if !b.entry(at, name) {
			whole = false
		}
	}
	return whole
}

// entry emits one entry. It reports false when the entry is left out.
func (b *backup) entry(at place, name string) bool {
	m, err := at.dir.source.lstat(name)
	if err != nil {
		if absent(err) {
			return true
		}
		b.skip(at.dir.join(name), err)
		return false
	}
	isDir := m.kind == vaultv1.Node_DIRECTORY
	if b.never(at.dir, name, m) {
		return false
	}
	if (at.scope != nil || !at.filter.empty()) && at.filter.ignores(at.scope, at.rel+name, isDir) ||
		b.options.OneFileSystem && m.device != at.device && !isDir {
		b.excluded.Add(1)
		return false
	}
	return b.emitEntry(at, name, name, m)
}

// emitEntry emits an entry under the name as. It reports false when it could not.
func (b *backup) emitEntry(at place, name, as string, m meta) bool {
	var err error
	switch m.kind {
	case vaultv1.Node_FILE:
		b.file(&item{dir: at.dir, name: name, as: as, meta: m, key: childKey(at.key, as), state: at.state})
	case vaultv1.Node_DIRECTORY:
		err = b.directory(at, name, m)
	case vaultv1.Node_UNKNOWN: // a socket is made by its program, not restored
	default:
		err = b.special(at.dir, name, as, m)
	}
	if err == nil || absent(err) {
		return true
	}
	b.skip(at.dir.join(name), err)
	return false
}

// directory emits a directory with all below. When it cannot be opened it is
// there, empty.
func (b *backup) directory(at place, name string, m meta) error {
	if at.depth++; at.depth > maxDepth {
		return fmt.Errorf("more than %d directories inside each other", maxDepth)
	}
	empty := func() {
		b.dirs.Add(1)
		b.emit(&item{step: stepEnter, encode: b.node(name, m)})
		b.emit(&item{step: stepLeave})
	}
	if b.options.OneFileSystem && m.device != at.device {
		b.excluded.Add(1)
		empty()
		return nil
	}
	source, err := at.dir.source.openDir(name)
	if absent(err) {
		return err
	}
	if err != nil {
		empty()
		return err
	}
	child := newOpenDir(source, at.dir.join(name))
	defer child.release()
	at.key = childKey(at.key, name)
	at.rel += name + "/"
	at.dir = child
	b.enter(child, name, m)
	b.emit(&item{step: stepLeave, whole: b.walkDir(at)})
	return nil
}

func (b *backup) enter(dir *openDir, name string, m meta) {
	b.dirs.Add(1)
	if b.counting {
		return
	}
	node := b.node(name, m)
	var err error
	if node.Xattrs, err = dir.source.ownXattrs(); err != nil {
		b.skip(dir.path, fmt.Errorf("attributes: %w", err))
	}
	b.emit(&item{step: stepEnter, encode: node})
}

// special emits links, fifos and devices.
func (b *backup) special(dir *openDir, name, as string, m meta) (err error) {
	if b.counting {
		return nil
	}
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
	if b.counting {
		b.files.Add(1)
		b.bytes.Add(uint64(it.meta.size))
		return
	}
	known, ok := it.state.find(it.key)
	if ok && known.meta == stateOf(it.meta) && b.reuse(it, known) {
		b.files.Add(1)
		b.bytes.Add(uint64(it.meta.size))
		b.reused.Add(uint64(it.meta.size))
		b.emit(it)
		return
	}
	it.seen = ok
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
	if b.counting {
		return true
	}
	select {
	case b.items <- it:
		return true
	case <-b.ctx.Done():
		return false
	}
}

var errNotRegular = errors.New("is no regular file any more")
