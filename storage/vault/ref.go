package vault

import (
	"encoding/binary"
	"fmt"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/seal"
)

// Ref names an object. Depth 0 is one blob whose plaintext has the BLAKE3 Hash;
// depth d is a blob that lists objects of depth d−1. Size counts the bytes of
// the object. The empty object has no hash.
type Ref struct {
	Depth uint8
	Hash  [32]byte
	Size  uint64
}

// BlobID names a blob in packs and index: a keyed derivation of its hash, which
// says nothing about the content.
type BlobID [32]byte

// Proto returns the form in which a ref stands in nodes and records.
func (r Ref) Proto() *vaultv1.Ref {
	if r.Size == 0 {
		return &vaultv1.Ref{}
	}
	return &vaultv1.Ref{Depth: uint32(r.Depth), Hash: r.Hash[:], Size: r.Size}
}

// RefOf reads what Proto made; a missing ref is the empty object. The error is
// storage.ErrCorrupt.
func RefOf(p *vaultv1.Ref) (Ref, error) {
	if p.GetSize() == 0 {
		if len(p.GetHash()) != 0 || p.GetDepth() != 0 {
			return Ref{}, fmt.Errorf("%w: ref of nothing with a hash", storage.ErrCorrupt)
		}
		return Ref{}, nil
	}
	if len(p.Hash) != 32 || p.Depth > maxRefDepth || p.Size > 1<<62 {
		return Ref{}, fmt.Errorf("%w: ref of depth %d, %d bytes of hash, size %d", storage.ErrCorrupt, p.Depth, len(p.Hash), p.Size)
	}
	return Ref{uint8(p.Depth), [32]byte(p.Hash), p.Size}, nil
}

// A list blob is a sequence of entries: hash (32 bytes) and size (8 bytes,
// big-endian) of each child. Where a list ends depends on the keyed ids of the
// children, so that a change in the middle of a large file changes few lists.
const (
	listEntryBytes = 40
	listMin        = 1024  // entries before an end is looked for
	listMax        = 16384 // entries at most
	listMask       = 0x0fff
)

// listLevel collects the children of one depth.
type listLevel struct {
	entries []byte
	size    uint64
	lists   int // finished at this level
}

// listBuilder turns the blobs of an object, in order, into its ref.
type listBuilder struct {
	blobID func(h [32]byte) BlobID
	put    func(list []byte) (h [32]byte, err error)
	levels []listLevel
}

// add appends a child of depth d.
func (b *listBuilder) add(d int, h [32]byte, size uint64) error {
	if d == len(b.levels) {
		b.levels = append(b.levels, listLevel{})
	}
	l := &b.levels[d]
	l.entries = append(l.entries, h[:]...)
	l.entries = binary.BigEndian.AppendUint64(l.entries, size)
	l.size += size
	count := len(l.entries) / listEntryBytes
	if count < listMin {
		return nil
	}
	if id := b.blobID(h); count == listMax || binary.BigEndian.Uint16(id[:])&listMask == 0 {
		return b.flush(d)
	}
	return nil
}

func (b *listBuilder) flush(d int) error {
	l := &b.levels[d]
	h, err := b.put(l.entries)
	if err != nil {
		return err
	}
	size := l.size
	l.entries, l.size, l.lists = l.entries[:0], 0, l.lists+1
	return b.add(d+1, h, size)
}

// finish returns the ref of all that was added and makes the builder empty.
func (b *listBuilder) finish() (Ref, error) {
	defer func() { b.levels = b.levels[:0] }()
	for d := 0; d < len(b.levels); d++ {
		l := &b.levels[d]
		if l.lists == 0 && len(l.entries) == listEntryBytes {
			return Ref{uint8(d), [32]byte(l.entries), l.size}, nil
		}
		if len(l.entries) > 0 {
			if err := b.flush(d); err != nil {
				return Ref{}, err
			}
		}
	}
	return Ref{}, nil
}

// parseList returns the children that a list blob names. The error is
// storage.ErrCorrupt.
func parseList(list []byte, depth uint8, size uint64) ([]Ref, error) {
	count := len(list) / listEntryBytes
	if len(list)%listEntryBytes != 0 || count == 0 || count > listMax || depth == 0 {
		return nil, fmt.Errorf("%w: list of %d bytes", storage.ErrCorrupt, len(list))
	}
	children := make([]Ref, count)
	for i := range children {
		e := list[i*listEntryBytes:]
		child := Ref{depth - 1, [32]byte(e), binary.BigEndian.Uint64(e[32:])}
		if child.Size == 0 || child.Size > size || child.Depth == 0 && child.Size > maxBlobBytes {
			return nil, fmt.Errorf("%w: list with a child of %d bytes", storage.ErrCorrupt, child.Size)
		}
		size -= child.Size
		children[i] = child
	}
	if size != 0 {
		return nil, fmt.Errorf("%w: list lacks %d bytes", storage.ErrCorrupt, size)
	}
	return children, nil
}

func blobIDOf(s seal.VaultSecrets, h [32]byte) BlobID { return BlobID(s.BlobID(h)) }
