package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"
	"sync/atomic"

	vaultv1 "gotong/proto/vault/v1"
)

// destDir is a directory that is being restored. It is made when something in
// it is wanted. Its metadata is set when nothing in it is pending: writing into
// it would change its times, and its mode may forbid it.
type destDir struct {
	r       *restore
	parent  *destDir
	node    *vaultv1.Node // nil: metadata is left alone
	root    *os.Root      // once it is made; nil in a dry run of what is not there
	path    string        // below the target, with slashes; "" is the target
	pending atomic.Int64

	// The walk's alone.
	made   bool // or found not to be makeable: err
	err    error
	fresh  bool              // was not there before
	action string            // what was done to it
	wanted bool              // not only on the way to what is
	asIs   bool              // keeps the metadata that it has
	seen   map[string]string // names by what the file system takes them for

	noted      sync.Once // that something temporary is made in it
	handleOnce sync.Once
	handle     *os.File
	handleErr  error
}

func newTopDir(r *restore, root *os.Root, fresh bool) *destDir {
	d := &destDir{r: r, root: root, made: true, fresh: fresh}
	d.pending.Store(1)
	return d
}

// child returns a directory in d that is not made yet. One that is not wanted
// itself keeps its metadata if it is there.
func (d *destDir) child(node *vaultv1.Node, wanted bool) *destDir {
	c := &destDir{r: d.r, parent: d, node: node, path: d.join(node), wanted: wanted}
	c.pending.Store(1)
	d.pending.Add(1)
	return c
}

// open makes the directory, and those above, or takes what is there.
func (d *destDir) open() error {
	if !d.made {
		d.made = true
		if d.err = d.parent.open(); d.err == nil {
			d.err = d.make()
		}
	}
	return d.err
}

func (d *destDir) make() error {
	name := string(d.node.Name)
	have, there, err := d.parent.lookup(name)
	if err != nil {
		return err
	}
	if there && have.kind != vaultv1.Node_DIRECTORY {
		if !d.r.options.Delete {
			return errors.New("something else has this name in the target")
		}
		if err := d.r.remove(d.parent, name, d.path); err != nil {
			return err
		}
		there = false
	}
	d.fresh, d.action = !there, ActionNew
	if !there {
		if d.r.options.DryRun {
			return nil
		}
		if err := d.parent.root.Mkdir(name, 0o700); err != nil {
			return err
		}
	} else if have.mode&0o700 != 0o700 && !d.r.options.DryRun {
		_ = d.parent.root.Chmod(name, os.FileMode(have.mode&0o777|0o700)) // an earlier restore closed it; what follows tells whether this worked
	}
	if d.root, err = d.parent.root.OpenRoot(name); err != nil || !there {
		return err
	}
	f, err := d.file()
	if err != nil {
		return err
	}
	switch {
	case !d.wanted || d.r.ways["/"+path.Join(d.r.base, d.path)]:
		d.action, d.asIs = ActionUnchanged, true
	case d.r.keeps(have, d.node):
		d.action, d.asIs = ActionKept, true
	case metadataFits(f, have, d.node):
		d.action = ActionUnchanged
	default:
		d.action = ActionMetadata
	}
	return nil
}

func (d *destDir) join(node *vaultv1.Node) string { return path.Join(d.path, string(node.Name)) }

// claim takes a name of the directory. Its error is ErrCollision.
func (d *destDir) claim(name string) error {
	if !d.r.fold {
		return nil
	}
	key := foldName(name)
	if other := d.seen[key]; other != "" {
		return fmt.Errorf("%w: %q", ErrCollision, other)
	}
	if d.seen == nil {
		d.seen = map[string]string{}
	}
	d.seen[key] = name
	return nil
}

// lookup tells what has a name in the directory.
func (d *destDir) lookup(name string) (m meta, there bool, err error) {
	if d.fresh || d.root == nil {
		return meta{}, false, nil
	}
	f, err := d.file()
	if err != nil {
		return meta{}, false, err
	}
	m, err = lstatIn(f, d.root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return meta{}, false, nil
	}
	return m, err == nil, err
}

