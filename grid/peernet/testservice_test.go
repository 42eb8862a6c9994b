package peernet_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"gotong/grid"
	"gotong/grid/peernet"
)

// The test service: Echo returns what it got, Pipe returns every message, Wait
// returns when its context ends.
const (
	methodEcho = "/test.Test/Echo"
	methodWait = "/test.Test/Wait"
	methodPipe = "/test.Test/Pipe"
)

type bytesValue = wrapperspb.BytesValue

type testService interface {
	echo(ctx context.Context, in *bytesValue) (*bytesValue, error)
	wait(ctx context.Context) error
	pipe(stream grpc.ServerStream) error
}

var testDesc = grpc.ServiceDesc{
	ServiceName: "test.Test",
	HandlerType: (*testService)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "Echo", Handler: unary(methodEcho, func(ctx context.Context, s testService, in *bytesValue) (*bytesValue, error) {
			return s.echo(ctx, in)
		})},
		{MethodName: "Wait", Handler: unary(methodWait, func(ctx context.Context, s testService, _ *bytesValue) (*bytesValue, error) {
			return nil, s.wait(ctx)
		})},
	},
	Streams: []grpc.StreamDesc{{
		StreamName:    "Pipe",
		ServerStreams: true,
		ClientStreams: true,
		Handler:       func(srv any, stream grpc.ServerStream) error { return srv.(testService).pipe(stream) },
	}},
}

func unary(method string, f func(context.Context, testService, *bytesValue) (*bytesValue, error)) grpc.MethodHandler {
	return func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		in := new(bytesValue)
		if err := dec(in); err != nil {
			return nil, err
		}
		return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: method},
			func(ctx context.Context, req any) (any, error) { return f(ctx, srv.(testService), req.(*bytesValue)) })
	}
}

// echoServer answers with the caller's id in front.
type echoServer struct {
	callers  chan grid.PeerID // if not nil: who opened a stream
	deadline chan time.Duration
	ended    chan error
}

func (e *echoServer) echo(ctx context.Context, in *bytesValue) (*bytesValue, error) {
	caller, ok := peernet.CallerFrom(ctx)
	if !ok {
		return nil, errors.New("no caller")
	}
	return wrapperspb.Bytes(append(caller[:], in.Value...)), nil
}

func (e *echoServer) wait(ctx context.Context) error {
	if at, ok := ctx.Deadline(); ok {
		e.deadline <- time.Until(at)
	}
	<-ctx.Done()
	return ctx.Err()
}

func (e *echoServer) pipe(stream grpc.ServerStream) (err error) {
	if e.callers != nil {
		caller, _ := peernet.CallerFrom(stream.Context())
		e.callers <- caller
	}
	if e.ended != nil {
		defer func() { e.ended <- err }()
	}
	for {
		m := new(bytesValue)
		if err := stream.RecvMsg(m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(m); err != nil {
			return err
		}
	}
}

func openRules() peernet.Rules {
	return peernet.Rules{methodEcho: peernet.AnyMember, methodWait: peernet.AnyMember, methodPipe: peernet.AnyMember}
}

// serve runs the test service on n and returns a pool of clients of n.
func serve(t testing.TB, n *peernet.Net, rules peernet.Rules, impl testService) *peernet.Clients {
	t.Helper()
	var services peernet.Services
	services.RegisterService(&testDesc, impl)
	server, err := peernet.NewServer(n, rules, &services)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, time.Second) }()
	clients := peernet.NewClients(n)
	t.Cleanup(func() {
		_ = clients.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return clients
}

func call(ctx context.Context, clients *peernet.Clients, to grid.PeerID, method string, payload []byte) ([]byte, error) {
	conn, err := clients.Conn(to)
	if err != nil {
		return nil, err
	}
	out := new(bytesValue)
	err = conn.Invoke(ctx, method, wrapperspb.Bytes(payload), out)
	return out.Value, err
}

func openPipe(ctx context.Context, t testing.TB, clients *peernet.Clients, to grid.PeerID) grpc.ClientStream {
	t.Helper()
	conn, err := clients.Conn(to)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := conn.NewStream(ctx, &testDesc.Streams[0], methodPipe)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}
