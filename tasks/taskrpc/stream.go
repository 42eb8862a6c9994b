package taskrpc

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"

	"google.golang.org/grpc"

	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks/scheduler"
)

// Offer implements the Tasks service.
func (s *Service) Offer(ctx context.Context, p *tasksv1.OfferRequest) (*tasksv1.OfferResponse, error) {
	caller, err := s.cfg.Caller(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	h, err := headerFromProto(p.GetHeader())
	if err != nil {
		return nil, toStatus(err)
	}
	offer, err := s.offer(caller, h)
	if err != nil {
		return nil, toStatus(err)
	}
	out := &tasksv1.OfferResponse{Slots: uint32(offer.Slots), Free: uint32(offer.Free), Engine: offer.Engine, Left: uint32(offer.Left)}
	for i := range offer.Missing {
		out.Missing = append(out.Missing, offer.Missing[i][:])
	}
	return out, nil
}

// workStream is the server's side of Work.
type workStream = grpc.BidiStreamingServer[tasksv1.WorkRequest, tasksv1.WorkResponse]

// Work implements the Tasks service: one claim.
func (s *Service) Work(stream workStream) error {
	caller, err := s.cfg.Caller(stream.Context())
	if err != nil {
		return toStatus(err)
	}
	// The interval in which a client must begin is that of a transfer.
	var first *tasksv1.WorkRequest
	if err := withIdle(func(func()) (err error) { first, err = stream.Recv(); return err }); err != nil {
		return toStatus(err)
	}
	h, err := headerFromProto(first.GetBegin())
	if err != nil {
		return toStatus(err)
	}
	c, slots, err := s.open(caller, h)
	if err != nil {
		return toStatus(err)
	}
	grant := &tasksv1.Grant{Slots: uint32(slots), Key: s.cfg.Key.Public().(ed25519.PublicKey), Left: indicesToProto(s.leftAt(c))}
	err = stream.Send(&tasksv1.WorkResponse{Grant: grant})
	if err == nil {
		err = s.serve(c, stream)
	}
	s.close(c, err)
	if errors.Is(err, errClaimOver) {
		return nil
	}
	return toStatus(err)
}

// serve runs both directions of a claim until either ends. It leaves a
// goroutine behind that ends with the stream.
func (s *Service) serve(c *claim, stream workStream) error {
	go func() { s.close(c, c.read(stream)) }()
	go func() { s.close(c, c.write(stream, s.cfg.Key)) }()
	<-c.ctx.Done()
	return context.Cause(c.ctx)
}

// read takes in orders.
func (c *claim) read(stream workStream) error {
	for {
		p, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return errClaimOver
		case err != nil:
			return err
		case p.Begin != nil:
			return invalid("a claim begins once")
		}
		orders, err := ordersFromProto(p, c.header)
		if err != nil {
			return err
		}
		if err := c.take(orders); err != nil {
			return err
		}
	}
}

// write reports results, signed, and signs of life.
func (c *claim) write(stream workStream, key ed25519.PrivateKey) error {
	for {
		b, err := c.next(stream.Context())
		if err != nil {
			return err
		}
		out := &tasksv1.WorkResponse{Closing: b.closing, Fetching: b.fetching}
		for _, o := range b.outcomes {
			out.Results = append(out.Results, o.raw)
		}
		if len(out.Results) > 0 {
			out.Signature = scheduler.SignResults(key, out.Results).Signature
		}
		for _, r := range b.returned {
			out.Returned = append(out.Returned, &tasksv1.Returned{Index: uint64(r.Index), Why: r.Why, Unfetched: r.Unfetched, Unfit: r.Unfit})
		}
		if err := stream.Send(out); err != nil {
			return err
		}
	}
}
