package snapshot

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"
	"sync/atomic"

	vaultv1 "gotong/proto/vault/v1"
)

// destDir is a directory that is being restored. Its metadata is set when
// nothing in it is pending: writing into it would change its times, and its
// mode may forbid it.
type destDir struct {
	r       *restore
	parent  *destDir
	node    *vaultv1.Node // nil: metadata is left alone
	root    *os.Root
	path    string // below the target, with slashes; "" is the target
	pending atomic.Int64

	handleOnce sync.Once
	handle     *os.File
	handleErr  error
}

func newTopDir(r *restore, root *os.Root) *destDir {
	d := &destDir{r: r, root: root}
	d.pending.Store(1)
	return d
}

// child makes the directory of node, or takes the one that is there.
func (d *destDir) child(node *vaultv1.Node) (*destDir, error) {
	name := string(node.Name)
	if err := d.root.Mkdir(name, 0o700); errors.Is(err, fs.ErrExist) {
		info, err := d.root.Lstat(name)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			return nil, errors.New("something else has this name in the target")
		}
		if mode := info.Mode().Perm(); mode&0o700 != 0o700 {
			_ = d.root.Chmod(name, mode|0o700) // an earlier restore closed it; what follows tells whether this worked
		}
	} else if err != nil {
		return nil, err
	}
	root, err := d.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	c := &destDir{r: d.r, parent: d, node: node, root: root, path: path.Join(d.path, name)}
	c.pending.Store(1)
	d.pending.Add(1)
	return c, nil
}

func (d *destDir) join(node *vaultv1.Node) string { return path.Join(d.path, string(node.Name)) }

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
	if d.node != nil {
		f, err := d.file()
		if err == nil {
			err = finishDir(f, d.node)
		}
		if err != nil {
			d.r.skip(d.path, fmt.Errorf("metadata: %w", err))
		}
		d.r.dirs.Add(1)
	}
	if f := d.handle; f != nil {
		_ = f.Close() // only read
	}
	if d.parent != nil {
		_ = d.root.Close()
		d.parent.done()
	}
}

// special makes a link, fifo or device. What is there already is replaced,
// unless it is a directory.
func (d *destDir) special(node *vaultv1.Node) error {
	temporary := temporaryName()
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
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	return nil
}

// temporaryName is where an entry is made before it gets its name.
func temporaryName() string { return ".gotong-restore-" + rand.Text()[:16] }

// destFile is a regular file that is being restored. It is written under a
// temporary name and gets its own once all of it is there.
type destFile struct {
	r         *restore
	dir       *destDir
	node      *vaultv1.Node
	group     *linkGroup // of its other names, or nil
	temporary string
	pending   atomic.Int64

	mu  sync.Mutex
	out *os.File
	err error
}

func newDestFile(r *restore, dir *destDir, node *vaultv1.Node) *destFile {
	f := &destFile{r: r, dir: dir, node: node, temporary: temporaryName()}
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

// writeAt writes content to where it belongs in the file.
func (f *destFile) writeAt(out *os.File, content []byte, offset uint64) error {
	if !f.node.Sparse {
		_, err := out.WriteAt(content, int64(offset))
		return err
	}
	var before uint64 // content in the extents so far
	for _, e := range f.node.Extents {
		if len(content) == 0 {
			return nil
		}
		if offset < before+e.Length {
			n := min(uint64(len(content)), before+e.Length-offset)
			if err := writeHoles(out, content[:n], int64(e.Offset+offset-before)); err != nil {
				return err
			}
			content, offset = content[n:], offset+n
		}
		before += e.Length
	}
	return nil
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
		f.r.skip(f.dir.join(f.node), f.err)
	} else {
		f.r.files.Add(1)
		f.r.bytes.Add(f.node.Size)
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
