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
// hangs up. The calls carry the vault's read key when --phrase-file is given; when
// they turn out to need it, the phrase is asked for on a terminal, and f is
// called again.
func (a *app) withPeer(ctx context.Context, f func(context.Context, controlv1.ControlClient) error) error {
	return a.callPeer(ctx, func(ctx context.Context, peer controlv1.ControlClient) error {
		if a.phraseFile == "" {
			err := f(ctx, peer)
			if err == nil || failureOf(err).code != exitWrongPhrase || !isTerminal(a.stdin) {
				return err
			}
		}
		ctx, err := a.withReadKey(ctx, peer)
		if err != nil {
			return err
		}
		return f(ctx, peer)
	})
}

// callPeer is withPeer for commands that need no phrase, or ask for it themselves.
func (a *app) callPeer(ctx context.Context, f func(context.Context, controlv1.ControlClient) error) error {
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
