package node

import (
	"context"
	"time"

	"gotong/grid"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage/repair"
)

// drainReport is how often a drain reports at most.
const drainReport = 200 * time.Millisecond

// Drain hands all shards that this peer keeps over to others, each dropped here
// when its new holder has proved that it has it. While it runs this peer takes
// no new ones. Interrupted, it has done a part, which is as good; when it ends
// with shards left, those have no other place now.
func (p *Peer) Drain(ctx context.Context, progress func(*controlv1.DrainProgress)) error {
	resume, err := p.takeNothing()
	if err != nil {
		return err
	}
	defer resume()
	var last time.Time
	report := func(d repair.DrainProgress) {
		if now := time.Now(); progress != nil && now.Sub(last) >= drainReport {
			last = now
			progress(drainMessage(d))
		}
	}
	state, err := p.repair.Drain(ctx, report)
	if err != nil {
		return err
	}
	if progress != nil {
		progress(drainMessage(state))
	}
	if state.Left > 0 {
		return &Failure{Kind: controlv1.Kind_KIND_TOO_FEW, What: count(state.Left, "shard") + " could not be handed over: " + state.Why,
			Meaning: "they are still here; leaving now would cost their owners redundancy",
			Next:    "start peers that are away or invite one with room, then gotong leave --drain again"}
	}
	return nil
}

// takeNothing lets this peer give no disk until resume is called.
func (p *Peer) takeNothing() (resume func(), err error) {
	p.drains.Add(1)
	if err := p.pledge(); err != nil {
		p.drains.Add(-1)
		return nil, err
	}
	return func() {
		p.drains.Add(-1)
		if err := p.pledge(); err != nil {
			p.logger.Warn("others are not told yet that this peer gives disk again", "err", err)
		}
	}, nil
}

// gives is what this peer gives now: what is configured, or nothing while a drain
// runs.
func (p *Peer) gives() Size {
	if p.drains.Load() > 0 {
		return 0
	}
	return p.cfg().Give
}

// pledge gives that and tells the others.
func (p *Peer) pledge() error {
	p.pledging.Lock()
	defer p.pledging.Unlock()
	give := p.gives()
	p.store.SetCapacity(max(int64(give), nothing))
	return p.membership.UpdateRecord(func(r *grid.Record) { r.PledgeBytes = uint64(give) })
}

func drainMessage(d repair.DrainProgress) *controlv1.DrainProgress {
	return &controlv1.DrainProgress{
		Shards: uint64(d.Shards), Bytes: uint64(d.Bytes), Left: uint64(max(d.Left, 0)), LeftBytes: uint64(max(d.LeftBytes, 0)),
		Stuck: uint64(d.Stuck), Why: d.Why,
	}
}

// Drain streams the progress of a handover.
func (s *service) Drain(_ *controlv1.DrainRequest, stream controlv1.Control_DrainServer) error {
	sink := eventSink[controlv1.DrainProgress]{send: stream.Send}
	return s.peer.Drain(stream.Context(), func(d *controlv1.DrainProgress) { _ = sink.put(d) }) // a command that is gone ends the context
}
