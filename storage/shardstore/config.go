package shardstore

import (
	"errors"
	"log/slog"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// DefaultKeepFreeBytes is how much disk a store leaves to others by default.
const DefaultKeepFreeBytes = 1 << 30

// DefaultKeepDeletions is how long deletions are remembered by default.
const DefaultKeepDeletions = 400 * 24 * time.Hour

// Config says what a store takes. The zero value takes everything that fits on
// the disk, from everybody.
type Config struct {
	// CapacityBytes is the pledge: bytes on disk for shards, pages included.
	// 0 means no limit but the disk.
	CapacityBytes int64

	// KeepFreeBytes is left free on the disk; 0 means DefaultKeepFreeBytes, −1
	// nothing.
	KeepFreeBytes int64

	// OwnerLimit tells how many bytes an owner may have here; nil means no
	// limit. It is called for each new shard, must be quick, and must not call
	// the store.
	OwnerLimit func(grid.OwnerID) int64

	// ExplainLimit says to the owner why its limit is what it is; nil: nothing.
	ExplainLimit func(grid.OwnerID) string

	// Authorize judges the header of a shard that is not stored yet: grid,
	// membership, expiry. nil accepts all. Its error is passed on.
	Authorize func(storage.SignedHeader) error

	// AuthorizeHead does the same for the newest of the heads handed over at
	// once; by its hash it vouches for those before it, whose signers may be gone.
	AuthorizeHead func(storage.SignedHead) error

	// AuthorizeDeletion does the same for deletions.
	AuthorizeDeletion func(storage.SignedDeletion) error

	// KeepDeletions is how long of the running time deletions are remembered; 0
	// means DefaultKeepDeletions.
	KeepDeletions time.Duration

	// FS replaces the disk in tests; Open then ignores its directory.
	FS FS

	// Logger gets what an operator should know; nil discards it.
	Logger *slog.Logger
}

// Validate returns all faults of the configuration.
func (c Config) Validate() error {
	var errs []error
	if c.CapacityBytes < 0 {
		errs = append(errs, errors.New("shardstore: negative capacity"))
	}
	if c.KeepFreeBytes < -1 {
		errs = append(errs, errors.New("shardstore: negative bytes to keep free"))
	}
	return errors.Join(errs...)
}

// filled returns c with defaults in place of zeros.
func (c Config) filled() Config {
	switch c.KeepFreeBytes {
	case 0:
		c.KeepFreeBytes = DefaultKeepFreeBytes
	case -1:
		c.KeepFreeBytes = 0
	}
	if c.KeepDeletions <= 0 {
		c.KeepDeletions = DefaultKeepDeletions
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
