package snapshot

import (
	"io"

	vaultv1 "gotong/proto/vault/v1"
)

// meta is what the file system tells of an entry without opening it.
type meta struct {
	kind              vaultv1.Node_Type // UNKNOWN for what no snapshot holds, such as sockets
	mode              uint32            // modeBits
	uid, gid          uint32
	size              int64
	mtime, mtimeNanos int64
	ctime             int64 // nanoseconds since 1970; 0 where there is none
	device, inode     uint64
	names             uint64 // hard links
	major, minor      uint32 // of a device
	mayHaveHoles      bool
}

// sourceDir is an open directory that is read. Names are relative to it, so
// that nobody can lead a walk astray by renaming what is above.
type sourceDir interface {
	// names returns all entries but "." and "..", in any order.
	names() ([]string, error)
	// lstat tells about an entry, not about what a link points to.
	lstat(name string) (meta, error)
	openDir(name string) (sourceDir, error)
	openFile(name string) (sourceFile, error)
	readlink(name string) (string, error)
	// xattrs returns the attributes of an entry that is not opened.
	xattrs(name string) ([]*vaultv1.Xattr, error)
	ownXattrs() ([]*vaultv1.Xattr, error)
	close() error
}

// sourceFile is an open regular file.
type sourceFile interface {
	io.Reader
	stat() (meta, error)
	xattrs() ([]*vaultv1.Xattr, error)
	// seekData returns the next offset from off on at which there is data, and
	// the end of that data; io.EOF when there is none.
	seekData(off, size int64) (start, end int64, err error)
	seek(off int64) error
	close() error
}

// extentsOf returns the parts of a file that hold data, or whole when it has no
// holes. Beyond maxExtents short holes count as data.
func extentsOf(f sourceFile, size int64) (extents []*vaultv1.Extent, whole bool, err error) {
	gap := uint64(0) // holes up to this long are not kept
	for off := int64(0); off < size; {
		start, end, err := f.seekData(off, size)
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, false, err
		}
		extents = appendExtent(extents, uint64(start), uint64(min(end, size)), gap)
		for len(extents) > maxExtents {
			gap = max(2*gap, 1<<16)
			extents = closeGaps(extents, gap)
		}
		off = end
	}
	whole = len(extents) == 1 && extents[0].Offset == 0 && extents[0].Length == uint64(size)
	return extents, whole, nil
}

func appendExtent(extents []*vaultv1.Extent, start, end, gap uint64) []*vaultv1.Extent {
	if n := len(extents); n > 0 && start <= extents[n-1].Offset+extents[n-1].Length+gap {
		extents[n-1].Length = end - extents[n-1].Offset
		return extents
	}
	return append(extents, &vaultv1.Extent{Offset: start, Length: end - start})
}

func closeGaps(extents []*vaultv1.Extent, gap uint64) []*vaultv1.Extent {
	out := extents[:0]
	for _, e := range extents {
		out = appendExtent(out, e.Offset, e.Offset+e.Length, gap)
	}
	return out
}

// extentReader reads the bytes of the extents, one behind the other.
type extentReader struct {
	f       sourceFile
	extents []*vaultv1.Extent
	left    uint64 // of the first extent
	started bool
}

// Read implements io.Reader.
func (r *extentReader) Read(p []byte) (int, error) {
	for r.left == 0 {
		if r.started {
			r.extents = r.extents[1:]
		}
		if r.started = true; len(r.extents) == 0 {
			return 0, io.EOF
		}
		if err := r.f.seek(int64(r.extents[0].Offset)); err != nil {
			return 0, err
		}
		r.left = r.extents[0].Length
	}
	n, err := r.f.Read(p[:min(uint64(len(p)), r.left)])
	r.left -= uint64(n)
	return n, err
}
