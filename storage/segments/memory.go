package segments

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Sizes of pooled buffers: powers of two with a little room, because a segment
// of 16 MiB in shards of whole cache lines is slightly longer.
const (
	minBufferBits = 16
	maxBufferBits = 25
	bufferSlack   = 4 << 10
)

// buffers recycles large buffers. What is not used goes back to the garbage
// collector by itself.
type buffers struct {
	pools [maxBufferBits - minBufferBits + 1]sync.Pool
}

func bufferClass(n int) int {
	class := bits.Len(uint(max(n-bufferSlack, 1)-1)) - minBufferBits
	return max(class, 0)
}

// get returns n bytes with any content.
func (b *buffers) get(n int) []byte {
	class := bufferClass(n)
	if class >= len(b.pools) {
		return make([]byte, n)
	}
	if p, ok := b.pools[class].Get().(*[]byte); ok {
		return (*p)[:n]
	}
	return make([]byte, n, 1<<(class+minBufferBits)+bufferSlack)
}

// put takes back what get gave.
func (b *buffers) put(p []byte) {
	class := bufferClass(cap(p))
	if class < len(b.pools) && cap(p) == 1<<(class+minBufferBits)+bufferSlack {
		p = p[:0]
		b.pools[class].Put(&p)
	}
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
