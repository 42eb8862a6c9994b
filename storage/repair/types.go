package repair

import (
	"context"
	"iter"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/shardstore"
)

// Store is what this peer keeps for others; *shardstore.Store is one.
type Store interface {
	storage.DeletionStore

	Segments(ctx context.Context) iter.Seq2[shardstore.Held, error]
	Header(ctx context.Context, id storage.SegmentID) (storage.SignedHeader, []storage.Holder, error)
	Deleted(owner grid.OwnerID, vault storage.VaultID, id storage.SegmentID) bool
	Vaults() []shardstore.HeldVault
	All(ctx context.Context) iter.Seq2[storage.ShardID, error]
	Verify(ctx context.Context, id storage.ShardID) error
	DeleteShard(ctx context.Context, id storage.ShardID) error
	SetAside(ctx context.Context, id storage.ShardID) error
	TakeBack(ctx context.Context, id storage.ShardID) error
	Discard(ctx context.Context, id storage.ShardID) (freed int64, err error)
	EmptyTrash(ctx context.Context, all bool) (freed int64, err error)
	DropOwner(ctx context.Context, owner grid.OwnerID) (shardstore.Holding, error)
	FreeGivenUp(ctx context.Context) (freed int64, err error)
	NoteRemoved(owners []grid.OwnerID) (map[grid.OwnerID]time.Duration, error)
	Stats() shardstore.Stats
}

// Row is what the own vault knows of a segment that it needs.
type Row struct {
	ID            storage.SegmentID
	Redundancy    storage.Redundancy
	Holders       []storage.Holder
	Committed     bool // enough shards are durable for the commit rule
	Complete      bool // all are
	Lost          bool // cannot be had back
	SurvivesSites int  // how many sites may vanish now
}

// Rows is the own vault.
type Rows interface {
	// Segments yields all segments that the vault needs, in no order.
	Segments(ctx context.Context) iter.Seq2[Row, error]
	// Observe takes what is true of some of them now.
	Observe(ctx context.Context, rows []Row) error
}

// Segments moves shards; *segments.Segments does.
type Segments interface {
	Survey(ctx context.Context, asks []segments.Ask) ([]segments.Survey, error)
	Header(ctx context.Context, id storage.SegmentID, holders []storage.Holder) (storage.SignedHeader, error)
	Rebuild(ctx context.Context, job segments.RebuildJob) (segments.Rebuilt, error)
	Audit(ctx context.Context, peer grid.PeerID, shard storage.ShardID, root [32]byte, shardBytes int, groups []int) error
}

// Grid is who there is.
type Grid interface {
	// Peers returns all members, this one among them.
	Peers() []grid.Peer
	// Removed returns the peers that were removed or left.
	Removed() []grid.Peer
	// Shards returns the store of a peer; for this peer its own.
	Shards(peer grid.PeerID) (storage.RemoteShards, error)
}

// Summary is what one round found and did.
type Summary struct {
	At       time.Time
	Segments int   // looked at
	Healthy  int   // all shards where they should be, or expected back
	Degraded int   // some lost
	Critical int   // of those degraded: no shard more may be lost
	Lost     int   // fewer than k can be had
	Waiting  int   // degraded, another peer's turn
	Rebuilt  int   // shards made anew
	Moved    int   // shards handed to a better place
	Bytes    int64 // moved for both
	Problem  string
}
