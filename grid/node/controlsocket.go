package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	controlv1 "gotong/proto/control/v1"
)

const (
	// controlMessageBytes bounds one message on the control socket; a run names
	// all its items in one.
	controlMessageBytes = 64 << 20
	controlDialTimeout  = 5 * time.Second
)

// DialControl connects to the running peer of a home directory. The caller
// closes the connection. A home without a peer, or whose peer does not run, is
// a *Failure.
func DialControl(ctx context.Context, dir string) (*grpc.ClientConn, error) {
	h, err := openHome(dir)
	if err != nil {
		return nil, err
	}
	path := h.socketPath()
	if socketDir := filepath.Dir(path); socketDir != h.dir {
		if err := checkPrivate(socketDir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	probe, err := (&net.Dialer{Timeout: controlDialTimeout}).DialContext(ctx, "unix", path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			err = nil // no socket, or one that a killed peer left: nothing to add
		}
		return nil, &Failure{Kind: controlv1.Kind_KIND_NOT_SET_UP, What: "the peer of " + dir + " is not running",
			Meaning: "it neither backs up nor serves others", Next: "gotong up", Err: err}
	}
	probe.Close()
	conn, err := grpc.NewClient("passthrough:///control",
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the socket's mode is the guard
		grpc.WithUnaryInterceptor(boundQueries(queryTimeout)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: 2 * queryTimeout}), // awaitAnswer gives up before
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(controlMessageBytes), grpc.MaxCallSendMsgSize(controlMessageBytes)))
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := awaitAnswer(ctx, conn, queryTimeout); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// awaitAnswer waits until the peer speaks, limit at most. One that is stopped or
// stuck takes connections and says nothing.
func awaitAnswer(ctx context.Context, conn *grpc.ClientConn, limit time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready, connectivity.TransientFailure: // the call says what is wrong
			return nil
		case connectivity.Idle: // not begun, or cut off at once
			conn.Connect()
		}
		if conn.WaitForStateChange(limited, state) {
			continue
		}
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		return NotAnswering()
	}
}

// NotAnswering is the failure of a command whose peer takes calls and says nothing.
func NotAnswering() *Failure {
	return &Failure{Kind: controlv1.Kind_KIND_TEMPORARY, What: "the peer runs, but does not answer",
		Meaning: "it is stopped, stuck or very busy; what it had acknowledged is on the disk",
		Next:    "the same command later, or stop it and gotong up"}
}

// queryTimeout bounds a command that is one question and one answer. A peer that
// is stopped or stuck accepts it and never answers.
const queryTimeout = 30 * time.Second

// boundQueries gives every unary call that has no deadline one.
func boundQueries(limit time.Duration) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
		if _, bounded := ctx.Deadline(); !bounded {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
		}
		return call(ctx, method, request, answer, conn, options...)
	}
}

// listenControl makes the control socket, replacing one that a killed peer
// left behind; the home's lock is held, so nobody serves it.
func listenControl(h home) (net.Listener, error) {
	path := h.socketPath()
	dir := filepath.Dir(path)
	if dir != h.dir {
		if err := privateDir(dir); err != nil {
			return nil, err
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

// privateDir makes a directory that only this user can enter, in a place where
// others can make directories too.
func privateDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("control socket: %w", err)
	}
	return checkPrivate(dir)
}

// checkPrivate fails for a directory in which others could have put a socket.
func checkPrivate(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if !info.IsDir() || !ownedAndPrivate(info) {
		return fmt.Errorf("control socket: %s is not a private directory of this user; use a shorter home path", dir)
	}
	return nil
}

// newControlServer returns the gRPC server of the control socket. enter prepares
// the context of each call.
func newControlServer(service controlv1.ControlServer, enter func(context.Context) (context.Context, error)) *grpc.Server {
	server := grpc.NewServer(
		grpc.WaitForHandlers(true), // what a command uses is closed only after it
		grpc.MaxRecvMsgSize(controlMessageBytes), grpc.MaxSendMsgSize(controlMessageBytes),
		grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			ctx, err := enter(ctx)
			if err != nil {
				return nil, controlError(err)
			}
			answer, err := next(ctx, request)
			return answer, controlError(err)
		}),
		grpc.StreamInterceptor(func(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			ctx, err := enter(stream.Context())
			if err != nil {
				return controlError(err)
			}
			return controlError(next(service, &readingStream{stream, ctx}))
		}))
	controlv1.RegisterControlServer(server, service)
	return server
}

// controlError gives every error of the control API the detail from which the
// command makes its message and exit code.
func controlError(err error) error {
	if err == nil {
		return nil
	}
	var failure *Failure
	if errors.As(err, &failure) {
		return failure.GRPCStatus().Err()
	}
	if errors.Is(err, context.Canceled) {
		return status.Error(codes.Canceled, "cancelled")
	}
	return explain(err).GRPCStatus().Err()
}
