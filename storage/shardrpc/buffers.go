package shardrpc

import (
	"bytes"
	"sync"
	"sync/atomic"

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

// pieceBytes is the unit in which lent memory comes back: what HTTP/2 sends at
// once.
const pieceBytes = 16 << 10

// lend makes buffers of memory that its owner must not change before release
// was called, once all of them were freed. Each of them tells when it was sent.
func lend(p []byte, sent, release func()) mem.BufferSlice {
	var left atomic.Int64
	back := lent(func() {
		sent()
		if left.Add(-1) == 0 {
			release()
		}
	})
	pieces := make(mem.BufferSlice, 0, (len(p)+pieceBytes-1)/pieceBytes)
	for len(p) > 0 {
		piece := p[:min(pieceBytes, len(p))]
		p = p[len(piece):]
		if mem.IsBelowBufferPoolingThreshold(len(piece)) { // gRPC does not count references to it
			pieces = append(pieces, mem.SliceBuffer(bytes.Clone(piece)))
			continue
		}
		left.Add(1)
		pieces = append(pieces, mem.NewBuffer(&piece, back))
	}
	return pieces
}
