package erasure

import (
	"bytes"
	"fmt"
	"io"
	"math/bits"

	"lukechampine.com/blake3/bao"

	"gotong/storage"
)

// groupLog says how many chunks of 1 KiB a group has, as bao counts them: 2⁴.
const groupLog = 4

// nodeBytes is the length of an inner node of the tree: two hashes.
const nodeBytes = 64

// lengthBytes is what a slice begins with: the length of the shard.
const lengthBytes = 8

// Outboard is the inner nodes of the BLAKE3 tree of one shard down to its groups
// of 16 KiB: 0.4 % of its length. It is made once by reading the whole shard, and
// then any group is proved by reading that group alone.
type Outboard struct {
	shardBytes int
	root       [32]byte
	nodes      []byte // as bao encodes them, with the length in front
}

// NewOutboard reads a shard of shardBytes.
func NewOutboard(shard io.Reader, shardBytes int) (*Outboard, error) {
	nodes := fixedBuffer(make([]byte, bao.EncodedSize(shardBytes, groupLog, true)))
	root, err := bao.Encode(nodes, shard, int64(shardBytes), groupLog, true)
	if err != nil {
		return nil, fmt.Errorf("tree of a shard: %w", err)
	}
	return &Outboard{shardBytes, root, nodes}, nil
}

// Root returns the BLAKE3 root of what was read.
func (o *Outboard) Root() [32]byte { return o.root }

// Size returns the bytes of memory that o takes.
func (o *Outboard) Size() int { return len(o.nodes) + 64 }

// Prove returns the proof of one group, which is read from shard. It is verified
// before it is returned: storage.ErrCorrupt says that the bytes are not those
// that o was made of.
func (o *Outboard) Prove(shard io.ReaderAt, group int) ([]byte, error) {
	off, n, err := groupRange(o.shardBytes, group)
	if err != nil {
		return nil, err
	}
	var proof bytes.Buffer
	proof.Grow(proofSize(o.shardBytes, group))
	data := io.NewSectionReader(shard, off, n)
	if err := bao.ExtractSlice(&proof, data, bytes.NewReader(o.nodes), groupLog, uint64(off), uint64(n)); err != nil {
		return nil, fmt.Errorf("prove group %d of a shard: %w", group, err)
	}
	if err := VerifyProof(o.root, o.shardBytes, group, proof.Bytes()); err != nil {
		return nil, err
	}
	return proof.Bytes(), nil
}

// VerifyProof returns nil when proof shows that whoever made it has the group of
// the shard with that root and length, else storage.ErrCorrupt. The proof may be
// anything.
func VerifyProof(root [32]byte, shardBytes, group int, proof []byte) error {
	off, n, err := groupRange(shardBytes, group)
	if err != nil {
		return err
	}
	wrong := fmt.Errorf("proof of group %d does not match the root of the shard: %w", group, storage.ErrCorrupt)
	if len(proof) != proofSize(shardBytes, group) || !bytes.Equal(proof[:lengthBytes], lengthPrefix(shardBytes)) {
		return wrong
	}
	if _, ok := bao.VerifySlice(proof, groupLog, uint64(off), uint64(n), root); !ok {
		return wrong
	}
	return nil
}

// groupRange returns where a group lies in its shard.
func groupRange(shardBytes, group int) (off, n int64, err error) {
	if shardBytes < 1 || shardBytes > storage.MaxShardBytes || group < 0 || group >= storage.ProofGroups(shardBytes) {
		return 0, 0, fmt.Errorf("no group %d in a shard of %d bytes", group, shardBytes)
	}
	off = int64(group) * storage.ProofGroupBytes
	return off, min(storage.ProofGroupBytes, int64(shardBytes)-off), nil
}

// proofSize returns the length of the proof of a group: the length of the shard,
// the nodes from the root down to the group, the group.
func proofSize(shardBytes, group int) int {
	size, at, left := lengthBytes, group, storage.ProofGroups(shardBytes)
	for left > 1 {
		size += nodeBytes
		half := 1 << (bits.Len(uint(left-1)) - 1) // groups in the left half
		if at < half {
			left = half
		} else {
			at, left = at-half, left-half
		}
	}
	return size + min(storage.ProofGroupBytes, shardBytes-group*storage.ProofGroupBytes)
}

// lengthPrefix is the only part of the stored or sent bytes that is
// little-endian, because bao says so.
func lengthPrefix(shardBytes int) []byte {
	b := make([]byte, lengthBytes)
	for i := range b {
		b[i] = byte(uint64(shardBytes) >> (8 * i))
	}
	return b
}

// fixedBuffer is memory of the final size, which bao fills in any order.
type fixedBuffer []byte

func (b fixedBuffer) WriteAt(p []byte, off int64) (int, error) {
	if n := copy(b[off:], p); n < len(p) {
		return n, io.ErrShortWrite
	}
	return len(p), nil
}
