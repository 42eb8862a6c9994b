package sandbox

import (
	"io"
	"sync"
)

// batchWriter collects frames and writes what is there in one call. It holds
// at most Window frames at a time, because at most that many requests are in
// flight; so it needs no bound of its own.
type batchWriter struct {
	w    io.Writer
	wake chan struct{} // holds one token while buf is not empty

	mu     sync.Mutex
	buf    []byte
	spare  []byte
	closed bool
	err    error
}

func newBatchWriter(w io.Writer) *batchWriter {
	return &batchWriter{w: w, wake: make(chan struct{}, 1)}
}

// add appends one frame and returns the error of an earlier write.
func (b *batchWriter) add(kind frameKind, body func([]byte) []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || b.closed {
		return b.errLocked()
	}
	b.buf = appendFrame(b.buf, kind, body)
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return nil
}

func (b *batchWriter) errLocked() error {
	if b.err != nil {
		return b.err
	}
	return io.ErrClosedPipe
}

// run writes until close is called or a write fails.
func (b *batchWriter) run() {
	for range b.wake {
		if !b.flush() {
			return
		}
	}
}

// flush writes what is pending; false when writing cannot go on.
func (b *batchWriter) flush() bool {
	b.mu.Lock()
	out := b.buf
	b.buf, b.spare = b.spare[:0], nil
	b.mu.Unlock()
	var err error
	if len(out) > 0 {
		_, err = b.w.Write(out)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.err = err
		return false
	}
	if cap(out) <= keepBufferBytes {
		b.spare = out[:0]
	}
	return true
}

// close ends run. What was added before is still written.
func (b *batchWriter) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		close(b.wake)
	}
}
