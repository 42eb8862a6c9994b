package taskrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	"gotong/grid"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks"
)

var errIdle = fmt.Errorf("nothing moved for %s: %w", transferIdle, context.DeadlineExceeded)

// withIdle runs f and returns when it does, or with errIdle when f has not
// called touch for transferIdle. Then f goes on until the stream's context,
// which ends with the handler that returns, ends it.
func withIdle(f func(touch func()) error) error {
	done := make(chan error, 1)
	idle := time.NewTimer(transferIdle)
	defer idle.Stop()
	go func() { done <- f(func() { idle.Reset(transferIdle) }) }()
	select {
	case err := <-done:
		return err
	case <-idle.C:
		return errIdle
	}
}

// transfer counts a transfer of the caller; the returned function ends it.
func (s *Service) transfer(ctx context.Context) (caller grid.PeerID, end func(), err error) {
	caller, err = s.cfg.Caller(ctx)
	if err != nil {
		return caller, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.transfers[caller] >= transfersPerCaller {
		return caller, nil, fmt.Errorf("%d transfers at once: %w", transfersPerCaller, tasks.ErrBusy)
	}
	s.transfers[caller]++
	return caller, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.transfers[caller]--; s.transfers[caller] == 0 {
			delete(s.transfers, caller)
		}
	}, nil
}

// PutContent implements the Tasks service.
func (s *Service) PutContent(stream grpc.ClientStreamingServer[tasksv1.PutContentRequest, tasksv1.PutContentResponse]) error {
	caller, end, err := s.transfer(stream.Context())
	if err != nil {
		return toStatus(err)
	}
	defer end()
	if slots, why := s.cfg.Runner.Slots(); slots <= 0 {
		return toStatus(fmt.Errorf("%s: %w", why, tasks.ErrRefused)) // no task would use it
	}
	err = withIdle(func(touch func()) error {
		first, err := stream.Recv()
		if err != nil {
			return err
		}
		id, ok := parseContentID(first.Content)
		if !ok || id.IsZero() || first.Size < 0 || first.Size > maxContentBytes {
			return invalid("content without a proper name or size")
		}
		asker, err := s.asker(caller, first.Grant)
		if err != nil {
			return err
		}
		r := &pieces{stream: stream, touch: touch, rest: first.Data}
		return s.cfg.Runner.PutContent(stream.Context(), asker, id, first.Size, r)
	})
	if err != nil {
		return toStatus(err)
	}
	return stream.SendAndClose(&tasksv1.PutContentResponse{})
}

// pieces reads a content from a stream.
type pieces struct {
	stream grpc.ClientStreamingServer[tasksv1.PutContentRequest, tasksv1.PutContentResponse]
	touch  func()
	rest   []byte
}

func (p *pieces) Read(dst []byte) (int, error) {
	for len(p.rest) == 0 {
		m, err := p.stream.Recv()
		if err != nil {
			return 0, err // io.EOF at the end
		}
		if len(m.Content) > 0 || m.Size != 0 || len(m.Grant) > 0 {
			return 0, invalid("a content is named once")
		}
		p.rest = m.Data
	}
	p.touch()
	n := copy(dst, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// GetOutput implements the Tasks service.
func (s *Service) GetOutput(p *tasksv1.GetOutputRequest, stream grpc.ServerStreamingServer[tasksv1.GetOutputResponse]) error {
	caller, end, err := s.transfer(stream.Context())
	if err != nil {
		return toStatus(err)
	}
	defer end()
	job, okJob := parseJobID(p.Job)
	id, okContent := parseContentID(p.Content)
	index, err := parseIndex(p.Index)
	if err != nil || !okJob || !okContent {
		return toStatus(invalid("output without a proper name"))
	}
	r, err := s.openOutput(caller, tasks.TaskID{Job: job, Index: index}, id)
	if err != nil {
		return toStatus(err)
	}
	return toStatus(withIdle(func(touch func()) error {
		defer r.Close()
		return sendAll(stream, r, touch)
	}))
}

func sendAll(stream grpc.ServerStreamingServer[tasksv1.GetOutputResponse], r io.Reader, touch func()) error {
	buf := make([]byte, pieceBytes)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if err := stream.Send(&tasksv1.GetOutputResponse{Data: buf[:n]}); err != nil {
				return err
			}
			touch()
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}
