package peernet

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var errIdle = status.Error(codes.DeadlineExceeded, "the other side of the stream was silent for too long")

// idleTimer expires when operations on a stream are waiting and none completes
// for a whole limit. A stream on which nobody waits is not idle: this side is
// busy.
type idleTimer struct {
	limit   time.Duration
	expired func() // called once at most

	mu      sync.Mutex
	waiting int
	over    bool
	timer   *time.Timer
}

func newIdleTimer(limit time.Duration, expired func()) *idleTimer {
	i := &idleTimer{limit: limit, expired: expired}
	i.timer = time.AfterFunc(limit, i.expire)
	i.timer.Stop()
	return i
}

func (i *idleTimer) expire() {
	i.mu.Lock()
	idle := i.waiting > 0 && !i.over
	if idle {
		i.over = true
	}
	i.mu.Unlock()
	if idle {
		i.expired()
	}
}

// begin says that an operation starts to wait.
func (i *idleTimer) begin() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.waiting++
	if i.waiting == 1 {
		i.timer.Reset(i.limit)
	}
}

// end says that it completed, which is activity for all that wait.
func (i *idleTimer) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.waiting--
	if i.waiting == 0 {
		i.timer.Stop()
	} else {
		i.timer.Reset(i.limit)
	}
}

func (i *idleTimer) stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.over = true
	i.timer.Stop()
}

type watchedServerStream struct {
	grpc.ServerStream
	idle *idleTimer
}

func (s *watchedServerStream) RecvMsg(m any) error {
	s.idle.begin()
	defer s.idle.end()
	return s.ServerStream.RecvMsg(m)
}

func (s *watchedServerStream) SendMsg(m any) error {
	s.idle.begin()
	defer s.idle.end()
	return s.ServerStream.SendMsg(m)
}

// watchedClientStream is a ClientStream with an idle limit.
type watchedClientStream struct {
	grpc.ClientStream
	idle   *idleTimer
	ctx    context.Context
	cancel context.CancelCauseFunc
	single bool // the server answers once
}

// watchClientStream takes over cancel, which ends ctx, the stream's context.
func watchClientStream(ctx context.Context, cancel context.CancelCauseFunc, stream grpc.ClientStream, single bool) grpc.ClientStream {
	return &watchedClientStream{
		ClientStream: stream,
		idle:         newIdleTimer(StreamIdle, func() { cancel(errIdle) }),
		ctx:          ctx,
		cancel:       cancel,
		single:       single,
	}
}

func (s *watchedClientStream) RecvMsg(m any) error {
	s.idle.begin()
	err := s.ClientStream.RecvMsg(m)
	s.idle.end()
	if err == nil && !s.single {
		return nil
	}
	if err != nil && errors.Is(context.Cause(s.ctx), errIdle) {
		err = errIdle
	}
	s.idle.stop()
	s.cancel(nil)
	return err
}

func (s *watchedClientStream) SendMsg(m any) error {
	s.idle.begin()
	defer s.idle.end()
	return s.ClientStream.SendMsg(m)
}
