package segments

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/placement"
)

// Holders gives access to the other peers.
type Holders interface {
	// Shards returns the store of a peer; for this peer its own. It does not
	// wait for the network.
	Shards(peer grid.PeerID) (storage.RemoteShards, error)

	// Candidates returns the peers that may take shards of a segment that
	// signer signed for owner: who gives disk on another site than signer's, or
	// than all of owner's while signer is no member. Those who are away now and
	// were here lately are marked. This peer may be among them.
	Candidates(ctx context.Context, owner grid.OwnerID, signer grid.PeerID) []placement.Candidate

	// Members returns all active members, to be asked what they have. This
	// peer may be among them.
	Members() []grid.PeerID

	// Site returns the failure domain of a member, "" when it is not known.
	Site(peer grid.PeerID) string
}

// Defaults of Config.
const (
	DefaultMemoryBytes     = 96 << 20
	DefaultIdleTimeout     = time.Minute
	DefaultCommitTimeout   = 2 * time.Minute
	DefaultAskTimeout      = 10 * time.Second
	DefaultHedgeMin        = time.Second
	DefaultHedgeFactor     = 3
	DefaultStragglerMin    = 5 * time.Second
	DefaultStragglerFactor = 2
	DefaultFloor           = 7 * 24 * time.Hour
)

// Config is what Segments needs. Zero numbers and durations mean their
// defaults.
type Config struct {
	Holders Holders
	Node    ed25519.PrivateKey // signs headers
	Grant   func() []byte      // encoded delegation of Owner to this peer, for headers
	Vault   storage.VaultID
	Owner   grid.OwnerID
	// Redundancy returns how to code the next segment; nil or a zero value
	// means by the number of sites (placement.Auto).
	Redundancy func() storage.Redundancy
	Floor      func() time.Duration // retention floor put into headers; nil: DefaultFloor
	// Doubt is told who did not give a shard that it is thought to have, or gave
	// a wrong one; nil: nobody is. It does not wait.
	Doubt func(peer grid.PeerID, shard storage.ShardID)
	Spool *Spool // where segments wait for their stragglers; nil: nowhere

	// MemoryBytes bounds the shards held in memory by all calls together; a
	// call that finds no room waits. One segment always has room.
	MemoryBytes int64

	IdleTimeout   time.Duration // a transfer that stands still this long has failed
	CommitTimeout time.Duration // the same from a shard's last byte until it is durable
	AskTimeout    time.Duration // for questions to many peers at once, in all

	// A transfer is slow when it takes longer than HedgeMin and longer than
	// HedgeFactor times the slowest one that is done; another peer is then
	// tried beside it.
	HedgeMin    time.Duration
	HedgeFactor float64

	// Once a segment is committed, transfers that still run are given
	// StragglerMin, or StragglerFactor times the slowest that is done.
	StragglerMin    time.Duration
	StragglerFactor float64

	Logger *slog.Logger
}

// Validate returns all faults of c together.
func (c Config) Validate() error {
	var faults []error
	if c.Holders == nil {
		faults = append(faults, errors.New("no holders"))
	}
	if c.Grant != nil && len(c.Node) != ed25519.PrivateKeySize {
		faults = append(faults, fmt.Errorf("node key of %d bytes", len(c.Node)))
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("segments: %w", err)
	}
	return nil
}

func (c Config) filled() Config {
	if c.Floor == nil {
		c.Floor = func() time.Duration { return DefaultFloor }
	}
	orDefault(&c.MemoryBytes, DefaultMemoryBytes)
	orDefault(&c.IdleTimeout, DefaultIdleTimeout)
	orDefault(&c.CommitTimeout, DefaultCommitTimeout)
	orDefault(&c.AskTimeout, DefaultAskTimeout)
	orDefault(&c.HedgeMin, DefaultHedgeMin)
	orDefault(&c.HedgeFactor, DefaultHedgeFactor)
	orDefault(&c.StragglerMin, DefaultStragglerMin)
	orDefault(&c.StragglerFactor, DefaultStragglerFactor)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func orDefault[T int64 | float64 | time.Duration](v *T, fallback T) {
	if *v <= 0 {
		*v = fallback
	}
}

// Segments puts and gets the segments of one vault. It is safe for concurrent
// use. Without a Grant it only reads, which needs neither a vault nor a key.
type Segments struct {
	cfg      Config
	self     grid.PeerID
	memory   *semaphore.Weighted
	buffers  buffers
	peers    peers
	problems problems
	headers  headerCache
	running  sync.WaitGroup
}

// New returns Segments; it starts nothing.
func New(cfg Config) (*Segments, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Segments{cfg: cfg.filled()}
	s.memory = semaphore.NewWeighted(s.cfg.MemoryBytes)
	s.buffers.limit = int(s.cfg.MemoryBytes)
	if len(cfg.Node) > 0 {
		s.self = grid.PeerIDOf(cfg.Node.Public().(ed25519.PublicKey))
	}
	return s, nil
}

// Close returns when every transfer that was given up has ended too, and gives
// the memory back. It cancels nothing: end the contexts of the calls first.
func (s *Segments) Close() {
	s.running.Wait()
	s.buffers.empty()
}

// Forgive lets a peer be used again at once that was left alone because it did
// not answer. Call it when the peer is known to be back; one that delivered
// wrong bytes stays where it is.
func (s *Segments) Forgive(peer grid.PeerID) { s.peers.forgive(peer) }

// reserve waits until need bytes may be used. A need beyond the whole takes
// the whole.
func (s *Segments) reserve(ctx context.Context, need int) (release func(), err error) {
	n := min(int64(need), s.cfg.MemoryBytes)
	if err := s.memory.Acquire(ctx, n); err != nil {
		return nil, context.Cause(ctx)
	}
	return func() { s.memory.Release(n) }, nil
}
