package shardrpc

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// frames is the pool of buffers of one frame each. gRPC's own pool would give
// a megabyte for a quarter.
var frames framePool

type framePool struct{ pool sync.Pool }

// Get implements mem.BufferPool; n is at most FrameBytes.
func (p *framePool) Get(n int) *[]byte {
	b, ok := p.pool.Get().(*[]byte)
	if !ok {
		fresh := make([]byte, FrameBytes)
		b = &fresh
	}
	*b = (*b)[:n]
	return b
}

// Put implements mem.BufferPool.
func (p *framePool) Put(b *[]byte) {
	*b = (*b)[:cap(*b)]
	p.pool.Put(b)
}

// lent is the "pool" to which a buffer belongs that somebody else owns: giving
// it back tells the owner.
type lent func()

// Get implements mem.BufferPool; nothing takes buffers from here.
func (lent) Get(n int) *[]byte { b := make([]byte, n); return &b }

// Put implements mem.BufferPool.
func (release lent) Put(*[]byte) { release() }

// lend makes a buffer of memory that its owner must not change before release
// was called.
func lend(p []byte, release func()) mem.Buffer {
	if mem.IsBelowBufferPoolingThreshold(cap(p)) {
		small := append(mem.SliceBuffer(nil), p...)
		release()
		return small
	}
	return mem.NewBuffer(&p, lent(release))
}
