package storage

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"iter"

	"gotong/grid"
)

// MaxHave bounds the segments of one Have.
const MaxHave = 4096

// Bounds of one answer of Heads, for each vault.
const (
	MaxHeadLinks     = 64      // newest links
	MaxHeadLinkBytes = 1 << 20 // bytes of those links; the newest is always given
	MaxHeadForks     = 16      // contradicting heads kept as evidence
	MaxOwnerVaults   = 64      // vaults of one owner on one holder
)

// ShardCreator takes shards.
type ShardCreator interface {
	// CreateShard begins shard index of the segment that header describes.
	// The holder list is kept beside the shard. ctx governs the writer too:
	// when it ends before Commit returned, nothing is stored.
	//
	// Errors: ErrExists when the shard is stored already (its holder list was
	// merged with the one given), ErrDeleted when a deletion names the segment,
	// ErrQuota, ErrFull, ErrDenied, ErrDisk. Commit may return them too. The
	// header must come from SignHeader or a Parse function.
	CreateShard(ctx context.Context, header SignedHeader, index int, holders []Holder) (ShardWriter, error)
}

// ShardWriter takes the bytes of one shard, ShardBytes in all. Exactly one of
// Commit and Abort ends it; Abort after Commit does nothing, so that it can be
// deferred. It is not for concurrent use. Write does not keep p.
type ShardWriter interface {
	io.Writer

	// Commit returns nil when the bytes match the root in the header and are
	// durable. After an error nothing was stored: ErrCorrupt when they do not
	// match, ErrFull, ErrDisk, or the error of the context.
	Commit() error

	// Abort forgets what was written.
	Abort()
}

// ShardOpener gives shards.
type ShardOpener interface {
	// OpenShard gives n bytes of a shard, be it stored or in the trash, from off;
	// n < 0 means to its end. A range beyond the end is an error. Errors: ErrNotFound, ErrCorrupt when
	// the shard is known to be bad, ErrDenied. ctx governs the reader too.
	OpenShard(ctx context.Context, id ShardID, off, n int64) (ShardReader, error)
}

// ShardReader reads a shard or a range of one. The caller closes it. A store
// that reads a whole shard verifies it on the way and ends a bad one with
// ErrCorrupt instead of io.EOF; over the wire nothing is sure, so whoever reads
// verifies against Header().Roots before using a byte.
//
// A reader may implement io.WriterTo.
type ShardReader interface {
	io.ReadCloser

	// Header returns the header stored with the shard; its id is the segment's.
	Header() SignedHeader

	// Holders returns the holder list kept beside the shard.
	Holders() []Holder
}

// ShardStater tells what is stored.
type ShardStater interface {
	// Have answers for each of at most MaxHave segments, in the order asked.
	Have(ctx context.Context, ids []SegmentID) ([]SegmentAnswer, error)
}

// SegmentAnswer is what one peer says about one segment. When a deletion that
// the peer keeps names the segment and the peer has nothing of it, the only
// answer is shard 0 as ShardDeleted, which stands for all of them. That says
// that somebody deleted a segment of this id in some vault: to act on it, ask
// for the Deletions and compare vault and owner with the header.
type SegmentAnswer struct {
	Segment SegmentID
	Shards  []ShardAnswer // by rising index; none when the peer has none
	Holders []Holder      // the holder list kept beside them; may be empty
}

// ShardAnswer is what one peer says about one shard.
type ShardAnswer struct {
	Index int
	State ShardState
}

// ShardLister lists shards.
type ShardLister interface {
	// List yields the stored shards of a vault ordered by id, or one error last.
	List(ctx context.Context, vault VaultID) iter.Seq2[ShardID, error]
}

// ShardDeleter removes shards.
type ShardDeleter interface {
	// DeleteShard removes a shard for good; ErrNotFound when there is none.
	DeleteShard(ctx context.Context, id ShardID) error
}

