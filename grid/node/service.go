package node

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc"

	controlv1 "gotong/proto/control/v1"
)

// service answers the control API; each method is a thin cover of one of Peer.
type service struct {
	controlv1.UnimplementedControlServer
	peer *Peer
}

// serveControl serves until ctx ends, then lets no new command in and ends the
// running ones.
func serveControl(ctx context.Context, server *grpc.Server, l net.Listener) error {
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	cut := time.AfterFunc(controlDrain, server.Stop)
	defer cut.Stop()
	server.GracefulStop()
	if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// controlDrain is how long a command may go on after the peer was asked to stop.
const controlDrain = time.Second

func (s *service) Status(ctx context.Context, _ *controlv1.StatusRequest) (*controlv1.StatusResponse, error) {
	return s.peer.Status(ctx)
}

func (s *service) Peers(ctx context.Context, r *controlv1.PeersRequest) (*controlv1.PeersResponse, error) {
	return &controlv1.PeersResponse{Peers: s.peer.Peers(ctx, r.Live)}, nil
}

func (s *service) Invite(_ context.Context, r *controlv1.InviteRequest) (*controlv1.InviteResponse, error) {
	code, err := s.peer.Invite(time.Duration(r.ValidSeconds)*time.Second, r.Admin)
	if err != nil {
		return nil, err
	}
	return &controlv1.InviteResponse{Code: code.String(), ExpiresUnix: code.Expires.Unix()}, nil
}

func (s *service) Remove(ctx context.Context, r *controlv1.RemoveRequest) (*controlv1.RemoveResponse, error) {
	removed, err := s.peer.Remove(ctx, r)
	return &controlv1.RemoveResponse{Removed: removed}, err
}

func (s *service) Leave(ctx context.Context, _ *controlv1.LeaveRequest) (*controlv1.LeaveResponse, error) {
	return &controlv1.LeaveResponse{}, s.peer.Leave(ctx)
}

func (s *service) DropOwner(ctx context.Context, r *controlv1.DropOwnerRequest) (*controlv1.DropOwnerResponse, error) {
	dropped, err := s.peer.DropOwner(ctx, r)
	return &controlv1.DropOwnerResponse{Dropped: dropped}, err
}

func (s *service) Trash(context.Context, *controlv1.TrashRequest) (*controlv1.TrashResponse, error) {
	return s.peer.Trash(), nil
}

func (s *service) EmptyTrash(ctx context.Context, r *controlv1.EmptyTrashRequest) (*controlv1.TrashResponse, error) {
	return s.peer.EmptyTrash(ctx, r)
}

func (s *service) Forget(ctx context.Context, r *controlv1.ForgetRequest) (*controlv1.ForgetResponse, error) {
	return s.peer.Forget(ctx, r)
}

func (s *service) Prune(r *controlv1.PruneRequest, stream controlv1.Control_PruneServer) error {
	out := &eventSink[controlv1.PruneEvent]{send: stream.Send}
	summary, err := s.peer.Prune(stream.Context(), r.MaxWaste, r.DryRun, func(p *controlv1.WorkProgress) {
		out.put(&controlv1.PruneEvent{Event: &controlv1.PruneEvent_Progress{Progress: p}})
	})
	if err != nil {
		return err
	}
	return out.put(&controlv1.PruneEvent{Event: &controlv1.PruneEvent_Summary{Summary: summary}})
}

func (s *service) Check(r *controlv1.CheckRequest, stream controlv1.Control_CheckServer) error {
	out := &eventSink[controlv1.CheckEvent]{send: stream.Send}
	summary, err := s.peer.Check(stream.Context(), r.ReadData,
		func(p *controlv1.WorkProgress) {
			out.put(&controlv1.CheckEvent{Event: &controlv1.CheckEvent_Progress{Progress: p}})
		},
		func(problem string) {
			out.put(&controlv1.CheckEvent{Event: &controlv1.CheckEvent_Problem{Problem: problem}})
		})
	if err != nil {
		return err
	}
	return out.put(&controlv1.CheckEvent{Event: &controlv1.CheckEvent_Summary{Summary: summary}})
}

func (s *service) Stats(ctx context.Context, r *controlv1.StatsRequest) (*controlv1.StatsResponse, error) {
	return s.peer.Stats(ctx, r.Snapshot, r.Each)
}
