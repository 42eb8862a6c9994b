package contents

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/tasks"
)

// Bounds of calls.
const (
	// putsAtOnce is how many pieces of one content are stored at once.
	putsAtOnce = 3
	// pieceTries is how often a piece is tried to be stored before the content
	// is given up; retryAfter passes in between.
	pieceTries = 3
	retryAfter = 2 * time.Second
	// fetchesAtOnce is how many pieces one reader fetches at once, and
	// fetchesAhead how many all readers fetch beyond one each.
	fetchesAtOnce = 3
	fetchesAhead  = 4
	// holdersNamed is how many holders a Stored names: any of them knows the
	// others.
	holdersNamed = 16
)

// ErrNowhere says that no other site takes segments, so that contents can only
// be handed from peer to peer.
var ErrNowhere = errors.New("no other site keeps contents of jobs")

// Segments is what Contents needs of *segments.Segments.
type Segments interface {
	PutForJob(ctx context.Context, data []byte, grant storage.SignedJobGrant, expires time.Time) (segments.Put, error)
	Get(ctx context.Context, id storage.SegmentID, hint segments.Hint) ([]byte, error)
	Locate(ctx context.Context, ids []storage.SegmentID, peers []grid.PeerID) (map[storage.SegmentID][]storage.Holder, error)
	Header(ctx context.Context, id storage.SegmentID, holders []storage.Holder) (storage.SignedHeader, error)
	Survey(ctx context.Context, asks []segments.Ask) ([]segments.Survey, error)
}

// Contents stores and fetches contents of jobs. It is safe for concurrent use.
type Contents struct {
	segments Segments
	ahead    chan struct{} // fetchesAhead tokens
}

// New returns Contents over the segments of a peer.
func New(s Segments) *Contents {
	return &Contents{segments: s, ahead: make(chan struct{}, fetchesAhead)}
}

// Job is the job to which contents belong.
type Job struct {
	ID    tasks.JobID
	Key   tasks.Key
	Grant []byte // see storage.JobGrant; not needed to read
	// Expires is until when contents that are put are kept; zero: as long as the
	// grant holds.
	Expires time.Time
}

// grant verifies the grant of j and says until when contents are kept.
func (j Job) grant() (storage.SignedJobGrant, time.Time, error) {
	g, err := storage.OpenJobGrant(j.Grant)
	if err != nil {
		return g, time.Time{}, err
	}
	if g.Job != j.ID || j.Key.IsZero() {
		return g, time.Time{}, fmt.Errorf("%w: grant of job %s, or no key", storage.ErrDenied, tasks.JobID(g.Job).Short())
	}
	if expires := j.Expires; !expires.IsZero() && expires.Before(g.Expires) {
		return g, expires, nil
	}
	return g, g.Expires, nil
}

// Bytes returns what storing a content of size bytes counts in JobGrant.OutputBytes,
// at most: pieces are sealed and padded to whole shards.
func Bytes(size int64) int64 {
	pieces := (size + tasks.StoredPieceBytes - 1) / tasks.StoredPieceBytes
	return size + pieces*pieceOverhead
}

// pieceOverhead is what sealing adds to a piece, and padding at most.
const pieceOverhead = 4 << 10