// HeadStore keeps the heads of vaults. What it holds is append-only: a head is
// dropped only when a newer one stands and its floor has passed.
type HeadStore interface {
	// PutHeads takes consecutive links of one vault, oldest first, at most
	// MaxPutHeads and MaxPutHeadBytes, as raw bytes that ParseHead accepts.
	// Links known already, and links older than all that are known, are
	// skipped. A store whose newest link is older than the first one given
	// takes them all the same and has a gap then; so whoever may have missed
	// links is sent those too.
	//
	// nil means that all are durable. Errors: ErrHeadGap when they do not
	// follow each other, ErrStaleEpoch when a higher epoch is known,
	// ErrHeadFork (the head is kept as evidence; one of a higher epoch than all
	// known is no fork but supersedes what it contradicts), ErrCorrupt,
	// ErrDenied, ErrQuota, ErrFull, ErrDisk. The links before the one that
	// failed may have been stored.
	PutHeads(ctx context.Context, raw [][]byte) error

	// Heads returns the newest heads of all vaults of owner, ordered by vault.
	Heads(ctx context.Context, owner grid.OwnerID) ([]VaultHeads, error)

	// HeadHistory returns heads of one vault, those of the chain and those off
	// it, from the newest to the oldest, beginning below the cursor: at most
	// MaxHeadLinks of together at most MaxHeadLinkBytes, and at least one while
	// there is any. The zero cursor begins with the newest; to go on, take that
	// of the last one returned. No heads: there are no more. So all that is kept
	// can be read, which is at least what is within its floor.
	HeadHistory(ctx context.Context, owner grid.OwnerID, vault VaultID, below HeadCursor) ([][]byte, error)
}

// HeadCursor is a place in the order of heads: by number, then by id.
type HeadCursor struct {
	Seq uint64
	ID  HeadID
}

// Cursor returns the place of s.
func (s SignedHead) Cursor() HeadCursor { return HeadCursor{s.Seq, s.ID} }

// IsZero reports whether c is the place above all heads.
func (c HeadCursor) IsZero() bool { return c == HeadCursor{} }

// Compare orders places.
func (c HeadCursor) Compare(other HeadCursor) int {
	return cmp.Or(cmp.Compare(c.Seq, other.Seq), bytes.Compare(c.ID[:], other.ID[:]))
}

// DeletionStore keeps deletions and carries them out. It keeps each for 400
// days of its running time, if its donor says nothing else.
type DeletionStore interface {
	// PutDeletions takes raw deletions that ParseDeletion accepts, of any vaults
	// in any order, at most MaxPutDeletions and MaxDeletionPage. nil means that
	// all are durable and that what they name is no longer stored: it is in the
	// trash, where it stays readable until its floor has passed on the holder's
	// running clock. Those known already are acknowledged again.
	//
	// Errors: ErrCorrupt, ErrDenied, ErrStaleEpoch when the store has a head of
	// the vault of a higher epoch than that of the grant: the owner took the vault
	// away from that device; ErrQuota (too many deletions of one owner, or more
	// than MaxSameNumber under one number), ErrFull, ErrDisk. Some of them may
	// have been taken.
	PutDeletions(ctx context.Context, raw [][]byte) error

	// Deletions returns the deletions of a vault of owner with a number higher
	// than after, by rising number, as many as one PutDeletions takes. Those of
	// one number come together, so to go on, take the number of the last one.
	// None: there are no more.
	Deletions(ctx context.Context, owner grid.OwnerID, vault VaultID, after uint64) ([][]byte, error)
}

// Bounds of proofs.
const (
	ProofGroupBytes = 16 << 10 // of a shard, that one proof covers
	MaxProofGroups  = 64       // in one Prove
)

// ProofGroups returns how many groups a shard has; the last may be shorter.
func ProofGroups(shardBytes int) int { return (shardBytes + ProofGroupBytes - 1) / ProofGroupBytes }

// ShardProver proves that shards are there.
type ShardProver interface {
	// Prove returns for each of 1 to MaxProofGroups groups of a shard the bytes
	// and the path from them to the root: a bao slice, to be verified by
	// erasure.VerifyProof. Errors: ErrNotFound, ErrCorrupt when the shard turned
	// out to be bad, which is then set aside.
	Prove(ctx context.Context, id ShardID, groups []int) ([][]byte, error)
}

// VaultHeads is what one store knows of the heads of one vault. A reader
// verifies every byte with ParseHead and takes the newest over all stores.
type VaultHeads struct {
	Vault VaultID
	Links [][]byte // raw, oldest first, at most MaxHeadLinks, perhaps with gaps; the last is the newest
	Forks [][]byte // raw heads off that chain, at most MaxHeadForks
}

// RemoteShards is all that one peer offers another.
type RemoteShards interface {
	ShardCreator
	ShardOpener
	ShardStater
	ShardLister
	HeadStore
	DeletionStore
	ShardProver
}
