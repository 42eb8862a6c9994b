package peernet

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// Server serves gRPC to the members of the grid.
type Server struct {
	net      *Net
	listener net.Listener
	server   *grpc.Server
	handlers sync.WaitGroup // stream handlers, which may outlive their stream a little
}

// NewServer makes a server of services on ProtoGRPC. Every method must have a
// rule and every rule a method, else it returns ErrRules. Further options, such
// as grpc.ForceServerCodecV2, are applied last. From now on connections wait for
// Run: who sees this peer come up is not refused because Run begins later.
func NewServer(n *Net, rules Rules, services *Services, opts ...grpc.ServerOption) (*Server, error) {
	if err := rules.Check(services); err != nil {
		return nil, err
	}
	s := &Server{net: n}
	all := append(serverOptions(n.pace),
		grpc.ChainUnaryInterceptor(s.guardUnary(rules)),
		grpc.ChainStreamInterceptor(s.guardStream(rules)))
	s.server = grpc.NewServer(append(all, opts...)...)
	for _, svc := range services.all {
		s.server.RegisterService(svc.desc, svc.impl)
	}
	s.listener = n.Accept(ProtoGRPC)
	return s, nil
}

func serverOptions(p *pace) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(sessionCredentials{p}),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.MaxConcurrentStreams(MaxStreams),
		grpc.MaxHeaderListSize(MaxHeaderBytes),
		grpc.ConnectionTimeout(preface),
		grpc.InitialWindowSize(streamWindowBytes),
		grpc.InitialConnWindowSize(connWindowBytes),
		grpc.WriteBufferSize(writeBufferBytes),
		grpc.ReadBufferSize(readBufferBytes),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: 2 * ConnIdle, // the client's own limit comes first
			Time:              serverPing,
			Timeout:           serverPingTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             serverPingMin,
			PermitWithoutStream: true,
		}),
	}
}

// Run serves until ctx ends. Then it takes no new calls, waits up to drain for
// the running ones, cuts the rest, and returns nil when every handler has
// returned.
func (s *Server) Run(ctx context.Context, drain time.Duration) error {
	ended := make(chan error, 1)
	go func() { ended <- s.server.Serve(s.listener) }()
	select {
	case err := <-ended:
		s.server.Stop()
		s.handlers.Wait()
		if ctx.Err() != nil {
			return nil // the network was quicker to close
		}
		return err
	case <-ctx.Done():
	}
	hurry := time.AfterFunc(drain, s.server.Stop)
	s.server.GracefulStop()
	hurry.Stop()
	s.handlers.Wait()
	if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// guardUnary applies the rule and the deadline.
func (s *Server) guardUnary(rules Rules) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if err := s.net.authorise(ctx, rules, info.FullMethod); err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, DefaultUnaryTimeout)
		defer cancel()
		return handler(ctx, req)
	}
}

// guardStream applies the rule and the idle limit. The handler runs beside: when
// the stream was idle for too long its call is ended, which makes the handler's
// Recv and Send fail.
func (s *Server) guardStream(rules Rules) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if err := s.net.authorise(stream.Context(), rules, info.FullMethod); err != nil {
			return err
		}
		silent := make(chan struct{})
		idle := newIdleTimer(StreamIdle, func() { close(silent) })
		defer idle.stop()
		ended := make(chan error, 1)
		s.handlers.Go(func() { ended <- handler(srv, &watchedServerStream{stream, idle}) })
		select {
		case err := <-ended:
			return err
		case <-silent:
			return errIdle
		}
	}
}
