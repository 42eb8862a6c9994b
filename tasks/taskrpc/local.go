package taskrpc

import (
	"context"
	"crypto/ed25519"
	"io"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// Local returns the service's own runner as a worker for this peer's jobs.
// Claims of this peer share the slots with those of others, by turns.
func (s *Service) Local() scheduler.Worker {
	return &local{s, grid.PeerIDOf(s.cfg.Key.Public().(ed25519.PublicKey))}
}

type local struct {
	service *Service
	self    grid.PeerID
}

func (l *local) Offer(_ context.Context, h scheduler.Header) (scheduler.Offer, error) {
	return l.service.offer(l.self, h)
}

func (l *local) PutContent(ctx context.Context, h scheduler.Header, id tasks.ContentID, size int64, r io.Reader) error {
	asker, err := l.service.asker(l.self, h.Grant)
	if err != nil {
		return err
	}
	return l.service.cfg.Runner.PutContent(ctx, asker, id, size, r)
}

func (l *local) OpenOutput(_ context.Context, task tasks.TaskID, id tasks.ContentID) (io.ReadCloser, error) {
	return l.service.openOutput(l.self, task, id)
}

func (l *local) Claim(ctx context.Context, h scheduler.Header) (scheduler.Session, error) {
	c, slots, err := l.service.open(l.self, h)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { l.service.close(c, errCallerGone) })
	return &localSession{c, slots, l.service.leftAt(c), l.self, ctx}, nil
}

type localSession struct {
	claim *claim
	slots int
	left  []int
	self  grid.PeerID
	ctx   context.Context
}

func (s *localSession) Slots() int { return s.slots }

func (s *localSession) Left() []int { return s.left }

func (s *localSession) Done() { s.claim.service.close(s.claim, errClaimOver) }

func (s *localSession) Send(o scheduler.Orders) error { return s.claim.take(o) }

func (s *localSession) Recv() (scheduler.Report, error) {
	b, err := s.claim.next(s.ctx)
	if err != nil {
		return scheduler.Report{}, err
	}
	r := scheduler.Report{Returned: b.returned, Closing: b.closing, Fetching: b.fetching}
	if len(b.outcomes) == 0 {
		return r, nil
	}
	raw := make([][]byte, len(b.outcomes))
	for i, o := range b.outcomes {
		raw[i] = o.raw
	}
	signed := scheduler.SignResults(s.claim.service.cfg.Key, raw)
	for i, o := range b.outcomes {
		o.result.Peer = s.self
		r.Results = append(r.Results, scheduler.SignedResult{
			Result: o.result,
			Proof:  scheduler.Proof{Signed: identity.Signed(signed), Position: i, Raw: raw[i]},
		})
	}
	return r, nil
}