// file returns the directory itself, open, for calls on descriptors.
func (d *destDir) file() (*os.File, error) {
	d.handleOnce.Do(func() { d.handle, d.handleErr = d.root.Open(".") })
	return d.handle, d.handleErr
}

// done ends one thing that was pending in the directory. The last one sets its
// metadata and closes it.
func (d *destDir) done() {
	if d.pending.Add(-1) > 0 {
		return
	}
	if d.node != nil && d.made && d.err == nil {
		if !d.r.options.DryRun && !d.asIs {
			if err := d.finish(); err != nil {
				d.r.skip(d.path, fmt.Errorf("metadata: %w", err))
			}
			d.r.owned(d.node)
		}
		d.r.dirs.Add(1)
		if d.parent != nil {
			d.r.did(d.action, d.path)
		}
	}
	if d.parent != nil {
		d.close()
		d.parent.done()
	} else if d.handle != nil {
		_ = d.handle.Close() // only read
	}
}

// finish sets the metadata, unless it is right still.
func (d *destDir) finish() error {
	f, err := d.file()
	if err != nil {
		return err
	}
	if d.action == ActionUnchanged {
		if have, err := lstatIn(f, d.root, "."); err == nil && metadataFits(f, have, d.node) {
			return nil
		}
	}
	return finishDir(f, d.node)
}

// close lets go of the directory.
func (d *destDir) close() {
	if d.handle != nil {
		_ = d.handle.Close() // only read
	}
	if d.root != nil {
		_ = d.root.Close()
	}
}

// owned counts what keeps the owner that it has here.
func (r *restore) owned(node *vaultv1.Node) {
	if !canOwn(node) {
		r.unowned.Add(1)
	}
}

// errMade says that an entry is there, without all its metadata.
var errMade = errors.New("metadata")

// special makes a link, fifo or device. What is there already is replaced,
// unless it is a directory.
func (d *destDir) special(node *vaultv1.Node) error {
	temporary := d.temporary()
	handle, err := d.file()
	if err != nil {
		return err
	}
	if node.Type == vaultv1.Node_SYMLINK {
		err = d.root.Symlink(string(node.Target), temporary)
	} else {
		err = makeNode(handle, temporary, node)
	}
	if err != nil {
		return err
	}
	err = finishSpecial(handle, d.root, temporary, node)
	if renamed := d.root.Rename(temporary, string(node.Name)); renamed != nil {
		return errors.Join(renamed, d.root.Remove(temporary))
	}
	d.r.owned(node)
	if err != nil {
		return fmt.Errorf("%w: %w", errMade, err)
	}
	return nil
}

// temporary returns where an entry of the directory is made before it gets its
// name.
func (d *destDir) temporary() string {
	d.noted.Do(func() { d.r.notes.note(d.path) })
	return d.r.notes.temporary()
}

// destFile is a regular file that is being restored. It is written under a
// temporary name and gets its own once all of it is there.
type destFile struct {
	r         *restore
	dir       *destDir
	node      *vaultv1.Node
	group     *linkGroup // of its other names, or nil
	temporary string
	action    string
	pending   atomic.Int64

	mu  sync.Mutex
	out *os.File
	old *os.File // what had the name before
	err error
}

func newDestFile(r *restore, dir *destDir, node *vaultv1.Node, action string) *destFile {
	f := &destFile{r: r, dir: dir, node: node, temporary: dir.temporary(), action: action}
	if node.Link != nil {
		f.group = r.links[keyOf(node.Link)]
	}
	f.pending.Store(1)
	dir.pending.Add(1)
	return f
}

