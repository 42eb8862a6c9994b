package vault

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"gotong/grid/disk"
	"gotong/storage"
)

// What a Reader, and a Random, which is open for long, keep on disk at most, in
// bytes. No more than half of what is free is taken either.
const (
	scratchMost       = 8 << 30
	randomScratchMost = 2 << 30
)

// scratchName is what the files of all scratches begin with; what a kill left
// there goes away at the next start.
const scratchName = "read"

// errScratchFull says that no more segments are kept.
var errScratchFull = errors.New("as many segments are on disk as a reader keeps there")

// scratch keeps segments as they came, sealed, in one temporary file: in the
// order in which they came, until it is closed.
type scratch struct {
	dir  string
	most int64

	mu    sync.Mutex
	file  *os.File // nil before the first segment
	limit int64
	end   int64
	kept  map[storage.SegmentID]kept
	err   error // after which it takes no more
}

// kept is where a segment is in the file.
type kept struct{ off, bytes int64 }

func newScratch(dir string, most int64) *scratch {
	return &scratch{dir: dir, most: most, kept: map[storage.SegmentID]kept{}}
}

// full reports whether no more segments are kept.
func (s *scratch) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

// find returns where a segment is; without bytes it is not there.
func (s *scratch) find(id storage.SegmentID) kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept[id]
}

// put keeps a segment. After the first error it keeps no more; what is there
// can still be read.
func (s *scratch) put(id storage.SegmentID, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.kept[id]; there || s.err != nil {
		return s.err
	}
	if s.err = s.open(); s.err == nil && s.end+int64(len(data)) > s.limit {
		s.err = errScratchFull
	}
	if s.err == nil {
		_, s.err = s.file.WriteAt(data, s.end)
	}
	if s.err == nil {
		s.kept[id] = kept{s.end, int64(len(data))}
		s.end += int64(len(data))
	}
	return s.err
}

// open makes the file, once. It has no name where a file can do without.
func (s *scratch) open() error {
	if s.file != nil {
		return nil
	}
	free, err := disk.Free(s.dir)
	if err != nil {
		return err
	}
	s.limit = int64(min(uint64(s.most), free/2))
	if s.file, err = os.CreateTemp(s.dir, scratchName+"-*"); err == nil && runtime.GOOS != "windows" {
		err = os.Remove(s.file.Name())
	}
	return err
}

// blob reads what a segment has at a place. The place returned is that in data.
func (s *scratch) blob(k kept, at location) (place location, data []byte, err error) {
	if int64(at.offset)+int64(at.sealed) > k.bytes {
		return at, nil, fmt.Errorf("%w: blob beyond the end of its pack", storage.ErrCorrupt)
	}
	data = make([]byte, at.sealed)
	_, err = s.file.ReadAt(data, k.off+int64(at.offset))
	at.offset = 0
	return at, data, err
}

// whole reads a segment. What cannot be read is zero, and fits no key.
func (s *scratch) whole(k kept) []byte {
	data := make([]byte, k.bytes)
	_, _ = s.file.ReadAt(data, k.off)
	return data
}

func (s *scratch) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return
	}
	_ = s.file.Close() // nobody needs it any more
	if runtime.GOOS == "windows" {
		_ = os.Remove(s.file.Name()) // or at the next start
	}
}
