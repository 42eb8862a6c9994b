package taskrpc

import (
	"context"
	"errors"
	"io"
	"math"

	"google.golang.org/grpc"

	"gotong/grid"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// Client is the worker of another peer. It implements scheduler.Worker.
type Client struct {
	rpc  tasksv1.TasksClient
	peer grid.PeerID
}

var _ scheduler.Worker = (*Client)(nil)

// NewClient returns a client of the peer at the other end of conn. It neither
// opens nor closes conn.
func NewClient(conn grpc.ClientConnInterface, peer grid.PeerID) *Client {
	return &Client{tasksv1.NewTasksClient(conn), peer}
}

// Offer implements scheduler.Worker.
func (c *Client) Offer(ctx context.Context, h scheduler.Header) (scheduler.Offer, error) {
	p, err := c.rpc.Offer(ctx, &tasksv1.OfferRequest{Header: headerToProto(h)}, grpc.MaxCallRecvMsgSize(MaxMessageBytes))
	if err != nil {
		return scheduler.Offer{}, fromStatus(err)
	}
	offer := scheduler.Offer{
		Slots: int(min(p.Slots, math.MaxInt32)),
		Free:  int(min(p.Free, p.Slots, math.MaxInt32)),

		Engine: p.Engine,
		Left:   int(min(p.Left, scheduler.MaxLeft)),
	}
	if len(p.Engine) > maxEngineBytes {
		return scheduler.Offer{}, invalid("an engine of %d bytes", len(p.Engine))
	}
	if len(p.Missing) > tasks.MaxInputs+1 {
		return scheduler.Offer{}, invalid("%d contents missing", len(p.Missing))
	}
	for _, raw := range p.Missing {
		id, ok := parseContentID(raw)
		if !ok {
			return scheduler.Offer{}, invalid("bad content id")
		}
		offer.Missing = append(offer.Missing, id)
	}
	return offer, nil
}

// PutContent implements scheduler.Worker.
func (c *Client) PutContent(ctx context.Context, h scheduler.Header, id tasks.ContentID, size int64, r io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream when reading fails half-way
	stream, err := c.rpc.PutContent(ctx)
	if err != nil {
		return fromStatus(err)
	}
	m := &tasksv1.PutContentRequest{Content: id[:], Size: size, Grant: h.Grant}
	for {
		buf := make([]byte, min(pieceBytes, size+1)) // most contents are small
		n, err := io.ReadFull(r, buf)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		if n > 0 || m.Content != nil {
			m.Data = buf[:n]
			if err := stream.Send(m); err != nil {
				break // CloseAndRecv says why
			}
			m = &tasksv1.PutContentRequest{}
		}
		if last {
			break
		}
	}
	_, err = stream.CloseAndRecv()
	return fromStatus(err)
}

// OpenOutput implements scheduler.Worker.
func (c *Client) OpenOutput(ctx context.Context, task tasks.TaskID, id tasks.ContentID) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.rpc.GetOutput(ctx, &tasksv1.GetOutputRequest{Job: task.Job[:], Index: uint64(task.Index), Content: id[:]},
		grpc.MaxCallRecvMsgSize(MaxMessageBytes))
	if err != nil {
		cancel()
		return nil, fromStatus(err)
	}
	return &output{stream: stream, cancel: cancel}, nil
}

// output reads a stream of pieces.
type output struct {
	stream grpc.ServerStreamingClient[tasksv1.GetOutputResponse]
	cancel context.CancelFunc
	rest   []byte
}

func (o *output) Read(dst []byte) (int, error) {
	for len(o.rest) == 0 {
		m, err := o.stream.Recv()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, fromStatus(err)
		}
		o.rest = m.Data
	}
	n := copy(dst, o.rest)
	o.rest = o.rest[n:]
	return n, nil
}

func (o *output) Close() error {
	o.cancel()
	return nil
}
