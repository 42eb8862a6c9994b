package snapshot

import (
	"errors"
	"fmt"
	"io"
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

// read stores files until the walk is over. It goes on after the session has
// ended, only to let go of what waits.
func (b *backup) read(w *vault.Writer) {
	for it := range b.jobs {
		if b.ctx.Err() == nil {
			b.readFile(w, it)
		}
		it.dir.release()
		close(it.ready)
	}
}

func (b *backup) readFile(w *vault.Writer, it *item) {
	err := b.storeFile(w, it)
	if err == nil {
		it.node, err = encodeNode(nil, it.encode)
	}
	if err != nil {
		it.node = nil
		if b.ctx.Err() == nil && !absent(err) {
			b.skip(it.dir.join(it.name), err)
		}
		return
	}
	b.files.Add(1)
	b.bytes.Add(it.encode.Size)
}

// storeFile reads a file and fills in its node.
func (b *backup) storeFile(w *vault.Writer, it *item) error {
	f, err := it.dir.source.openFile(it.name)
	if err != nil {
		return err
	}
	defer func() { _ = f.close() }() // only read
	before, err := f.stat()
	if err != nil {
		return err
	}
	if before.kind != vaultv1.Node_FILE {
		return errNotRegular
	}
	began := time.Now()
	node := it.encode
	node.Mode, node.Uid, node.Gid = before.mode, before.uid, before.gid
	node.Mtime, node.MtimeNanos = before.mtime, uint32(before.mtimeNanos)
	if node.Xattrs, err = f.xattrs(); err != nil {
		return fmt.Errorf("attributes: %w", err)
	}
	object, err := storeContent(w, f, before, node)
	if err != nil {
		return err
	}
	node.Content = object.Ref.Proto()
	after, err := f.stat()
	if err != nil {
		return err
	}
	it.meta = before
	it.blobs = object.Blobs
	it.known = (object.Blobs != nil || object.Ref.Size == 0) && stateOf(before) == stateOf(after) &&
		before.size == int64(node.Size) && settled(before, began)
	return nil
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
