package shardrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"gotong/grid"
	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
)

// Members tells who belongs to the grid.
type Members interface {
	// OwnerOf returns the owner of an active member, and false for all others.
	OwnerOf(peer grid.PeerID) (grid.OwnerID, bool)

	// PeerIDs returns all active members, this peer too, in any order.
	PeerIDs() []grid.PeerID
}

// Defaults of ServerConfig.
const (
	// DefaultServerIdle is long because a message on a slow line, shared with
	// others, takes minutes to arrive; a dead line is found by gRPC's pings.
	DefaultServerIdle      = 5 * time.Minute
	DefaultStreamsPerPeer  = 128
	DefaultCallsPerSecond  = 500
	DefaultCallsBurst      = 2000
	DefaultProofsPerSecond = 64 // one Prove of the largest size
	DefaultProofsBurst     = 4096
	haveChunk              = 128       // answers of one message
	headsChunkBytes        = 256 << 10 // heads of one message, together
	listWindow             = 512       // shards whose right to be seen is checked at once
)

// ServerConfig is what a Server needs. Zero fields mean their defaults.
type ServerConfig struct {
	Store   storage.RemoteShards
	Members Members
	// Caller returns the authenticated peer on whose connection a call came.
	Caller func(ctx context.Context) (grid.PeerID, bool)

	IdleTimeout     time.Duration // how long a transfer may stand still
	StreamsPerPeer  int           // Put and Get of one caller at once
	CallsPerSecond  float64       // of one caller, all methods together
	CallsBurst      int           // that a caller may save up
	ProofsPerSecond float64       // groups proved to one caller
	ProofsBurst     int
	Logger          *slog.Logger
}

func (c *ServerConfig) fill() error {
	if c.Store == nil || c.Members == nil || c.Caller == nil {
		return errors.New("shardrpc: a server needs a store, members and callers")
	}
	if c.IdleTimeout <= 0 {
		c.IdleTimeout = DefaultServerIdle
	}
	if c.StreamsPerPeer <= 0 {
		c.StreamsPerPeer = DefaultStreamsPerPeer
	}
	if c.CallsPerSecond <= 0 {
		c.CallsPerSecond = DefaultCallsPerSecond
	}
	if c.CallsBurst <= 0 {
		c.CallsBurst = DefaultCallsBurst
	}
	if c.ProofsPerSecond <= 0 {
		c.ProofsPerSecond = DefaultProofsPerSecond
	}
	if c.ProofsBurst <= 0 {
		c.ProofsBurst = DefaultProofsBurst
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Server answers the Shards service from a local store. Register it on a
// server that was made with grpc.ForceServerCodecV2(Codec()).
//
// Every member may call Put, Get, Have and Prove: a Put is judged by the signed
// header that comes with it, and whoever names a segment by its 256-bit id may
// read it. Heads and deletions are judged by their signatures, whoever hands them
// over. List and Heads show a caller only what belongs to its own owner, and the
// segments and vaults that it holds too. Deletions are shown to whoever names
// owner and vault: who held a vault may come back when nothing of it is left
// here but them.
type Server struct {
	shardsv1.UnimplementedShardsServer
	cfg     ServerConfig
	callers callers
	running sync.WaitGroup
}

// NewServer returns a Server; it starts nothing.
func NewServer(cfg ServerConfig) (*Server, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg}
	s.callers.limits = limits{cfg.StreamsPerPeer, cfg.CallsPerSecond, cfg.CallsBurst, cfg.ProofsPerSecond, cfg.ProofsBurst}
	return s, nil
}

// Wait returns when no call uses the store any more. Stop the gRPC server
// first, then wait, then close the store.
func (s *Server) Wait() { s.running.Wait() }

// caller is who asks.
type caller struct {
	peer  grid.PeerID
	owner grid.OwnerID
}

// admit returns who calls, or why the call is refused. done ends the call.
func (s *Server) admit(ctx context.Context, transfer bool) (c caller, done func(), err error) {
	peer, ok := s.cfg.Caller(ctx)
	if !ok {
		return caller{}, nil, grid.ErrNotMember
	}
	owner, ok := s.cfg.Members.OwnerOf(peer)
	if !ok {
		return caller{}, nil, grid.ErrNotMember
	}
	done, err = s.callers.enter(peer, transfer)
	if err != nil {
		return caller{}, nil, err
	}
	return caller{peer, owner}, done, nil
}

// call runs one streaming call. A step of run that waits for the caller longer
// than the idle limit ends the call; run itself then ends too, because its
// stream fails, and is waited for by Wait.
func (s *Server) call(ctx context.Context, transfer bool, run func(ctx context.Context, c caller, p *pulse) error) error {
	c, done, err := s.admit(ctx, transfer)
	if err != nil {
		return toStatus(err)
	}
	ctx, p := withPulse(ctx, s.cfg.IdleTimeout)
	result := make(chan error, 1)
	s.running.Go(func() {
		defer done()
		defer p.stop(nil)
		result <- run(ctx, c, p)
	})
	select {
	case err = <-result:
	case <-ctx.Done():
		err = context.Cause(ctx)
		select {
		case err = <-result: // run ended in the same moment
		default:
		}
	}
	if err != nil {
		s.cfg.Logger.Debug("shard call failed", "peer", c.peer, "err", err)
	}
	return toStatus(err)
}

// Have implements shardsv1.ShardsServer.
func (s *Server) Have(req *shardsv1.HaveRequest, stream shardsv1.Shards_HaveServer) error {
	return s.call(stream.Context(), false, func(ctx context.Context, _ caller, p *pulse) error {
		ids, err := segmentsFromWire(req.GetSegments())
		if err != nil {
			return err
		}
		answers, err := s.cfg.Store.Have(ctx, ids)
		if err != nil {
			return err
		}
		for len(answers) > 0 {
			n := min(haveChunk, len(answers))
			chunk := &shardsv1.HaveResponse{Segments: make([]*shardsv1.SegmentAnswer, n)}
			for i, a := range answers[:n] {
				chunk.Segments[i] = answerToWire(a)
			}
			if err := p.wait(func() error { return stream.Send(chunk) }); err != nil {
				return err
			}
			answers = answers[n:]
		}
		return nil
	})
}

// PutHeads implements shardsv1.ShardsServer. A head proves by its signature
// and grant whose it is, so any member may hand it over.
func (s *Server) PutHeads(ctx context.Context, req *shardsv1.PutHeadsRequest) (*shardsv1.PutHeadsResponse, error) {
	_, done, err := s.admit(ctx, false)
	if err != nil {
		return nil, toStatus(err)
	}
	defer done()
	s.running.Add(1)
	defer s.running.Done()
	size := 0
	for _, head := range req.GetHeads() {
		size += len(head)
	}
	if len(req.GetHeads()) > storage.MaxPutHeads || size > storage.MaxPutHeadBytes {
		return nil, toStatus(violation("%d heads of %d bytes in one call", len(req.GetHeads()), size))
	}
	if err := s.cfg.Store.PutHeads(ctx, req.GetHeads()); err != nil {
		return nil, toStatus(fmt.Errorf("put heads: %w", err))
	}
	return new(shardsv1.PutHeadsResponse), nil
}
