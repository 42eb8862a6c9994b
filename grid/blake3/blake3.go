// Package blake3 computes BLAKE3 with 32 bytes of output, the one hash of the
// formats (docs/format.md), on the caller's goroutine alone.
//
// The compression function is that of lukechampine.com/blake3/guts, which knows
// AVX2 and AVX-512. What that library puts on top starts goroutines for each
// Write; here many shards, blobs and peers are hashed at once, so the cores are
// busy already. This package only joins the subtrees, as in section 5.1.2 of the
// BLAKE3 paper.
package blake3

import (
	"hash"
	"math/bits"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/guts"
)

// Size is the length of a hash in bytes.
const Size = 32

// groupBytes is what the compression function takes at once: a complete subtree
// of 16 chunks.
const groupBytes = guts.MaxSIMD * guts.ChunkSize

// group is the memory of one such subtree.
type group = [groupBytes]byte

// maxHeight bounds the subtrees of 16 chunks in a message of 2⁶⁴ bytes.
const maxHeight = 64 - 14

// Sum256 returns the BLAKE3 hash of b.
func Sum256(b []byte) [Size]byte {
	if len(b) <= guts.ChunkSize {
		return root(guts.CompressChunk(b, &guts.IV, 0, 0))
	}
	var f forest
	b = f.addGroups(b)
	return root(f.join(lastGroup(b, f.count)))
}

// lastGroup returns the node of the rest of a message, at most one group.
func lastGroup(b []byte, count uint64) guts.Node {
	if len(b) == groupBytes {
		return compress((*group)(b), len(b), count)
	}
	var padded group
	copy(padded[:], b)
	return compress(&padded, len(b), count)
}

// compress returns the node of the group that comes after count others, of which
// the first n bytes count.
func compress(g *group, n int, count uint64) guts.Node {
	return guts.CompressBuffer(g, n, &guts.IV, count*guts.MaxSIMD, 0)
}

// root finalises the node that covers all of a message.
func root(n guts.Node) [Size]byte {
	n.Flags |= guts.FlagRoot
	words := guts.WordsToBytes(guts.CompressNode(n))
	return [Size]byte(words[:Size])
}

// forest is the complete subtrees to the left of what comes: for each bit that is
// set in count one, of so many groups.
type forest struct {
	stack [maxHeight][8]uint32
	count uint64 // groups
}

// addGroups takes groups from the front of b as long as something remains, for
// the last group of a message is finalised in another way. It returns the rest.
func (f *forest) addGroups(b []byte) []byte {
	for len(b) > groupBytes {
		f.add((*group)(b))
		b = b[groupBytes:]
	}
	return b
}

// add takes one whole group.
func (f *forest) add(g *group) {
	value := guts.ChainingValue(compress(g, groupBytes, f.count))
	height := 0
	for ; f.count&(1<<height) != 0; height++ {
		value = guts.ChainingValue(guts.ParentNode(f.stack[height], value, &guts.IV, 0))
	}
	f.stack[height] = value
	f.count++
}

// join returns the node over all subtrees and the last one.
func (f *forest) join(n guts.Node) guts.Node {
	for rest := f.count; rest != 0; rest &= rest - 1 {
		n = guts.ParentNode(f.stack[bits.TrailingZeros64(rest)], guts.ChainingValue(n), &guts.IV, 0)
	}
	return n
}

// Hasher computes the hash of what is written to it, in memory of about 18 KiB.
// The zero Hasher is ready. It is a hash.Hash and not safe for concurrent use.
type Hasher struct {
	forest forest
	buffer group
	n      int // bytes in buffer
}

// New returns an empty Hasher.
func New() *Hasher { return new(Hasher) }

// Reset forgets what was written.
func (h *Hasher) Reset() { h.forest.count, h.n = 0, 0 }

// Size returns Size.
func (h *Hasher) Size() int { return Size }

// BlockSize returns the length of a write of which nothing has to be kept.
func (h *Hasher) BlockSize() int { return groupBytes }

// Write takes p in. It never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	written := len(p)
	if h.n > 0 {
		n := copy(h.buffer[h.n:], p)
		h.n, p = h.n+n, p[n:]
		if len(p) == 0 {
			return written, nil
		}
		h.forest.add(&h.buffer) // full, and not the last
		h.n = 0
	}
	p = h.forest.addGroups(p)
	h.n = copy(h.buffer[:], p)
	return written, nil
}

// Sum appends the hash of what was written so far to b. More may be written
// after it.
func (h *Hasher) Sum(b []byte) []byte {
	sum := h.Sum256()
	return append(b, sum[:]...)
}

// Sum256 returns the hash of what was written so far. More may be written after
// it.
func (h *Hasher) Sum256() [Size]byte {
	return root(h.forest.join(compress(&h.buffer, h.n, h.forest.count)))
}

// DeriveKey returns the key for one use, which context names, from material.
func DeriveKey(context string, material []byte) (key [Size]byte) {
	blake3.DeriveKey(key[:], context, material)
	return key
}

// NewKeyed returns an empty keyed hash: a MAC of what is written to it.
func NewKeyed(key [Size]byte) hash.Hash { return blake3.New(Size, key[:]) }
