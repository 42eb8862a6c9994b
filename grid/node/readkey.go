package node

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"gotong/storage/vault"
)

// readKeyHeader carries the read key of a write-only device's vault with one
// command over the control socket. The command derives it from the phrase, so
// the peer sees neither the phrase nor, after the call, the key.
const readKeyHeader = "gotong-read-key-bin"

// WithReadKey returns a context for calls on the control socket that carries the
// read key of the vault.
func WithReadKey(ctx context.Context, key []byte) context.Context {
	return metadata.AppendToOutgoingContext(ctx, readKeyHeader, string(key))
}

// reading gives a command the read key that came with it.
func (s *service) reading(ctx context.Context) (context.Context, error) {
	keys := metadata.ValueFromIncomingContext(ctx, readKeyHeader)
	if len(keys) != 1 {
		return ctx, nil
	}
	key := []byte(keys[0])
	defer clear(key)
	secrets, err := s.peer.vault.ReadSecrets(key)
	if err != nil {
		return nil, err
	}
	return vault.WithReadKey(ctx, secrets), nil
}

// readingStream is a stream whose context has the read key.
type readingStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *readingStream) Context() context.Context { return s.ctx }
