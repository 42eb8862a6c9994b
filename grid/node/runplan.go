package node

import (
	"context"
	"sync"
	"time"

	"gotong/grid"
	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

const (
	// planAtOnce is how many peers are asked at once what they think of a run,
	// planTimeout how long each may take to answer.
	planAtOnce  = 16
	planTimeout = 3 * time.Second
)

// plan answers which peers would take tasks of a job.
func (r *run) plan(job scheduler.Job) error {
	peers := r.peer.membership.Peers()
	plan := &controlv1.RunPlan{Peers: make([]*controlv1.RunPeer, len(peers))}
	free := make(chan struct{}, planAtOnce)
	var group sync.WaitGroup
	for i, p := range peers {
		group.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			plan.Peers[i] = r.peer.fits(r.stream.Context(), p, job.Header)
		})
	}
	group.Wait()
	return r.stream.Send(&controlv1.RunEvent{Event: &controlv1.RunEvent_Plan{Plan: plan}})
}

// fits asks a peer whether it would take tasks of a job.
func (p *Peer) fits(ctx context.Context, other grid.Peer, h scheduler.Header) *controlv1.RunPeer {
	out := &controlv1.RunPeer{Peer: other.ID.String(), Name: p.nameOf(other.ID)}
	if other.State != grid.StateAlive {
		out.Why = "it is not reachable now"
		return out
	}
	if other.ID != p.ID() && other.Record.Slots == 0 {
		out.Why = "its donor gives no task slots"
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	w, err := p.work.Worker(other.ID)
	var offer scheduler.Offer
	if err == nil {
		offer, err = w.Offer(ctx, h)
	}
	if err != nil {
		out.Why = validText(tasks.Reason(err))
		return out
	}
	out.Fits, out.Slots, out.Free = true, uint32(offer.Slots), uint32(offer.Free)
	return out
}
