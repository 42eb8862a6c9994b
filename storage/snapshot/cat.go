package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/vault"
)

// ErrNotFile says that a path of a snapshot is no regular file.
var ErrNotFile = errors.New("is no regular file")

// aheadLeases is how many blobs are located before they are written.
const aheadLeases = 8

// Cat writes a file of a snapshot to w: length bytes from offset on, or less
// when the file ends before; a negative length is all. Holes are zeros. Errors:
// ErrNoPath, ErrNotFile, those of the vault, that of w.
func Cat(ctx context.Context, v *vault.Vault, name, at string, w io.Writer, offset, length int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t, err := openTree(ctx, v, name)
	if err != nil {
		return err
	}
	defer t.reader.Close()
	node, full, err := t.find(at)
	if err != nil {
		return err
	}
	if node.Type != vaultv1.Node_FILE {
		return fmt.Errorf("%s %w but a %s", full, ErrNotFile, typeNames[node.Type])
	}
	if offset < 0 {
		return fmt.Errorf("offset %d is before the file", offset)
	}
	end := node.Size
	if length >= 0 && uint64(offset)+uint64(length) < end {
		end = uint64(offset) + uint64(length)
	}
	if uint64(offset) >= end {
		return nil
	}
	return writeContent(ctx, t.reader, node, &window{w: w, from: uint64(offset), to: end})
}

// writeContent writes the bytes of a file that the window shows, holes included.
func writeContent(ctx context.Context, reader *vault.Reader, node *vaultv1.Node, w *window) error {
	content, err := vault.RefOf(node.Content)
	if err != nil {
		return err
	}
	extents := node.Extents
	if !node.Sparse {
		extents = []*vaultv1.Extent{{Length: node.Size}}
	}
	place := extentCursor{extents: extents}
	err = eachLeaf(ctx, reader, content, w.wants(extents), func(size uint64, read func() ([]byte, error)) error {
		var plain []byte
		if read != nil {
			var err error
			if plain, err = read(); err != nil {
				return err
			}
		}
		return place.split(size, func(at, from, to uint64) error {
			if err := w.zerosTo(at); err != nil {
				return err
			}
			if w.at >= w.to {
				return errEnough
			}
			if plain == nil { // none of it is shown
				w.at = at + to - from
				return nil
			}
			return w.put(plain[from:to])
		})
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	return w.zerosTo(min(node.Size, w.to))
}

// eachLeaf calls fn with the size of each blob of an object, in order, and a
// function that reads it, which is nil for those that are not wanted. The next
// ones are fetched meanwhile.
func eachLeaf(ctx context.Context, reader *vault.Reader, ref vault.Ref, wanted func(offset, size uint64) bool, fn func(size uint64, read func() ([]byte, error)) error) error {
	type leaf struct {
		size  uint64
		lease *vault.Lease
	}
	ctx, cancel := context.WithCancel(ctx)
	leaves := make(chan leaf, aheadLeases)
	result := make(chan error, 1)
	go func() {
		defer close(leaves)
		offset := uint64(0)
		result <- reader.Leaves(ref, func(l vault.Ref) error {
			next := leaf{size: l.Size}
			if wanted == nil || wanted(offset, l.Size) {
				lease, err := reader.Lease(l.Hash)
				if err != nil {
					return err
				}
				next.lease = lease
			}
			offset += l.Size
			select {
			case leaves <- next:
				return nil
			case <-ctx.Done():
				if next.lease != nil {
					next.lease.Release()
				}
				return context.Cause(ctx)
			}
		})
	}()
	var plain, buf []byte
	var failed error
	for l := range leaves {
		switch {
		case failed != nil:
		case l.lease == nil:
			failed = fn(l.size, nil)
		default:
			failed = fn(l.size, func() (got []byte, err error) {
				got, buf, err = l.lease.Read(plain[:0], buf)
				if err == nil && uint64(len(got)) != l.size {
					err = fmt.Errorf("%w: blob of %d bytes, not %d", storage.ErrCorrupt, len(got), l.size)
				}
				plain = got
				return got, err
			})
		}
		if l.lease != nil {
			l.lease.Release()
		}
		if failed != nil {
			cancel()
		}
	}
	cancel()
	if err := <-result; failed == nil {
		failed = err
	}
	return failed
}

// extentCursor maps the bytes of a content, in order, to where they are in the
// file.
type extentCursor struct {
	extents []*vaultv1.Extent
	used    uint64 // of the first extent
}

// split takes the next size bytes and calls fn for each run of them: it belongs
// at offset at of the file and is [from, to) of the bytes taken.
func (c *extentCursor) split(size uint64, fn func(at, from, to uint64) error) error {
	for from := uint64(0); from < size; {
		if len(c.extents) == 0 {
			return fmt.Errorf("%w: more content than extents", storage.ErrCorrupt)
		}
		e := c.extents[0]
		n := min(size-from, e.Length-c.used)
		if err := fn(e.Offset+c.used, from, from+n); err != nil {
			return err
		}
		from += n
		if c.used += n; c.used == e.Length {
			c.extents, c.used = c.extents[1:], 0
		}
	}
	return nil
}

// window passes on the bytes [from, to) of a file that is written from its
// beginning.
type window struct {
	w        io.Writer
	from, to uint64
	at       uint64
}

// wants returns whether any byte of a piece of the content is shown.
func (w *window) wants(extents []*vaultv1.Extent) func(offset, size uint64) bool {
	cursor := extentCursor{extents: extents}
	return func(_, size uint64) (wanted bool) {
		_ = cursor.split(size, func(at, from, to uint64) error { // what does not fit is found when it is written
			wanted = wanted || at < w.to && at+to-from > w.from
			return nil
		})
		return wanted
	}
}

func (w *window) put(b []byte) error {
	start, end := w.at, w.at+uint64(len(b))
	w.at = end
	if start, end = max(start, w.from), min(end, w.to); start >= end {
		return nil
	}
	skip := start - (w.at - uint64(len(b)))
	_, err := w.w.Write(b[skip : skip+end-start])
	return err
}

// zerosTo writes zeros up to an offset.
func (w *window) zerosTo(at uint64) error {
	if w.at < w.from {
		w.at = min(at, w.from)
	}
	for w.at < at && w.at < w.to {
		n := min(at-w.at, holeBytes)
		if err := w.put(zeros[:n]); err != nil {
			return err
		}
	}
	w.at = max(w.at, at)
	return nil
}
