package keeper

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/tasks"
)

// Bounds and times.
const (
	// Copies is how many keepers a job has where there are as many peers.
	Copies = 3
	// durableCopies is how many of them have a job on disk before Submit
	// returns.
	durableCopies = 2

	// DefaultLease is how long a driver may be silent before another takes over.
	DefaultLease = 10 * time.Second
	// DefaultGrace is how long a keeper may be away before another peer
	// replaces it.
	DefaultGrace = 10 * time.Minute
	// DefaultRetention is how long a job is kept after its end.
	DefaultRetention = 7 * 24 * time.Hour
	// DefaultJobs and DefaultBytes bound what is kept here.
	DefaultJobs  = 256
	DefaultBytes = 4 << 30

	// MaxPlanBytes bounds an encoded plan.
	MaxPlanBytes = 2 << 20
	// MaxRecordBytes bounds an encoded record.
	MaxRecordBytes = 3<<20 + 768<<10
	// maxLife bounds for how long from now a job may last.
	maxLife = 400 * 24 * time.Hour
	// maxStreams bounds the epochs of a job.
	maxStreams = 4096
	// maxKeepers bounds a list of keepers.
	maxKeepers = 8
	// maxEpochJump bounds by how much an epoch may exceed those known here, so
	// that nobody uses them up.
	maxEpochJump = 1 << 20

	// beats is how often in a lease a driver shows that it is there.
	beats = 4
	// tailBytes is how much of the newest records a driver keeps in memory for
	// those that follow closely; others are served from the journal.
	tailBytes = 4 << 20
	// statementsMax bounds the statements of the owner on one job.
	statementsMax = 64
)

// Errors that cross the wire. Test with errors.Is.
var (
	// ErrUnknownJob: the job is not kept there, or the caller may not know.
	ErrUnknownJob = errors.New("no such job here")
	// ErrRefused: the peer does not keep this job; why is in the text.
	ErrRefused = errors.New("does not keep the job")
	// ErrDenied: a signature, a delegation or a proof does not hold.
	ErrDenied = errors.New("not allowed")
	// ErrInvalid: bytes that no honest keeper sends.
	ErrInvalid = errors.New("invalid message between keepers")
	// ErrTooFew: no peer is there that may keep the job.
	ErrTooFew = errors.New("no peer can keep the job")
	// ErrDeposed: another keeper drives the job now.
	ErrDeposed = errors.New("another keeper drives the job")
	// ErrOver: the job has ended, so it cannot be cancelled.
	ErrOver = errors.New("it has ended")
	// ErrNotOver: the job has not ended, so nothing can be retried.
	ErrNotOver = errors.New("it has not ended")
	errGap     = fmt.Errorf("%w: records are missing before these", ErrInvalid)
)

// Policy says whose peers may keep a job.
type Policy string

// The policies of a plan.
const (
	KeepersMine    Policy = "mine"    // the owner's other devices
	KeepersFriends Policy = "friends" // peers of others
	KeepersAny     Policy = "any"
)

// Plan is what a keeper needs to know of a job's plan.
type Plan struct {
	Job       tasks.JobID
	Owner     grid.OwnerID
	Submitter grid.PeerID
	Created   time.Time
	Expires   time.Time     // when the job ends at the latest
	Retention time.Duration // after the end; 0: the keeper's own
	Keepers   Policy
}

// KeptUntil returns when the job's keepers forget it: its retention (own when it
// says none) after the end, or own after the time by which it has to be over.
func (p Plan) KeptUntil(over bool, ended time.Time, own time.Duration) time.Time {
	most := p.Expires.Add(own)
	if !over {
		return most
	}
	retention := p.Retention
	if retention <= 0 {
		retention = own
	}
	if ended.Before(p.Created) { // by the clock of a driver that is wrong
		ended = p.Created
	}
	return earlier(ended.Add(retention), most)
}

// Mark is what a keeper needs to know of a record.
type Mark struct {
	Stream     Stream
	At         time.Time
	Generation uint32 // how often the job was begun anew
	Ended      bool   // the job is over
	ByOwner    Kind   // KindCancel, KindRetry: it says that the owner wanted this; else zero
}

