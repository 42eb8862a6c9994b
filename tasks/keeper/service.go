package keeper

import (
	"context"

	"google.golang.org/grpc"

	"gotong/grid"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks"
)

// Service answers the Keepers service of other peers.
type Service struct {
	tasksv1.UnimplementedKeepersServer
	keeper *Keeper
	caller func(ctx context.Context) (grid.PeerID, error)
}

// NewService returns the service of k. caller says who calls, from the
// connection.
func NewService(k *Keeper, caller func(ctx context.Context) (grid.PeerID, error)) *Service {
	return &Service{keeper: k, caller: caller}
}

// PutJob implements the Keepers service.
func (s *Service) PutJob(ctx context.Context, m *tasksv1.PutJobRequest) (*tasksv1.PutJobResponse, error) {
	caller, err := s.caller(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	list, err := listFromProto(m.Keepers)
	if err == nil {
		err = s.keeper.Put(ctx, caller, PutRequest{m.Plan, list, m.Statements})
	}
	return &tasksv1.PutJobResponse{}, toStatus(err)
}

// AppendJob implements the Keepers service.
func (s *Service) AppendJob(ctx context.Context, m *tasksv1.AppendJobRequest) (*tasksv1.AppendJobResponse, error) {
	caller, err := s.caller(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	r, err := appendFromProto(m)
	if err != nil {
		return nil, toStatus(err)
	}
	a, err := s.keeper.Append(ctx, caller, r)
	if err != nil {
		return nil, toStatus(err)
	}
	return &tasksv1.AppendJobResponse{
		Have: vectorToProto(a.Have), Epoch: a.Lead.Epoch, Driver: peerToBytes(a.Lead.Driver), Said: a.Said, Statements: a.Statements,
	}, nil
}

func appendFromProto(m *tasksv1.AppendJobRequest) (r AppendRequest, err error) {
	if r.Job, err = jobFromBytes(m.Job); err != nil {
		return r, err
	}
	if r.Batches, err = batchesFromProto(m.Batches); err != nil {
		return r, err
	}
	r.List, err = listFromProto(m.Keepers)
	r.Epoch, r.Proof, r.Said, r.Statements = m.Epoch, m.Proof, m.Said, m.Statements
	return r, err
}

// state reads what names a job.
func (s *Service) state(ctx context.Context, m *tasksv1.JobStateRequest) (caller grid.PeerID, r StateRequest, err error) {
	if caller, err = s.caller(ctx); err != nil {
		return caller, r, err
	}
	if r.Job, err = jobFromBytes(m.Job); err != nil {
		return caller, r, err
	}
	if r.Have, err = vectorFromProto(m.Have); err != nil {
		return caller, r, err
	}
	r.List, err = listFromProto(m.Keepers)
	r.Proof, r.Statements = m.Proof, m.Statements
	return caller, r, err
}

// JobState implements the Keepers service.
func (s *Service) JobState(ctx context.Context, m *tasksv1.JobStateRequest) (*tasksv1.JobStateResponse, error) {
	caller, r, err := s.state(ctx, m)
	if err != nil {
		return nil, toStatus(err)
	}
	a, err := s.keeper.State(ctx, caller, r)
	if err != nil {
		return nil, toStatus(err)
	}
	return &tasksv1.JobStateResponse{
		Have: vectorToProto(a.Have), Epoch: a.Lead.Epoch, Driver: peerToBytes(a.Lead.Driver), HeardNanos: int64(a.Heard), Driving: a.Driving,
		Keepers: listToProto(a.List), Statements: a.Statements, Over: a.Over, Generation: a.Generation,
	}, nil
}

// ReadJob implements the Keepers service.
func (s *Service) ReadJob(m *tasksv1.ReadJobRequest, stream grpc.ServerStreamingServer[tasksv1.ReadJobResponse]) error {
	caller, err := s.caller(stream.Context())
	if err != nil {
		return toStatus(err)
	}
	r := ReadRequest{Proof: m.Proof}
	if r.Job, err = jobFromBytes(m.Job); err == nil {
		r.Have, err = vectorFromProto(m.Have)
	}
	if err != nil {
		return toStatus(err)
	}
	return toStatus(s.keeper.Read(stream.Context(), caller, r, func(batches []Batch) error {
		return stream.Send(&tasksv1.ReadJobResponse{Batches: batchesToProto(batches)})
	}))
}

// JobPlan implements the Keepers service.
func (s *Service) JobPlan(ctx context.Context, m *tasksv1.JobStateRequest) (*tasksv1.JobPlanResponse, error) {
	caller, r, err := s.state(ctx, m)
	if err != nil {
		return nil, toStatus(err)
	}
	plan, err := s.keeper.Plan(ctx, caller, r)
	return &tasksv1.JobPlanResponse{Plan: plan}, toStatus(err)
}

// ListJobs implements the Keepers service.
func (s *Service) ListJobs(ctx context.Context, _ *tasksv1.ListJobsRequest) (*tasksv1.ListJobsResponse, error) {
	caller, err := s.caller(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	list, err := s.keeper.Jobs(ctx, caller)
	out := &tasksv1.ListJobsResponse{}
	for _, l := range list {
		out.Jobs = append(out.Jobs, &tasksv1.ListedJob{
			Job: l.Job[:], Summary: l.Summary, Have: vectorToProto(l.Have), Keepers: listToProto(l.List),
			Epoch: l.Lead.Epoch, Driver: peerToBytes(l.Lead.Driver),
		})
	}
	return out, toStatus(err)
}

// SayOfJob implements the Keepers service.
func (s *Service) SayOfJob(ctx context.Context, m *tasksv1.SayOfJobRequest) (*tasksv1.SayOfJobResponse, error) {
	caller, err := s.caller(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	var job tasks.JobID
	if job, err = jobFromBytes(m.Job); err == nil {
		err = s.keeper.Hear(ctx, caller, job, m.Statement)
	}
	return &tasksv1.SayOfJobResponse{}, toStatus(err)
}
