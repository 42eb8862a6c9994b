package cli

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"gotong/grid/node"
	controlv1 "gotong/proto/control/v1"
)

// withPeer connects to the running peer of the home directory, calls f, and
// hangs up.
func (a *app) withPeer(ctx context.Context, f func(context.Context, controlv1.ControlClient) error) error {
	conn, err := node.DialControl(ctx, a.home)
	if err != nil {
		return err
	}
	defer conn.Close()
	return f(ctx, controlv1.NewControlClient(conn))
}

// each hands every message of a stream to f until the stream ends.
func each[T any](stream grpc.ServerStreamingClient[T], f func(*T) error) error {
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(message); err != nil {
			return err
		}
	}
}
