package tasks

import (
	"crypto/rand"
	"fmt"

	"gotong/grid"
	"gotong/storage"
)

// Key is the secret of a job, with which its contents are sealed. Workers and
// keepers of the job get it over their authenticated connections.
type Key [32]byte

// NewKey returns a random Key.
func NewKey() (k Key) {
	rand.Read(k[:]) // never fails (crypto/rand)
	return k
}

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k == Key{} }

// String hides the key from logs.
func (k Key) String() string { return "(key of a job)" }

// Bounds of a Stored.
const (
	// StoredPieceBytes is how much of a content one segment holds; the last one
	// may hold less.
	StoredPieceBytes = storage.MaxSegmentBytes - 4<<10
	// MaxStoredSegments bounds Stored.Segments.
	MaxStoredSegments = (MaxOutputBytes + StoredPieceBytes - 1) / StoredPieceBytes
	// MaxStoredHolders bounds Stored.Holders.
	MaxStoredHolders = 64
)

// Stored says where a content is kept: sealed with the key of the job, in
// segments that belong to the job. See package contents.
type Stored struct {
	Segments []storage.SegmentID // in the order of the content
	Holders  []grid.PeerID       // who was given shards of them; a hint
	Size     int64               // bytes of the content
}

// Validate checks what a stranger could get wrong in s.
func (s Stored) Validate() error {
	want := (s.Size + StoredPieceBytes - 1) / StoredPieceBytes
	switch {
	case s.Size < 1 || s.Size > MaxOutputBytes:
		return fmt.Errorf("%w: stored content of %d bytes", ErrInvalid, s.Size)
	case int64(len(s.Segments)) != want:
		return fmt.Errorf("%w: %d bytes in %d segments", ErrInvalid, s.Size, len(s.Segments))
	case len(s.Holders) > MaxStoredHolders:
		return fmt.Errorf("%w: %d holders of a content", ErrInvalid, len(s.Holders))
	}
	return nil
}

// bytes returns what s takes in a result.
func (s *Stored) bytes() int {
	if s == nil {
		return 0
	}
	return 34 * (len(s.Segments) + len(s.Holders))
}
