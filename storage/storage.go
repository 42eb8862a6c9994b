// Package storage is the vocabulary of the storage layer: segments and shards,
// how many of them there are, the header that makes each shard
// self-describing, who holds what, and the errors that every layer tells apart.
package storage

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"gotong/grid"
)

// Bounds that every part agrees on.
const (
	MaxSegmentBytes = 16 << 20 // sealed bytes of a segment
	MaxShards       = 30       // n of a segment
)

// Errors that cross layers and the wire. Test with errors.Is.
var (
	ErrNotFound     = errors.New("not found")
	ErrCorrupt      = errors.New("data corrupt")
	ErrQuota        = errors.New("quota exceeded")
	ErrFull         = errors.New("disk full")
	ErrDeleted      = errors.New("deleted by its owner")
	ErrDenied       = errors.New("not allowed")
	ErrTooFewShards = errors.New("too few shards")
	ErrTooFewPeers  = errors.New("too few holders")
	ErrStaleEpoch   = errors.New("delegation epoch superseded")

	// ErrLost comes with ErrTooFewShards: every member answered, and too few
	// shards are whole. Asking again later does not help.
	ErrLost = errors.New("lost")

	// ErrExists: the shard is stored there already, whole; nothing was lost and
	// nothing need be sent. Counts as an acknowledgement.
	ErrExists = errors.New("already stored")
	// ErrDisk: the disk failed to make data durable. What was being written is
	// lost, and what was written before is suspect until it was read again.
	ErrDisk = errors.New("disk failed to store")
	// ErrHeadGap: the heads given do not follow each other.
	ErrHeadGap = errors.New("heads do not follow each other")
	// ErrHeadFork: another head with that number is known there. The one given
	// is kept as evidence.
	ErrHeadFork = errors.New("contradicts a known head")
)

// Error says which operation on which shard at which peer failed.
type Error struct {
	Op    string // "put", "get", "verify", …
	Shard ShardID
	Peer  grid.PeerID // zero: this peer
	Err   error
}

// Error names the operation, the shard and the peer before the cause.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", e.Op, e.Shard)
	if !e.Peer.IsZero() {
		fmt.Fprintf(&b, " at %s", e.Peer.Short())
	}
	return b.String() + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// SegmentID names a segment: BLAKE3 of its header bytes without the signature.
type SegmentID [32]byte

// VaultID names a vault; random, made with the vault.
type VaultID [32]byte

// String returns 64 hex digits.
func (id SegmentID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 12 hex digits, for people.
func (id SegmentID) Short() string { return id.String()[:12] }

// IsZero reports whether id names nothing.
func (id SegmentID) IsZero() bool { return id == SegmentID{} }

// ParseSegmentID reads what SegmentID.String wrote.
func ParseSegmentID(s string) (id SegmentID, err error) {
	return id, grid.ParseHex("segment", s, id[:])
}

// String returns 64 hex digits.
func (id VaultID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 12 hex digits, for people.
func (id VaultID) Short() string { return id.String()[:12] }

// IsZero reports whether id names nothing.
func (id VaultID) IsZero() bool { return id == VaultID{} }

// ParseVaultID reads what VaultID.String wrote.
func ParseVaultID(s string) (id VaultID, err error) { return id, grid.ParseHex("vault", s, id[:]) }

// ShardID names one shard of a segment.
type ShardID struct {
	Segment SegmentID
	Index   int // 0 … n-1
}

// String returns SEGMENT.INDEX; it is also the file name of a stored shard.
func (id ShardID) String() string { return id.Segment.String() + "." + strconv.Itoa(id.Index) }

// ParseShardID reads what ShardID.String wrote, and nothing else.
func ParseShardID(s string) (ShardID, error) {
	segment, index, ok := strings.Cut(s, ".")
	if !ok {
		return ShardID{}, fmt.Errorf("shard id %q: no index", s)
	}
	id, err := ParseSegmentID(segment)
	if err != nil {
		return ShardID{}, err
	}
	i, err := strconv.Atoi(index)
	if err != nil || i < 0 || i >= MaxShards || strconv.Itoa(i) != index {
		return ShardID{}, fmt.Errorf("shard id %q: bad index", s)
	}
	return ShardID{id, i}, nil
}

// Redundancy says how a segment is coded: any K of its N shards rebuild it.
type Redundancy struct {
	K, N int
}

// String returns K+M, as the command line takes it.
func (r Redundancy) String() string { return fmt.Sprintf("%d+%d", r.K, r.N-r.K) }

// IsZero reports whether r is unset, which means automatic.
func (r Redundancy) IsZero() bool { return r == Redundancy{} }

// Validate returns nil for 1 ≤ K ≤ N ≤ MaxShards.
func (r Redundancy) Validate() error {
	if r.K < 1 || r.N < r.K || r.N > MaxShards {
		return fmt.Errorf("redundancy %s: want 1 ≤ k and k+m ≤ %d", r, MaxShards)
	}
	return nil
}

// CommitAt returns how many durable shards commit a segment: k + ⌈(n−k)/2⌉.
func (r Redundancy) CommitAt() int { return r.K + (r.N-r.K+1)/2 }

// PerSite returns how many shards one site may hold where there is a choice:
// max(1, ⌊(n−k)/2⌋).
func (r Redundancy) PerSite() int { return max(1, (r.N-r.K)/2) }

// ParseRedundancy reads "auto" (the zero value) or K+M.
func ParseRedundancy(s string) (Redundancy, error) {
	if s == "auto" {
		return Redundancy{}, nil
	}
	k, m, ok := strings.Cut(s, "+")
	data, errK := strconv.Atoi(k)
	parity, errM := strconv.Atoi(m)
	if !ok || errK != nil || errM != nil || parity < 0 || parity > MaxShards || data > MaxShards {
		return Redundancy{}, fmt.Errorf("redundancy %q: want auto or K+M, such as 4+2", s)
	}
	r := Redundancy{data, data + parity}
	return r, r.Validate()
}

// Holder says that a peer was given a shard. It is a hint, never a promise.
type Holder struct {
	Shard int
	Peer  grid.PeerID
	Epoch uint32 // grows each time a shard is moved; the highest stands
}

// ShardState is a holder's answer about a shard.
type ShardState string

// The answers of Have.
const (
	ShardStored  ShardState = "stored"
	ShardTrash   ShardState = "trash"
	ShardDeleted ShardState = "deleted"
	ShardBad     ShardState = "bad"
	ShardNone    ShardState = "no"
)
