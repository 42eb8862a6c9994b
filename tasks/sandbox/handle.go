package sandbox

import (
	"io"
	"math"

	"github.com/tetratelabs/wazero/experimental/sys"
	wsys "github.com/tetratelabs/wazero/sys"
)

// position is int64 by a name of its own: vet takes a method Seek(int64, int)
// for io.Seeker's and wants its result, the engine wants another.
type position = int64

// fileHandle is an open file of a guest.
type fileHandle struct {
	sys.UnimplementedFile
	tree   *tree
	node   *node
	offset int64
	append bool
	reads  bool
	writes bool
	closed bool
}

// Dev is the same for all files.
func (h *fileHandle) Dev() (uint64, sys.Errno) { return 1, 0 }

// Ino numbers files in the order in which they were made.
func (h *fileHandle) Ino() (wsys.Inode, sys.Errno) { return h.node.ino, 0 }

// IsDir is false.
func (h *fileHandle) IsDir() (bool, sys.Errno) { return false, 0 }

// IsAppend reports whether writes go to the end.
func (h *fileHandle) IsAppend() bool { return h.append }

// SetAppend makes writes go to the end, or not.
func (h *fileHandle) SetAppend(enable bool) sys.Errno {
	h.append = enable
	return 0
}

// Stat describes the file.
func (h *fileHandle) Stat() (wsys.Stat_t, sys.Errno) { return h.node.stat(), 0 }

// Read reads at the offset and moves it.
func (h *fileHandle) Read(p []byte) (int, sys.Errno) {
	n, errno := h.Pread(p, h.offset)
	h.offset += int64(n)
	return n, errno
}

// Pread reads at off.
func (h *fileHandle) Pread(p []byte, off int64) (int, sys.Errno) {
	switch {
	case h.closed || !h.reads:
		return 0, sys.EBADF
	case off < 0:
		return 0, sys.EINVAL
	case len(p) == 0:
		return 0, 0
	}
	return h.node.content.readAt(p, off)
}

// Seek moves the offset.
func (h *fileHandle) Seek(offset position, whence int) (int64, sys.Errno) {
	if h.closed {
		return 0, sys.EBADF
	}
	base := int64(0)
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		base = h.offset
	case io.SeekEnd:
		base = h.node.content.size()
	default:
		return 0, sys.EINVAL
	}
	if offset > math.MaxInt64-base || base+offset < 0 {
		return 0, sys.EINVAL
	}
	h.offset = base + offset
	return h.offset, 0
}

// Write writes all of p at the offset, or at the end, and moves the offset.
func (h *fileHandle) Write(p []byte) (int, sys.Errno) {
	off := h.offset
	if h.append {
		off = h.node.content.size()
	}
	n, errno := h.Pwrite(p, off)
	h.offset = off + int64(n)
	return n, errno
}

// Pwrite writes all of p at off.
func (h *fileHandle) Pwrite(p []byte, off int64) (int, sys.Errno) {
	switch {
	case h.closed || !h.writes:
		return 0, sys.EBADF
	case off < 0:
		return 0, sys.EINVAL
	}
	if errno := h.node.content.writeAt(p, off); errno != 0 {
		return 0, errno
	}
	h.node.mtime = h.tree.clock.now()
	return len(p), 0
}

// Truncate sets the size.
func (h *fileHandle) Truncate(size int64) sys.Errno {
	switch {
	case h.closed || !h.writes:
		return sys.EBADF
	case size < 0:
		return sys.EINVAL
	}
	h.node.mtime = h.tree.clock.now()
	return h.node.content.truncate(size)
}

// Sync has nothing to do: the parent takes the bytes when the guest has ended.
func (h *fileHandle) Sync() sys.Errno { return 0 }

// Datasync has nothing to do.
func (h *fileHandle) Datasync() sys.Errno { return 0 }

// Utimens sets the time.
func (h *fileHandle) Utimens(_, mtim int64) sys.Errno { return h.node.setTime(mtim) }

// Close ends the handle.
func (h *fileHandle) Close() sys.Errno {
	if h.closed {
		return 0
	}
	h.closed = true
	h.node.content.close()
	h.tree.release(h.node)
	return 0
}

// dirHandle is an open directory of a guest. It lists what was there when the
// listing began.
type dirHandle struct {
	sys.DirFile
	tree   *tree
	node   *node
	list   []sys.Dirent // nil: not read yet
	next   int
	closed bool
}

// Dev is the same for all files.
func (h *dirHandle) Dev() (uint64, sys.Errno) { return 1, 0 }

// Ino numbers directories in the order in which they were made.
func (h *dirHandle) Ino() (wsys.Inode, sys.Errno) { return h.node.ino, 0 }

// Stat describes the directory.
func (h *dirHandle) Stat() (wsys.Stat_t, sys.Errno) { return h.node.stat(), 0 }

// Seek goes back to the beginning and takes a new listing.
func (h *dirHandle) Seek(offset position, whence int) (int64, sys.Errno) {
	if offset != 0 || whence != io.SeekStart {
		return 0, sys.EINVAL
	}
	h.list, h.next = nil, 0
	return 0, 0
}

// Readdir returns the next entries in the order of their names.
func (h *dirHandle) Readdir(n int) ([]sys.Dirent, sys.Errno) {
	if h.closed {
		return nil, sys.EBADF
	}
	if h.list == nil {
		h.list = make([]sys.Dirent, 0, len(h.node.children))
		for _, name := range h.node.sorted() {
			child := h.node.children[name]
			h.list = append(h.list, sys.Dirent{Name: name, Ino: child.ino, Type: child.stat().Mode.Type()})
		}
	}
	rest := h.list[h.next:]
	if n > 0 && n < len(rest) {
		rest = rest[:n]
	}
	h.next += len(rest)
	return rest, 0
}

// Sync has nothing to do.
func (h *dirHandle) Sync() sys.Errno { return 0 }

// Datasync has nothing to do.
func (h *dirHandle) Datasync() sys.Errno { return 0 }

// Utimens sets the time.
func (h *dirHandle) Utimens(_, mtim int64) sys.Errno { return h.node.setTime(mtim) }

// Close ends the handle.
func (h *dirHandle) Close() sys.Errno {
	if !h.closed {
		h.closed = true
		h.tree.release(h.node)
	}
	return 0
}
