// Package erasure turns a segment into n shards of which any k rebuild it, and
// finds altered shards by their BLAKE3 root.
//
// The layout is contiguous: data shard i holds bytes [i·S, (i+1)·S) of the
// segment, which is padded with zeros to k·S bytes, so data shards are slices
// of the segment and are never copied. Parity is Reed-Solomon over GF(2⁸) with
// the polynomial 0x11D and the systematic Vandermonde matrix; this is part of
// the stored format (docs/format.md) and pinned by a test.
//
// Reed-Solomon detects nothing: a wrong byte in gives wrong bytes out. Verify
// each shard against its root before Reconstruct.
package erasure

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/klauspost/reedsolomon"
	"golang.org/x/sync/errgroup"

	"gotong/grid/blake3"
	"gotong/storage"
)

// shardAlign is what shard sizes are rounded up to: whole cache lines let the
// vector code run without a tail.
const shardAlign = 64

// ShardSize returns the length of each shard of a segment of length bytes:
// length/k, rounded up to a multiple of 64.
func ShardSize(length int, r storage.Redundancy) int {
	size := (length + r.K - 1) / r.K
	return (size + shardAlign - 1) / shardAlign * shardAlign
}

// PaddedSize returns the bytes of the k data shards together; a segment is
// padded to it with zeros.
func PaddedSize(length int, r storage.Redundancy) int { return r.K * ShardSize(length, r) }

// ParitySize returns the bytes of the n−k parity shards together.
func ParitySize(length int, r storage.Redundancy) int {
	return (r.N - r.K) * ShardSize(length, r)
}

// Coder encodes and rebuilds segments of one redundancy. It is safe for
// concurrent use and keeps no state between calls.
type Coder struct {
	redundancy storage.Redundancy
	rs         reedsolomon.Encoder // nil when n = k
}

// coders holds one *Coder for each redundancy ever asked for, at most
// MaxShards²/2 of a few kilobytes, because building the matrix of a large code
// costs more than encoding a small segment.
var coders sync.Map

// New returns the Coder for r. Coders are shared.
func New(r storage.Redundancy) (*Coder, error) {
	if c, ok := coders.Load(r); ok {
		return c.(*Coder), nil
	}
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("erasure: %w", err)
	}
	c := &Coder{redundancy: r}
	if r.N > r.K {
		rs, err := reedsolomon.New(r.K, r.N-r.K, reedsolomon.WithMaxGoroutines(runtime.GOMAXPROCS(0)))
		if err != nil {
			return nil, fmt.Errorf("erasure %s: %w", r, err)
		}
		c.rs = rs
	}
	shared, _ := coders.LoadOrStore(r, c)
	return shared.(*Coder), nil
}

// Redundancy returns what the Coder was made for.
func (c *Coder) Redundancy() storage.Redundancy { return c.redundancy }

// Encode computes the parity shards of a segment and the root of every shard.
// The length of segment is a multiple of k (see PaddedSize). The first k shards
// are slices of segment; the others are slices of parity when it has room for
// them (see ParitySize), else of new memory. Nothing is copied.
func (c *Coder) Encode(segment, parity []byte) (shards [][]byte, roots [][32]byte, err error) {
	k, n := c.redundancy.K, c.redundancy.N
	if len(segment) == 0 || len(segment)%k != 0 {
		return nil, nil, fmt.Errorf("erasure %s: segment of %d bytes is not in %d equal parts", c.redundancy, len(segment), k)
	}
	size := len(segment) / k
	if need := (n - k) * size; cap(parity) < need {
		parity = make([]byte, need)
	} else {
		parity = parity[:need]
	}
	shards = make([][]byte, n)
	for i := range n {
		if i < k {
			shards[i] = slot(segment, i, size)
		} else {
			shards[i] = slot(parity, i-k, size)
		}
	}
	if c.rs != nil {
		if err := c.rs.Encode(shards); err != nil {
			return nil, nil, fmt.Errorf("erasure %s: %w", c.redundancy, err)
		}
	}
	return shards, Roots(shards), nil
}

func slot(b []byte, i, size int) []byte { return b[i*size : (i+1)*size : (i+1)*size] }

// Roots returns the BLAKE3 root of each shard, computed on all processors.
func Roots(shards [][]byte) [][32]byte {
	roots := make([][32]byte, len(shards))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, shard := range shards {
		group.Go(func() error {
			roots[i] = blake3.Sum256(shard)
			return nil
		})
	}
	_ = group.Wait() // hashing cannot fail
	return roots
}

// Verify returns nil when shard has the given root, else storage.ErrCorrupt.
func Verify(shard []byte, root [32]byte) error {
	if blake3.Sum256(shard) != root {
		return fmt.Errorf("shard does not match its root: %w", storage.ErrCorrupt)
	}
	return nil
}

// Reconstruct fills in the missing data shards of a segment from any k
// verified shards. shards has n entries of equal length; missing ones are empty
// and are rebuilt in their own memory when their capacity suffices, so that a
// whole segment can be rebuilt in one buffer (see Slots). Parity is left alone.
// With fewer than k shards the error is storage.ErrTooFewShards.
func (c *Coder) Reconstruct(shards [][]byte) error {
	return c.rebuild(shards, func(rs reedsolomon.Encoder) error { return rs.ReconstructData(shards) })
}

// Rebuild fills in exactly the missing shards that want names, data or parity,
// from any k verified ones, like Reconstruct.
func (c *Coder) Rebuild(shards [][]byte, want []int) error {
	required := make([]bool, c.redundancy.N)
	for _, i := range want {
		if i < 0 || i >= len(required) {
			return fmt.Errorf("erasure %s: no shard %d", c.redundancy, i)
		}
		required[i] = true
	}
	return c.rebuild(shards, func(rs reedsolomon.Encoder) error { return rs.ReconstructSome(shards, required) })
}

func (c *Coder) rebuild(shards [][]byte, run func(reedsolomon.Encoder) error) error {
	k, n := c.redundancy.K, c.redundancy.N
	if len(shards) != n {
		return fmt.Errorf("erasure %s: %d shards given", c.redundancy, len(shards))
	}
	present := 0
	for _, shard := range shards {
		if len(shard) > 0 {
			present++
		}
	}
	if present < k {
		return fmt.Errorf("erasure: %d of %d needed: %w", present, k, storage.ErrTooFewShards)
	}
	if c.rs == nil {
		return nil // n = k: all are there
	}
	if err := run(c.rs); err != nil {
		if errors.Is(err, reedsolomon.ErrTooFewShards) {
			err = storage.ErrTooFewShards
		}
		return fmt.Errorf("erasure %s: %w", c.redundancy, err)
	}
	return nil
}

// Slots returns n empty shards of which the first k have their place in
// segment as capacity, so that what is read into them, or rebuilt, makes up the
// segment without a copy. The length of segment is k times the shard size.
func (c *Coder) Slots(segment []byte) [][]byte {
	size := len(segment) / c.redundancy.K
	shards := make([][]byte, c.redundancy.N)
	for i := range c.redundancy.K {
		shards[i] = slot(segment, i, size)[:0]
	}
	return shards
}
