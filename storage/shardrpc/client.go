package shardrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"

	"gotong/grid"
	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
)

// Defaults of ClientConfig.
const (
	// DefaultIdleTimeout is long because on a slow line a transfer waits behind
	// others on the same connection; a dead line is found by gRPC's pings.
	DefaultIdleTimeout = 2 * time.Minute
	// DefaultCommitTimeout is long because a commit waits for what is still in
	// the buffers of a slow line, and then for the holder's disk.
	DefaultCommitTimeout = 2 * time.Minute
	DefaultCallTimeout   = 30 * time.Second
)

// putHeadsBytes bounds the heads of one message; longer chains take several.
const putHeadsBytes = 512 << 10

// maxListed bounds what one List may yield: a holder cannot make the caller
// read for ever.
const maxListed = 16 << 20

// ClientConfig tunes a Client. Zero fields mean their defaults.
type ClientConfig struct {
	IdleTimeout   time.Duration // how long a transfer may stand still
	CommitTimeout time.Duration // from the last byte to durable
	CallTimeout   time.Duration // of a question, for each message of the answer
}

func (c ClientConfig) filled() ClientConfig {
	if c.IdleTimeout <= 0 {
		c.IdleTimeout = DefaultIdleTimeout
	}
	if c.CommitTimeout <= 0 {
		c.CommitTimeout = DefaultCommitTimeout
	}
	if c.CallTimeout <= 0 {
		c.CallTimeout = DefaultCallTimeout
	}
	return c
}

// Client is the store of another peer. Its methods return the same errors as
// a local store, wrapped in one that names the peer, and besides them
// grid.ErrUnreachable, ErrStalled, ErrBusy and ErrProtocol.
//
// Nothing that comes from the peer is believed: headers are checked against
// the id that was asked for, every list is bounded, and bytes are whatever the
// peer sent until the caller has verified them.
type Client struct {
	rpc  shardsv1.ShardsClient
	peer grid.PeerID
	cfg  ClientConfig
}

// NewClient returns the store behind conn, which leads to peer. The connection
// stays the caller's.
func NewClient(conn grpc.ClientConnInterface, peer grid.PeerID, cfg ClientConfig) *Client {
	return &Client{rpc: shardsv1.NewShardsClient(conn), peer: peer, cfg: cfg.filled()}
}

// Peer returns whose store it is.
func (c *Client) Peer() grid.PeerID { return c.peer }

func (c *Client) fail(op string, shard storage.ShardID, err error) error {
	return &storage.Error{Op: op, Shard: shard, Peer: c.peer, Err: err}
}

// Have implements storage.ShardStater.
func (c *Client) Have(ctx context.Context, ids []storage.SegmentID) ([]storage.SegmentAnswer, error) {
	answers, err := c.have(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("ask %s for %d segments: %w", c.peer.Short(), len(ids), err)
	}
	return answers, nil
}

func (c *Client) have(ctx context.Context, ids []storage.SegmentID) ([]storage.SegmentAnswer, error) {
	if len(ids) > storage.MaxHave {
		return nil, violation("%d segments asked, at most %d", len(ids), storage.MaxHave)
	}
	ctx, p := withPulse(ctx, c.cfg.CallTimeout)
	defer p.stop(nil)
	var stream shardsv1.Shards_HaveClient
	err := p.wait(func() (err error) {
		stream, err = c.rpc.Have(ctx, &shardsv1.HaveRequest{Segments: segmentsToWire(ids)})
		return err
	})
	if err != nil {
		return nil, fromStatus(ctx, err)
	}
	answers := make([]storage.SegmentAnswer, 0, len(ids))
	err = receiveAll(ctx, p, stream, func(m *shardsv1.HaveResponse) error {
		for _, wire := range m.GetSegments() {
			if len(answers) == len(ids) {
				return violation("more answers than questions")
			}
			answer, err := answerFromWire(wire, ids[len(answers)])
			if err != nil {
				return err
			}
			answers = append(answers, answer)
		}
		return nil
	})
	if err == nil && len(answers) != len(ids) {
		err = violation("%d answers to %d questions", len(answers), len(ids))
	}
	return answers, err
}

// receiveAll calls each with every message of a stream until it ends well.
func receiveAll[M any](ctx context.Context, p *pulse, stream interface{ Recv() (*M, error) }, each func(*M) error) error {
	for {
		var m *M
		err := p.wait(func() (err error) {
			m, err = stream.Recv()
			return err
		})
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fromStatus(ctx, err)
		}
		if err := each(m); err != nil {
			return err
		}
	}
}

// List implements storage.ShardLister: the shards of the vault that the peer
// stores and that this peer may know of.
func (c *Client) List(ctx context.Context, vault storage.VaultID) iter.Seq2[storage.ShardID, error] {
	return func(yield func(storage.ShardID, error) bool) {
		if err := c.list(ctx, vault, yield); err != nil && !errors.Is(err, errStopped) {
			yield(storage.ShardID{}, fmt.Errorf("list vault %s at %s: %w", vault.Short(), c.peer.Short(), err))
		}
	}
}

// errStopped says that whoever ranges over a list wants no more of it.
var errStopped = errors.New("stopped")

func (c *Client) list(ctx context.Context, vault storage.VaultID, yield func(storage.ShardID, error) bool) error {
	ctx, p := withPulse(ctx, c.cfg.CallTimeout)
	defer p.stop(nil)
	var stream shardsv1.Shards_ListClient
	err := p.wait(func() (err error) {
		stream, err = c.rpc.List(ctx, &shardsv1.ListRequest{Vault: vault[:]})
		return err
	})
	if err != nil {
		return fromStatus(ctx, err)
	}
	listed := 0
	return receiveAll(ctx, p, stream, func(m *shardsv1.ListResponse) error {
		for _, name := range m.GetShards() {
			id, err := shardFromWire(name.GetSegment(), name.GetIndex())
			if err != nil {
				return err
			}
			if listed++; listed > maxListed {
				return violation("more than %d shards", maxListed)
			}
			if !yield(id, nil) {
				return errStopped
			}
		}
		return nil
	})
}
