package sandbox

import (
	"io"
	"os"
	"strconv"

	"github.com/tetratelabs/wazero/experimental/sys"

	"gotong/tasks"
)

// Names below the staging directory of a child.
const (
	inputDir  = "in"   // read-only to the child; files named by tasks.ContentID
	outputDir = "out"  // files named by number
	codeDir   = "code" // compiled code as the engine keeps it; only a compile child writes it
)

// spillBytes is the size at which an output file moves from memory to disk.
const spillBytes = 64 << 10

// fileStore keeps the bytes behind a tree: inputs that the parent staged, and
// outputs in memory while they are small, else in numbered files.
type fileStore struct {
	in, out *os.Root
	limits  tasks.Limits

	used   int64  // bytes of all outputs
	inline int64  // of those, bytes in memory
	number uint64 // of the last spilled file; never used twice in a child's life
}

func openStore(dir string, limits tasks.Limits) (*fileStore, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	in, err := root.OpenRoot(inputDir)
	if err != nil {
		return nil, err
	}
	out, err := root.OpenRoot(outputDir)
	if err != nil {
		in.Close()
		return nil, err
	}
	return &fileStore{in: in, out: out, limits: limits}, nil
}

func (s *fileStore) reset() { s.used, s.inline = 0, 0 }

// charge accounts for growth of the outputs and stops the guest at its limit.
func (s *fileStore) charge(bytes int64) {
	if bytes > s.limits.OutputBytes-s.used {
		stop(tasks.LimitOutput, "wrote more than %d bytes to files below /out", s.limits.OutputBytes)
	}
	s.used += bytes
}

// content is the bytes of one file.
type content interface {
	open() sys.Errno // once per handle
	close()
	size() int64
	readAt(p []byte, off int64) (int, sys.Errno)
	writeAt(p []byte, off int64) sys.Errno // all of p
	truncate(size int64) sys.Errno
	drop() // the last name and handle are gone
}

// inputFile is a file that the parent staged; it is never written.
type inputFile struct {
	store   *fileStore
	id      tasks.ContentID
	bytes   int64
	handles int
	host    *os.File
}

func (f *inputFile) open() sys.Errno {
	if f.host == nil {
		host, err := f.store.in.Open(f.id.String())
		if err != nil {
			return sys.EIO
		}
		f.host = host
	}
	f.handles++
	return 0
}

func (f *inputFile) close() {
	if f.handles--; f.handles == 0 {
		f.host.Close()
		f.host = nil
	}
}

func (f *inputFile) size() int64 { return f.bytes }

func (f *inputFile) readAt(p []byte, off int64) (int, sys.Errno) { return readHost(f.host, p, off) }

func (f *inputFile) writeAt([]byte, int64) sys.Errno { return sys.EROFS }

func (f *inputFile) truncate(int64) sys.Errno { return sys.EROFS }

func (f *inputFile) drop() {}

func readHost(host *os.File, p []byte, off int64) (int, sys.Errno) {
	n, err := host.ReadAt(p, off)
	if err != nil && err != io.EOF {
		return n, sys.EIO
	}
	return n, 0
}

// outputFile is a file that the guest made.
type outputFile struct {
	store   *fileStore
	bytes   int64
	data    []byte   // the bytes, while number is 0
	number  uint64   // the spilled file, once there is one
	host    *os.File // the spilled file, while there are handles
	handles int
}

func (s *fileStore) newOutput() *outputFile { return &outputFile{store: s} }

func (f *outputFile) open() sys.Errno {
	if f.number != 0 && f.host == nil {
		host, err := f.store.out.OpenFile(spillName(f.number), os.O_RDWR, 0)
		if err != nil {
			return sys.EIO
		}
		f.host = host
	}
	f.handles++
	return 0
}

func (f *outputFile) close() {
	if f.handles--; f.handles == 0 && f.host != nil {
		f.host.Close()
		f.host = nil
	}
}

func (f *outputFile) size() int64 { return f.bytes }

func (f *outputFile) readAt(p []byte, off int64) (int, sys.Errno) {
	if f.number != 0 {
		return readHost(f.host, p, off)
	}
	if off >= int64(len(f.data)) {
		return 0, 0
	}
	return copy(p, f.data[off:]), 0
}

func (f *outputFile) writeAt(p []byte, off int64) sys.Errno {
	if len(p) == 0 {
		return 0
	}
	if off > tasks.MaxOutputBytes {
		stop(tasks.LimitOutput, "wrote at offset %d of a file below /out", off)
	}
	end := off + int64(len(p))
	if errno := f.reserve(end); errno != 0 {
		return errno
	}
	if f.number == 0 {
		copy(f.data[off:], p)
	} else if _, err := f.host.WriteAt(p, off); err != nil {
		return sys.EIO
	}
	f.bytes = max(f.bytes, end)
	return 0
}

func (f *outputFile) truncate(size int64) sys.Errno {
	if errno := f.reserve(size); errno != 0 {
		return errno
	}
	f.store.used -= max(0, f.bytes-size)
	if f.number != 0 {
		if err := f.host.Truncate(size); err != nil {
			return sys.EIO
		}
	} else if size < f.bytes {
		f.store.inline -= f.bytes - size
		clear(f.data[size:])
		f.data = f.data[:size]
	}
	f.bytes = size
	return 0
}

// reserve makes room for size bytes: charges for growth, moves the file to
// disk when it leaves the bounds of memory, and fills memory with zeros. The
// caller sets f.bytes.
func (f *outputFile) reserve(size int64) sys.Errno {
	delta := size - f.bytes
	if delta <= 0 {
		return 0
	}
	f.store.charge(delta)
	if f.number == 0 && (size > spillBytes || f.store.inline+delta > tasks.InlineOutputBytes) {
		if errno := f.spill(); errno != 0 {
			return errno
		}
	}
	if f.number == 0 {
		f.store.inline += delta
		f.data = append(f.data, make([]byte, delta)...)
	}
	return 0
}

// spill moves the bytes to a numbered file, which stays open as long as the
// guest has handles.
func (f *outputFile) spill() sys.Errno {
	number := f.store.number + 1
	host, err := f.store.out.OpenFile(spillName(number), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return sys.EIO
	}
	f.store.number = number
	if _, err := host.WriteAt(f.data, 0); err != nil {
		host.Close()
		f.store.out.Remove(spillName(number))
		return sys.EIO
	}
	f.store.inline -= f.bytes
	f.number, f.host, f.data = number, host, nil
	return 0
}

func (f *outputFile) drop() {
	f.store.used -= f.bytes
	if f.number == 0 {
		f.store.inline -= f.bytes
	} else {
		f.store.out.Remove(spillName(f.number))
	}
	f.bytes, f.data = 0, nil
}

// file describes the output for the parent.
func (f *outputFile) file(name string) File {
	out := File{Name: name, Size: f.bytes, number: f.number}
	if f.number == 0 {
		out.Data = f.data
	}
	return out
}

func spillName(number uint64) string { return strconv.FormatUint(number, 10) }
