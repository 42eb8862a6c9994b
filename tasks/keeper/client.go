package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks"
)

// Client is another peer as a keeper. It implements Peer.
type Client struct{ rpc tasksv1.KeepersClient }

var _ Peer = (*Client)(nil)

// NewClient returns a client of the peer at the other end of conn. It neither
// opens nor closes conn.
func NewClient(conn grpc.ClientConnInterface) *Client {
	return &Client{tasksv1.NewKeepersClient(conn)}
}

// Put implements Peer.
func (c *Client) Put(ctx context.Context, r PutRequest) error {
	_, err := c.rpc.PutJob(ctx, &tasksv1.PutJobRequest{Plan: r.Plan, Keepers: listToProto(r.List), Statements: r.Statements})
	return fromStatus(err)
}

// Append implements Peer.
func (c *Client) Append(ctx context.Context, r AppendRequest) (out AppendResponse, err error) {
	m, err := c.rpc.AppendJob(ctx, &tasksv1.AppendJobRequest{
		Job: r.Job[:], Epoch: r.Epoch, Proof: r.Proof, Batches: batchesToProto(r.Batches), Keepers: listToProto(r.List),
		Said: r.Said, Statements: r.Statements,
	})
	if err != nil {
		return out, fromStatus(err)
	}
	if out.Have, err = vectorFromProto(m.Have); err != nil {
		return out, err
	}
	out.Lead, err = streamFromProto(m.Epoch, m.Driver)
	out.Said, out.Statements = m.Said, m.Statements
	return out, err
}

func stateToProto(r StateRequest) *tasksv1.JobStateRequest {
	return &tasksv1.JobStateRequest{
		Job: r.Job[:], Proof: r.Proof, Have: vectorToProto(r.Have), Keepers: listToProto(r.List), Statements: r.Statements,
	}
}

// State implements Peer.
func (c *Client) State(ctx context.Context, r StateRequest) (out State, err error) {
	m, err := c.rpc.JobState(ctx, stateToProto(r))
	if err != nil {
		return out, fromStatus(err)
	}
	if out.Have, err = vectorFromProto(m.Have); err != nil {
		return out, err
	}
	if out.Lead, err = streamFromProto(m.Epoch, m.Driver); err != nil {
		return out, err
	}
	out.List, err = listFromProto(m.Keepers)
	out.Heard, out.Driving = max(0, time.Duration(m.HeardNanos)), m.Driving
	out.Statements, out.Over, out.Generation = m.Statements, m.Over, m.Generation
	return out, err
}

// Read implements Peer.
func (c *Client) Read(ctx context.Context, r ReadRequest, receive func([]Batch) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.ReadJob(ctx, &tasksv1.ReadJobRequest{Job: r.Job[:], Proof: r.Proof, Have: vectorToProto(r.Have)})
	if err != nil {
		return fromStatus(err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fromStatus(err)
		}
		batches, err := batchesFromProto(m.Batches)
		if err == nil {
			err = receive(batches)
		}
		if err != nil {
			return err
		}
	}
}

// Plan implements Peer.
func (c *Client) Plan(ctx context.Context, r StateRequest) ([]byte, error) {
	m, err := c.rpc.JobPlan(ctx, stateToProto(r))
	return m.GetPlan(), fromStatus(err)
}

// maxListed bounds what is believed of a list of jobs.
const maxListed = 1 << 14

// Jobs implements Peer.
func (c *Client) Jobs(ctx context.Context) ([]Listed, error) {
	m, err := c.rpc.ListJobs(ctx, &tasksv1.ListJobsRequest{})
	if err != nil {
		return nil, fromStatus(err)
	}
	if len(m.Jobs) > maxListed {
		return nil, fmt.Errorf("%w: %d jobs", ErrInvalid, len(m.Jobs))
	}
	out := make([]Listed, len(m.Jobs))
	for i, l := range m.Jobs {
		if out[i], err = listedFromProto(l); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func listedFromProto(m *tasksv1.ListedJob) (l Listed, err error) {
	if l.Job, err = jobFromBytes(m.GetJob()); err != nil {
		return l, err
	}
	if l.Have, err = vectorFromProto(m.GetHave()); err != nil {
		return l, err
	}
	if l.Lead, err = streamFromProto(m.GetEpoch(), m.GetDriver()); err != nil {
		return l, err
	}
	l.List, err = listFromProto(m.GetKeepers())
	l.Summary = m.GetSummary()
	return l, err
}

// Say implements Peer.
func (c *Client) Say(ctx context.Context, job tasks.JobID, statement []byte) error {
	_, err := c.rpc.SayOfJob(ctx, &tasksv1.SayOfJobRequest{Job: job[:], Statement: statement})
	return fromStatus(err)
}
