package sandbox

import (
	"errors"
	"io"

	"gotong/tasks"
)

// stdin is the standard input of the guest that runs: one staged content, from
// its beginning to its end. It is opened when the guest first reads.
type stdin struct {
	store  *fileStore
	file   inputFile
	offset int64
}

var errStdin = errors.New("standard input cannot be read")

func (s *stdin) reset(id tasks.ContentID, size int64) {
	s.file, s.offset = inputFile{store: s.store, id: id, bytes: size}, 0
}

// Read implements io.Reader.
func (s *stdin) Read(p []byte) (int, error) {
	if s.offset >= s.file.bytes {
		return 0, io.EOF
	}
	if s.file.handles == 0 {
		if errno := s.file.open(); errno != 0 {
			return 0, errStdin
		}
	}
	n, errno := s.file.readAt(p[:min(int64(len(p)), s.file.bytes-s.offset)], s.offset)
	if errno != 0 || (n == 0 && len(p) > 0) {
		return n, errStdin
	}
	s.offset += int64(n)
	return n, nil
}

func (s *stdin) close() {
	if s.file.handles > 0 {
		s.file.close()
	}
}
