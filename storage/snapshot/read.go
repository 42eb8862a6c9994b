package snapshot

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/vault"
)

// racyWindow: a file that changed this shortly before it was read may change
// again without its times showing it, so it is not remembered.
const racyWindow = 20 * time.Millisecond

// maxUnsized bounds what is read of a file that claims to be empty: some file
// systems, such as /proc, know a size only once all is read.
const maxUnsized = 64 << 20

// retryBytes is up to which size a file that changed while it was read is read
// once more.
const retryBytes = 1 << 30

// readFiles stores files until the walk is over. It goes on after the session
// has ended, only to let go of what waits.
func (b *backup) readFiles(w *vault.Writer) {
	for it := range b.jobs {
		if b.ctx.Err() == nil {
			b.readFile(w, it)
		}
		if it.dir != nil {
			it.dir.release()
		}
		close(it.ready)
	}
}

func (b *backup) readFile(w *vault.Writer, it *item) {
	store := b.storeFile
	if it.dir == nil {
		store = b.storeStdin
	}
	err := store(w, it)
	if err == nil {
		it.node, err = encodeNode(nil, it.encode)
	}
	if err != nil {
		it.node = nil
		switch {
		case b.ctx.Err() != nil || absent(err):
		case it.dir == nil:
			b.cancel(err)
		default:
			b.skip(it.dir.join(it.name), err)
		}
		return
	}
	b.files.Add(1)
	b.bytes.Add(it.encode.Size)
	if it.seen {
		b.changed.Add(1)
	} else {
		b.fresh.Add(1)
	}
}

// storeFile reads a file and fills in its node. One that changes meanwhile is
// read again; when it changes again the snapshot has what was read last.
func (b *backup) storeFile(w *vault.Writer, it *item) error {
	f, err := it.dir.source.openFile(it.name)
	if err != nil {
		return err
	}
	defer func() { _ = f.close() }() // only read
	for again := false; ; again = true {
		if again {
			if err := f.seek(0); err != nil {
				return err
			}
		}
		steady, err := b.storeOnce(w, f, it)
		if err != nil {
			return err
		}
		if steady {
			return nil
		}
		if again || it.encode.Size > retryBytes {
			b.warn(it.dir.join(it.name), ErrChanged)
			return nil
		}
	}
}

// storeOnce reads a file. It reports false when its size or time of change is
// another one afterwards.
func (b *backup) storeOnce(w *vault.Writer, f sourceFile, it *item) (steady bool, err error) {
	before, err := f.stat()
	if err != nil {
		return false, err
	}
	if before.kind != vaultv1.Node_FILE {
		return false, errNotRegular
	}
	began := time.Now()
	node := it.encode
	node.Mode, node.Uid, node.Gid = before.mode, before.uid, before.gid
	node.Mtime, node.MtimeNanos = before.mtime, uint32(before.mtimeNanos)
	node.Sparse, node.Extents = false, nil
	if node.Xattrs, err = f.xattrs(); err != nil {
		return false, fmt.Errorf("attributes: %w", err)
	}
	counted := &countedFile{sourceFile: f, total: &b.read}
	object, err := storeContent(w, counted, before, node)
	if err != nil {
		counted.forget()
		return false, err
	}
	node.Content = object.Ref.Proto()
	after, err := f.stat()
	if err != nil {
		return false, err
	}
	it.meta = before
	it.blobs = object.Blobs
	whole := before.size == int64(node.Size)
	it.known = (object.Blobs != nil || object.Ref.Size == 0) && stateOf(before) == stateOf(after) &&
		whole && settled(before, began)
	was, is := stateOf(before), stateOf(after)
	if steady = was.size == is.size && was.mtime == is.mtime; !steady {
		counted.forget()
	}
	return steady, nil
}

// countedReader adds what is read to a total as it is read.
type countedReader struct {
	r     io.Reader
	total *atomic.Uint64
}

// Read implements io.Reader.
func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.total.Add(uint64(n))
	return n, err
}

// countedFile adds what is read to a total as it is read.
type countedFile struct {
	sourceFile
	total *atomic.Uint64
	mine  uint64
}

// Read implements io.Reader.
func (f *countedFile) Read(p []byte) (int, error) {
	n, err := f.sourceFile.Read(p)
	f.mine += uint64(n)
	f.total.Add(uint64(n))
	return n, err
}

// forget takes back what was counted, because it is not used.
func (f *countedFile) forget() {
	f.total.Add(-f.mine)
	f.mine = 0
}

// settled reports whether a file was left alone long enough before it was read
// that a later change shows in its times.
func settled(m meta, read time.Time) bool {
	changed := max(m.ctime, m.mtime*1e9+m.mtimeNanos)
	return changed < read.Add(-racyWindow).UnixNano()
}

// storeContent stores the bytes of a file up to the size that it had when it
// was opened; what grows is stored as far as it was.
func storeContent(w *vault.Writer, f sourceFile, m meta, node *vaultv1.Node) (vault.Object, error) {
	if m.mayHaveHoles {
		extents, whole, err := extentsOf(f, m.size)
		if err != nil {
			return vault.Object{}, err
		}
		if !whole {
			return storeSparse(w, f, m, node, extents)
		}
		if err := f.seek(0); err != nil {
			return vault.Object{}, err
		}
	}
	limit := m.size
	if limit == 0 {
		limit = maxUnsized
	}
	object, err := w.Put(io.LimitReader(f, limit), m.size)
	node.Size = object.Ref.Size
	return object, err
}

func storeSparse(w *vault.Writer, f sourceFile, m meta, node *vaultv1.Node, extents []*vaultv1.Extent) (vault.Object, error) {
	node.Sparse, node.Size, node.Extents = true, uint64(m.size), extents
	var total uint64
	for _, e := range extents {
		total += e.Length
	}
	object, err := w.Put(&extentReader{f: f, extents: extents}, int64(total))
	if err == nil && object.Ref.Size != total {
		err = errors.New("shrank while it was read")
	}
	return object, err
}
