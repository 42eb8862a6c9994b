package taskrpc

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"google.golang.org/grpc"

	"gotong/grid"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks/scheduler"
)

// Claim implements scheduler.Worker.
func (c *Client) Claim(ctx context.Context, h scheduler.Header) (scheduler.Session, error) {
	stream, err := c.rpc.Work(ctx, grpc.MaxCallRecvMsgSize(MaxMessageBytes))
	if err != nil {
		return nil, fromStatus(err)
	}
	if err := stream.Send(&tasksv1.WorkRequest{Begin: headerToProto(h)}); err != nil && !errors.Is(err, io.EOF) {
		return nil, fromStatus(err)
	}
	p, err := stream.Recv()
	if err != nil {
		return nil, endOf(err)
	}
	grant := p.GetGrant()
	key := ed25519.PublicKey(grant.GetKey())
	if len(key) != ed25519.PublicKeySize || grid.PeerIDOf(key) != c.peer {
		return nil, fmt.Errorf("%w: grant with another peer's key", scheduler.ErrViolation)
	}
	if len(grant.Left) > scheduler.MaxLeft {
		return nil, fmt.Errorf("%w: %d tasks of another caller", scheduler.ErrViolation, len(grant.Left))
	}
	left, err := indicesFromProto(grant.Left)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", scheduler.ErrViolation, err)
	}
	return &session{
		stream: stream, header: h, peer: c.peer, key: key, left: left,
		slots: int(min(grant.Slots, math.MaxInt32)),
		seeds: map[int][32]byte{},
	}, nil
}

// endOf says why a stream ended.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("worker ended the claim")
	}
	return fromStatus(err)
}

// session is a claim on the worker of another peer.
type session struct {
	stream grpc.BidiStreamingClient[tasksv1.WorkRequest, tasksv1.WorkResponse]
	header scheduler.Header
	peer   grid.PeerID
	key    ed25519.PublicKey
	slots  int
	left   []int

	mu    sync.Mutex
	seeds map[int][32]byte // of the tasks that the worker has
}

func (s *session) Slots() int { return s.slots }

func (s *session) Left() []int { return s.left }

func (s *session) Done() { _ = s.stream.CloseSend() } // never an error

func (s *session) Send(o scheduler.Orders) error {
	s.mu.Lock()
	for _, order := range o.Tasks {
		s.seeds[order.Index] = order.Spec.Seed()
	}
	s.mu.Unlock()
	err := s.stream.Send(ordersToProto(o))
	if errors.Is(err, io.EOF) {
		return nil // Recv says why
	}
	return fromStatus(err)
}

func (s *session) Recv() (scheduler.Report, error) {
	p, err := s.stream.Recv()
	if err != nil {
		return scheduler.Report{}, endOf(err)
	}
	r, err := s.open(p)
	if err != nil {
		return scheduler.Report{}, fmt.Errorf("%w: %w", scheduler.ErrViolation, err)
	}
	return r, nil
}

// open verifies a message, then parses it.
func (s *session) open(p *tasksv1.WorkResponse) (scheduler.Report, error) {
	r := scheduler.Report{Closing: clip(p.Closing), Fetching: p.Fetching}
	if p.Grant != nil || len(p.Returned) > maxTasks {
		return r, invalid("message out of place")
	}
	for _, back := range p.Returned {
		index, err := parseIndex(back.GetIndex())
		if err != nil {
			return r, err
		}
		r.Returned = append(r.Returned, scheduler.Returned{Index: index, Why: clip(back.Why), Unfetched: back.Unfetched, Unfit: back.Unfit})
	}
	if len(p.Results) == 0 {
		return r, nil
	}
	proofs, err := scheduler.OpenResults(s.key, p.Signature, p.Results)
	if err != nil {
		return r, err
	}
	r.Results = make([]scheduler.SignedResult, len(proofs))
	for i, proof := range proofs {
		if r.Results[i], err = s.result(proof); err != nil {
			return r, err
		}
	}
	s.forget(r)
	return r, nil
}

// result parses one signed result and checks that it answers what was asked.
func (s *session) result(proof scheduler.Proof) (scheduler.SignedResult, error) {
	result, seed, err := decodeResult(proof.Raw)
	if err != nil {
		return scheduler.SignedResult{}, err
	}
	s.mu.Lock()
	want, ok := s.seeds[result.Task.Index]
	s.mu.Unlock()
	if !ok || want != seed || result.Task.Job != s.header.Job {
		return scheduler.SignedResult{}, fmt.Errorf("task %s is not one that was sent", result.Task.Short())
	}
	result.Peer = s.peer
	return scheduler.SignedResult{Result: result, Proof: proof}, nil
}

// forget drops the seeds of tasks that the worker no longer has.
func (s *session) forget(r scheduler.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, result := range r.Results {
		delete(s.seeds, result.Task.Index)
	}
	for _, back := range r.Returned {
		delete(s.seeds, back.Index)
	}
}

var _ scheduler.Session = (*session)(nil)
