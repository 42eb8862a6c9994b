package vault

import (
	"errors"
	"fmt"
	"io"

	"gotong/storage/seal"
)

// maxObjectBlobs bounds Object.Blobs. A file of more blobs, some 600 GB, is
// read again at every backup.
const maxObjectBlobs = 1 << 19

// Object is what Put made of a stream.
type Object struct {
	Ref Ref
	// Blobs are all blobs of the object, lists included, for Reuse. It is nil
	// when there are too many to keep.
	Blobs []BlobID
}

// Writer stores objects, one at a time. Several Writers of one session work at
// once; each keeps its own buffers.
type Writer struct {
	s        *Session
	content  *cutter
	listing  *cutter
	compress *compressor
	small    []byte // content that is one blob for sure
	lists    listBuilder

	kind  packKind
	blobs []BlobID
	many  bool // too many to keep
}

// NewWriter returns a Writer of the session.
func (s *Session) NewWriter() (*Writer, error) {
	compress, err := newCompressor()
	if err != nil {
		return nil, err
	}
	w := &Writer{s: s, compress: compress,
		content: newCutter(contentChunks, s.v.secrets), listing: newCutter(listingChunks, s.v.secrets)}
	w.lists.blobID = func(h [32]byte) BlobID { return blobIDOf(s.v.secrets, h) }
	w.lists.put = func(list []byte) ([32]byte, error) { return w.blob(packTree, list) }
	return w, nil
}

// Put stores what r gives until io.EOF. size is how much is expected and only
// chooses the way: content of at most the smallest piece needs no cutting.
func (w *Writer) Put(r io.Reader, size int64) (Object, error) {
	w.begin(packData)
	if size > int64(w.content.sizes.min) {
		return w.end(w.content.split(r, w.piece))
	}
	if w.small == nil {
		w.small = make([]byte, w.content.sizes.min+1)
	}
	n, err := io.ReadFull(r, w.small)
	switch {
	case err == nil: // more than expected
		return w.end(w.content.split(io.MultiReader(newOnce(w.small), r), w.piece))
	case errors.Is(err, io.EOF):
		return w.end(nil)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return w.end(w.piece(w.small[:n]))
	}
	return w.end(err)
}

func (w *Writer) begin(kind packKind) {
	w.kind, w.blobs, w.many = kind, nil, false
	w.lists.levels = w.lists.levels[:0]
}

func (w *Writer) end(err error) (Object, error) {
	if err != nil {
		return Object{}, err
	}
	ref, err := w.lists.finish()
	if err != nil {
		return Object{}, err
	}
	object := Object{Ref: ref, Blobs: w.blobs}
	if w.many {
		object.Blobs = nil
	}
	w.blobs = nil
	return object, nil
}

func (w *Writer) piece(plain []byte) error {
	h, err := w.blob(w.kind, plain)
	if err != nil {
		return err
	}
	return w.lists.add(0, h, uint64(len(plain)))
}

// blob stores one blob if the vault lacks it, and returns its hash.
func (w *Writer) blob(kind packKind, plain []byte) ([32]byte, error) {
	if err := w.s.err(); err != nil {
		return [32]byte{}, err
	}
	h := seal.Hash(plain)
	id := blobIDOf(w.s.v.secrets, h)
	w.note(id)
	fresh, err := w.s.claim(id)
	if err != nil {
		err = fmt.Errorf("index: %w", err)
		w.s.fail(err)
		return h, err
	}
	if !fresh {
		if kind == packData {
			w.s.stats.duplicateBytes.Add(uint64(len(plain)))
		}
		return h, nil
	}
	if w.s.dry {
		w.s.stats.newBytes.Add(uint64(len(plain)))
		return h, nil
	}
	data, coding := w.compress.pack(plain)
	e := tocEntry{id: id, coding: coding, plain: uint32(len(plain)), sealed: uint32(len(data) + seal.Overhead)}
	p, place, err := w.s.reserve(kind, e)
	if err != nil {
		return h, err
	}
	w.s.v.secrets.SealBlob(place[:0], coding, h, data)
	p.filling.Done()
	w.s.stats.newBytes.Add(uint64(len(plain)))
	return h, nil
}

func (w *Writer) note(id BlobID) {
	if w.many = w.many || len(w.blobs) == maxObjectBlobs; !w.many {
		w.blobs = append(w.blobs, id)
	}
}

// once gives a slice; unlike bytes.Reader it lets go of it at the end.
type once struct{ rest []byte }

func newOnce(b []byte) *once { return &once{b} }

// Read implements io.Reader.
func (o *once) Read(p []byte) (int, error) {
	if len(o.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, o.rest)
	o.rest = o.rest[n:]
	return n, nil
}
