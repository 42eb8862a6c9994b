package snapshot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/vault"
)

// Bounds of nodes; part of the format.
const (
	maxNodeBytes = 1 << 20 // encoded
	maxNameBytes = 4096
	maxExtents   = 4096
	// maxDepth bounds directories inside each other, beyond what most systems
	// can make.
	maxDepth = 8192
)

const modeBits = 0o7777

// ErrName says that a name cannot be given to a file on this system.
var ErrName = errors.New("no file can have this name here")

// encodeNode appends a node behind its length.
func encodeNode(b []byte, n *vaultv1.Node) ([]byte, error) {
	size := proto.Size(n)
	if size > maxNodeBytes {
		return nil, fmt.Errorf("%d bytes of metadata, at most %d", size, maxNodeBytes)
	}
	b = binary.AppendUvarint(b, uint64(size))
	return proto.MarshalOptions{UseCachedSize: true, Deterministic: true}.MarshalAppend(b, n)
}

// cutNode cuts the first node off a listing that may go on elsewhere. node is
// nil when b holds no whole node.
func cutNode(b []byte) (node *vaultv1.Node, rest []byte, err error) {
	size, n := binary.Uvarint(b)
	if n < 0 || n > 0 && size > maxNodeBytes {
		return nil, nil, fmt.Errorf("%w: listing", storage.ErrCorrupt)
	}
	if n == 0 || uint64(len(b)-n) < size {
		return nil, b, nil
	}
	node, err = parseNode(b[n : n+int(size)])
	return node, b[n+int(size):], err
}

// parseNode reads a node and checks that its parts fit together. The error is
// storage.ErrCorrupt.
func parseNode(b []byte) (*vaultv1.Node, error) {
	var n vaultv1.Node
	if err := proto.Unmarshal(b, &n); err != nil {
		return nil, fmt.Errorf("%w: node: %w", storage.ErrCorrupt, err)
	}
	if err := checkName(string(n.Name)); err != nil {
		return nil, fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
	}
	ref, err := vault.RefOf(n.Content)
	if err != nil {
		return nil, fmt.Errorf("node %q: %w", n.Name, err)
	}
	corrupt := func(what string) (*vaultv1.Node, error) {
		return nil, fmt.Errorf("%w: node %q: %s", storage.ErrCorrupt, n.Name, what)
	}
	switch {
	case n.Mode&^modeBits != 0:
		return corrupt("mode bits")
	case n.MtimeNanos >= 1e9:
		return corrupt("nanoseconds")
	case n.Size > math.MaxInt64:
		return corrupt("size")
	case n.Type == vaultv1.Node_FILE && !n.Sparse && n.Size != ref.Size:
		return corrupt("size is not that of the content")
	case n.Sparse && !extentsFit(n.Extents, n.Size, ref.Size):
		return corrupt("extents")
	case n.Type == vaultv1.Node_SYMLINK && len(n.Target) == 0:
		return corrupt("link to nothing")
	}
	for _, x := range n.Xattrs {
		if len(x.GetName()) == 0 || strings.ContainsRune(string(x.Name), 0) {
			return corrupt("name of an attribute")
		}
	}
	return &n, nil
}

// checkName refuses what is not exactly one path element on any system.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxNameBytes || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q is no name of an entry", name)
	}
	return nil
}

// checkLocalName refuses what is not exactly one path element on this system.
func checkLocalName(name string) error {
	if !filepath.IsLocal(name) || filepath.Base(name) != name {
		return fmt.Errorf("%w: %q", ErrName, name)
	}
	return nil
}

// extentsFit reports whether extents rise, stay inside the file and take
// exactly the content.
func extentsFit(extents []*vaultv1.Extent, size, content uint64) bool {
	var end, total uint64
	for i, e := range extents {
		if e.GetLength() == 0 || e.Offset < end || i > 0 && e.Offset == end ||
			e.Offset > size || e.Length > size-e.Offset {
			return false
		}
		end = e.Offset + e.Length
		total += e.Length
	}
	return total == content && len(extents) <= maxExtents
}

func modTime(n *vaultv1.Node) time.Time { return time.Unix(n.Mtime, int64(n.MtimeNanos)) }

// forEachNode calls fn with each entry of a listing in order.
func forEachNode(r *vault.Reader, listing vault.Ref, fn func(*vaultv1.Node) error) error {
	return cutListing(fn, func(w io.Writer) error { return r.WriteObject(w, listing) })
}

// EntriesAt is Entries for one who reads single blobs.
func EntriesAt(ctx context.Context, r *vault.Random, listing vault.Ref, fn func(*vaultv1.Node) error) error {
	return cutListing(fn, func(w io.Writer) error { return r.WriteObject(ctx, w, listing) })
}

// cutListing calls fn with each entry of the listing that write writes.
func cutListing(fn func(*vaultv1.Node) error, write func(io.Writer) error) error {
	w := &nodeWriter{fn: fn}
	if err := write(w); err != nil {
		return err
	}
	if len(w.buf) > 0 {
		return fmt.Errorf("%w: listing ends inside an entry", storage.ErrCorrupt)
	}
	return nil
}

// nodeWriter cuts a listing into nodes as it is written.
type nodeWriter struct {
	fn   func(*vaultv1.Node) error
	buf  []byte
	last string
}

// Write implements io.Writer.
func (w *nodeWriter) Write(p []byte) (int, error) {
	rest := p
	if len(w.buf) > 0 {
		w.buf = append(w.buf, p...)
		rest = w.buf
	}
	for {
		node, after, err := cutNode(rest)
		if err != nil {
			return 0, err
		}
		if node == nil {
			w.buf = append(w.buf[:0], after...)
			return len(p), nil
		}
		rest = after
		if name := string(node.Name); name <= w.last {
			return 0, fmt.Errorf("%w: listing has %q after %q", storage.ErrCorrupt, name, w.last)
		} else {
			w.last = name
		}
		if err := w.fn(node); err != nil {
			return 0, err
		}
	}
}