// open returns the file; the first call makes it.
func (f *destFile) open() (*os.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.out != nil || f.err != nil {
		return f.out, f.err
	}
	out, err := f.dir.root.OpenFile(f.temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	f.out = out
	if f.node.Sparse {
		err = out.Truncate(int64(f.node.Size))
	}
	return out, err
}

// openOld returns the file that has the name; the first call opens it.
func (f *destFile) openOld() (*os.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.old == nil && f.err == nil {
		have, there, err := f.dir.lookup(string(f.node.Name))
		if err == nil && !there {
			err = errOtherFile
		}
		if err == nil {
			f.old, err = f.dir.openRead(string(f.node.Name), have)
		}
		if err != nil {
			return nil, err
		}
	}
	return f.old, f.err
}

// writeAt writes content to where it belongs in the file.
func (f *destFile) writeAt(out *os.File, content []byte, offset uint64) error {
	return eachRun(f.node, offset, uint64(len(content)), func(at, from, to uint64) error {
		if f.node.Sparse {
			return writeHoles(out, content[from:to], int64(at))
		}
		_, err := out.WriteAt(content[from:to], int64(at))
		return err
	})
}

// holeBytes is the shortest run of zeros, at a multiple of it, that becomes a
// hole again in a file that had some.
const holeBytes = 4096

var zeros [holeBytes]byte

// writeHoles writes content at an offset and leaves out blocks of zeros.
func writeHoles(out *os.File, content []byte, at int64) error {
	for len(content) > 0 {
		n := min(len(content), holeBytes-int(at%holeBytes))
		if n < holeBytes || string(content[:n]) != string(zeros[:]) {
			n += dataBlocks(content[n:])
			if _, err := out.WriteAt(content[:n], at); err != nil {
				return err
			}
		}
		content, at = content[n:], at+int64(n)
	}
	return nil
}

// dataBlocks returns how many bytes there are before a whole block of zeros.
func dataBlocks(content []byte) (n int) {
	for len(content)-n >= holeBytes && string(content[n:n+holeBytes]) != string(zeros[:]) {
		n += holeBytes
	}
	if len(content)-n < holeBytes {
		return len(content)
	}
	return n
}

// fail gives the file up; the first reason stands.
func (f *destFile) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *destFile) failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err != nil
}

// done ends one thing that was pending. The last one finishes the file: it gets
// its metadata and its name, or goes away.
func (f *destFile) done() {
	if f.pending.Add(-1) > 0 {
		return
	}
	warning := f.finish()
	if f.err != nil {
		f.r.leaveOut(f.dir.join(f.node), f.err)
	} else {
		f.r.files.Add(1)
		f.r.bytes.Add(f.node.Size)
		f.r.owned(f.node)
		f.r.did(f.action, f.dir.join(f.node))
		if warning != nil {
			f.r.skip(f.dir.join(f.node), fmt.Errorf("metadata: %w", warning))
		}
	}
	if f.group != nil {
		f.group.finish(f.r, f.err)
	}
	f.dir.done()
}

// finish closes the file. Metadata that cannot be set is a warning: the content
// is there.
func (f *destFile) finish() (warning error) {
	if f.out == nil {
		f.fail(errGivenUp)
		return nil
	}
	if f.err == nil {
		handle, err := f.dir.file()
		if err == nil {
			err = finishFile(f.out, handle, f.dir.root, f.temporary, f.node)
		}
		warning = err
	}
	if f.old != nil {
		_ = f.old.Close() // only read
	}
	if f.err == nil && f.action == ActionReplaced {
		// After a crash there must be the old file or the whole new one.
		if err := f.out.Sync(); err != nil {
			f.fail(err)
		}
	}
	if err := f.out.Close(); err != nil {
		f.fail(err)
	}
	if f.err == nil {
		if err := f.dir.root.Rename(f.temporary, string(f.node.Name)); err != nil {
			f.fail(err)
		}
	}
	if f.err != nil {
		if err := f.dir.root.Remove(f.temporary); err != nil {
			f.fail(err)
		}
	}
	return warning
}