// Book reads and makes what the keepers store without understanding it.
type Book interface {
	// OpenPlan verifies a plan's signature and reads it.
	OpenPlan(raw []byte) (Plan, error)
	// Mark reads a record.
	Mark(raw []byte) (Mark, error)
	// Begun returns the record with which a driver begins.
	Begun(s Stream, generation uint32, at time.Time) ([]byte, error)
	// Cancelled returns the record that ends a job as its owner wants.
	Cancelled(s Stream, generation uint32, at time.Time, why string) ([]byte, error)
	// Expired returns the record that ends a job whose time is over.
	Expired(s Stream, generation uint32, at time.Time) ([]byte, error)
	// Retried returns the record that begins a generation: what failed in the
	// journal is to be run again.
	Retried(s Stream, generation uint32, at time.Time, j Journal) ([]byte, error)
	// Summary returns what is told of a job in lists.
	Summary(j Journal) ([]byte, error)
}

// Store has the kept jobs of this peer on its disk. Methods are safe for
// concurrent use.
type Store interface {
	// Create makes a job durable. Creating one that is there opens it.
	Create(job tasks.JobID, plan []byte) (Journal, error)
	Open(job tasks.JobID) (Journal, error)
	Jobs() ([]tasks.JobID, error)
	Remove(job tasks.JobID) error
}

// Journal is one job on the disk.
type Journal interface {
	Plan() []byte
	// Append returns when the records are durable.
	Append(records [][]byte) error
	// Records calls f for those that were appended before the call, in order.
	// The slice is f's to keep.
	Records(f func(raw []byte) error) error
	// Bytes returns the size of plan and journal.
	Bytes() int64
	// Note returns what SaveNote stored last; nil at first.
	Note() ([]byte, error)
	SaveNote(note []byte) error
	Close() error
}

// Member is a peer of the grid as the choice of keepers sees it.
type Member struct {
	Peer  grid.PeerID
	Owner grid.OwnerID
	Site  string
}

// Grid tells who is there. Methods are cheap and safe for concurrent use.
type Grid interface {
	// Alive returns the members that answer, this one too.
	Alive() []Member
	// Away returns the members that do not.
	Away() []grid.PeerID
	// OwnerOf returns the owner of an active member.
	OwnerOf(peer grid.PeerID) (grid.OwnerID, bool)
	// EverOwnerOf returns the owner of a member, active or removed.
	EverOwnerOf(peer grid.PeerID) (grid.OwnerID, bool)
	// Member reports whether an owner is a member.
	Member(owner grid.OwnerID) bool
}

// Peer is another keeper, or one that may become one.
type Peer interface {
	Put(ctx context.Context, r PutRequest) error
	Append(ctx context.Context, r AppendRequest) (AppendResponse, error)
	State(ctx context.Context, r StateRequest) (State, error)
	// Read calls receive for all records beyond r.Have, in order of each stream.
	Read(ctx context.Context, r ReadRequest, receive func([]Batch) error) error
	// Plan returns the plan as it was signed.
	Plan(ctx context.Context, r StateRequest) ([]byte, error)
	Jobs(ctx context.Context) ([]Listed, error)
	Say(ctx context.Context, job tasks.JobID, statement []byte) error
}

// Driven is a job in the hands of its driver.
type Driven struct {
	Job        tasks.JobID
	Stream     Stream
	Generation uint32
	Journal    Journal
	// Append returns when the records, which must be of Stream, are durable
	// here and at another keeper, if one is reached. It is called by one
	// goroutine at a time.
	Append func(records [][]byte) error
}

// Config is what a Keeper needs. Times and bounds that are zero mean the
// defaults.
type Config struct {
	Key   ed25519.PrivateKey // of the node
	Owner grid.OwnerID
	Grid  Grid
	Peers func(peer grid.PeerID) (Peer, error)
	Store Store
	Book  Book
	// Drive runs the job until a record that ends it was appended (nil) or ctx
	// ends. An error that is not that of ctx is logged, and tried again.
	Drive func(ctx context.Context, job Driven) error

	Lease     time.Duration
	Grace     time.Duration
	Retention time.Duration
	Jobs      int // kept at once; negative: none
	Bytes     int64
	Logger    *slog.Logger
}

func (c Config) withDefaults() Config {
	or := func(d *time.Duration, standard time.Duration) {
		if *d == 0 {
			*d = standard
		}
	}
	or(&c.Lease, DefaultLease)
	or(&c.Grace, DefaultGrace)
	or(&c.Retention, DefaultRetention)
	if c.Jobs == 0 {
		c.Jobs = DefaultJobs
	}
	if c.Bytes == 0 {
		c.Bytes = DefaultBytes
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) self() grid.PeerID { return grid.PeerIDOf(c.Key.Public().(ed25519.PublicKey)) }

// DomainStatement is the signing domain of what owners say of their jobs.
const DomainStatement identity.Domain = "gotong job statement v1"
