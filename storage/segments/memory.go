package segments

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Sizes of pooled buffers: powers of two with a little room, because a segment
// of 16 MiB in shards of whole cache lines is slightly longer.
const (
	minBufferBits = 16
	maxBufferBits = 25
	bufferSlack   = 4 << 10
)

// buffersKept is how long unused buffers are kept for the next call.
const buffersKept = 30 * time.Second

// buffers recycles large buffers, up to a limit. A sync.Pool would not do: it
// keeps them for each processor, and one that is freed on another processor
// than the next that asks is allocated anew, which at 16 MiB is most of the
// garbage there is.
type buffers struct {
	limit int // bytes kept at most
	mu    sync.Mutex
	free  [maxBufferBits - minBufferBits + 1][][]byte
	kept  int
	drop  *time.Timer
}

func bufferClass(n int) int {
	class := bits.Len(uint(max(n-bufferSlack, 1)-1)) - minBufferBits
	return max(class, 0)
}

// get returns n bytes with any content.
func (b *buffers) get(n int) []byte {
	class := bufferClass(n)
	if class >= len(b.free) {
		return make([]byte, n)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if free := b.free[class]; len(free) > 0 {
		last := free[len(free)-1]
		b.free[class] = free[:len(free)-1]
		b.kept -= cap(last)
		return last[:n]
	}
	return make([]byte, n, 1<<(class+minBufferBits)+bufferSlack)
}

// put takes back what get gave.
func (b *buffers) put(p []byte) {
	class := bufferClass(cap(p))
	if class >= len(b.free) || cap(p) != 1<<(class+minBufferBits)+bufferSlack {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kept+cap(p) > b.limit {
		return
	}
	b.free[class] = append(b.free[class], p)
	b.kept += cap(p)
	if b.drop == nil {
		b.drop = time.AfterFunc(buffersKept, b.empty)
	} else {
		b.drop.Reset(buffersKept)
	}
}

// empty leaves all unused buffers to the garbage collector.
func (b *buffers) empty() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.free[:])
	b.kept = 0
}

// lease counts who refers to the memory of a segment; when the last reference
// is released, done runs. Holders of a broken connection may never release:
// the memory then goes to the garbage collector instead of being used again.
type lease struct {
	refs atomic.Int32
	done func()
}

// newLease returns a lease with one reference.
func newLease(done func()) *lease {
	l := &lease{done: done}
	l.refs.Store(1)
	return l
}

func (l *lease) hold() { l.refs.Add(1) }

func (l *lease) release() {
	if l.refs.Add(-1) == 0 {
		l.done()
	}
}
