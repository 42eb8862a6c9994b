package segments

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"gotong/storage"
	"gotong/storage/erasure"
)

// errClosed tells a transfer that its bytes are not wanted any more.
var errClosed = errors.New("not wanted any more")

// sink takes the bytes of one shard. Whoever waits for the shard may close it
// at any time and then has the memory back at once, whatever the transfer that
// fills it is doing.
type sink struct {
	mu     sync.Mutex
	dst    []byte // the whole shard; nil after close
	n      int    // bytes that came
	moved  func() // called with every piece
	pooled bool   // dst is scratch memory
}

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dst == nil {
		return 0, errClosed
	}
	if len(p) > len(s.dst)-s.n {
		return 0, fmt.Errorf("more than %d bytes came: %w", len(s.dst), storage.ErrCorrupt)
	}
	s.n += copy(s.dst[s.n:], p)
	s.moved()
	return len(p), nil
}

// verify returns nil when the whole shard came and matches its root.
func (s *sink) verify(root [32]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dst == nil {
		return errClosed
	}
	if s.n != len(s.dst) {
		return fmt.Errorf("%d of %d bytes came: %w", s.n, len(s.dst), storage.ErrCorrupt)
	}
	return erasure.Verify(s.dst, root)
}

// close takes the memory back.
func (s *sink) close() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	dst := s.dst
	s.dst = nil
	return dst
}

// fill copies r into the sink, without a buffer between where r can do so.
func (s *sink) fill(r io.Reader, pool *buffers) error {
	if w, ok := r.(io.WriterTo); ok {
		_, err := w.WriteTo(s)
		return err
	}
	buf := pool.get(sendPiece)
	defer pool.put(buf)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := s.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
