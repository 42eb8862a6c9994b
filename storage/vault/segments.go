package vault

import (
	"context"
	"iter"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
)

// Segments is what a vault asks of the layer below; see storage/segments.
type Segments interface {
	// Put stores a segment and returns once it can be read back: at least k
	// shards are durable. data may be used again after the return.
	Put(ctx context.Context, data []byte) (Stored, error)
	// Get returns a whole segment, in buffer if its capacity suffices, else in
	// new memory; either is the caller's. Without enough shards the error is
	// storage.ErrTooFewShards, and storage.ErrLost when all members answered. After an error buffer must not be used again.
	Get(ctx context.Context, id storage.SegmentID, holders []storage.Holder, buffer []byte) ([]byte, error)
	// Range returns n bytes from off. Nothing vouches for them: whoever calls
	// authenticates them and falls back to Get.
	Range(ctx context.Context, id storage.SegmentID, holders []storage.Holder, off, n int64) ([]byte, error)
	// PublishHeads hands consecutive heads, oldest first, to the peers that
	// keep them, and returns how many have them now. storage.ErrHeadFork and
	// storage.ErrStaleEpoch mean that another device writes the vault.
	PublishHeads(ctx context.Context, raw [][]byte) (holders int, err error)
	// FindHeads asks the reachable peers for the heads of an owner.
	FindHeads(ctx context.Context, owner grid.OwnerID) ([]storage.VaultHeads, error)
	// HeadHistory returns heads of a vault that the reachable peers keep, from
	// the newest to the oldest below a cursor, verified; none: no more.
	HeadHistory(ctx context.Context, owner grid.OwnerID, vault storage.VaultID, below storage.HeadCursor) ([]storage.SignedHead, error)
	// Survey asks who has which shards; see segments.Segments.
	Survey(ctx context.Context, asks []segments.Ask) ([]segments.Survey, error)
	// Delete hands signed deletions to every member and returns who has them
	// durably, and who has not.
	Delete(ctx context.Context, raw [][]byte) (acked, silent []grid.PeerID, err error)
	// Deletions calls each with the signed deletions of a vault that members keep,
	// verified, some more than once, and returns how many of them answered.
	Deletions(ctx context.Context, owner grid.OwnerID, vault storage.VaultID, each func(storage.SignedDeletion)) (answered, members int, err error)
	// List yields the segments of a vault of which a reachable member stores a
	// shard, some more than once; an error is about one peer.
	List(ctx context.Context, vault storage.VaultID) iter.Seq2[storage.SegmentID, error]
	// Header returns the header of a segment, by whoever has a shard of it.
	Header(ctx context.Context, id storage.SegmentID) (storage.SignedHeader, error)
}

// Stored says how a segment was stored.
type Stored struct {
	ID            storage.SegmentID
	Redundancy    storage.Redundancy
	ShardBytes    int
	Holders       []storage.Holder // of the shards that were acknowledged
	Committed     bool             // enough shards are durable for the commit rule
	Complete      bool             // all n shards are
	SurvivesSites int              // how many sites may vanish
}
