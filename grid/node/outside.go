package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/membership"
	"gotong/grid/peernet"
	controlv1 "gotong/proto/control/v1"
)

// reachWait is how long members have to find out whether they can dial this peer:
// longer than they try.
const reachWait = 15 * time.Second

// Outside asks the members that are alive whether they can dial this peer, and what
// their clocks show. It takes up to reachWait.
func (p *Peer) Outside(ctx context.Context) *controlv1.OutsideResponse {
	out := &controlv1.OutsideResponse{}
	var ids []grid.PeerID
	for _, peer := range p.membership.Peers() {
		if peer.ID != p.ID() && peer.State == grid.StateAlive {
			ids = append(ids, peer.ID)
			out.Views = append(out.Views, &controlv1.OutsideView{Id: peer.ID.String(), Name: peer.DisplayName()})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, reachWait)
	defer cancel()
	var reached []peernet.Reach
	var wait sync.WaitGroup
	wait.Go(func() { reached = p.net.CheckReach(ctx, ids) })
	p.askAll(ctx, ids, func(i int, load membership.Info, err error) {
		if err == nil && load.HasClock {
			out.Views[i].HasClock, out.Views[i].ClockAheadMilli = true, load.Ahead.Milliseconds()
		}
	})
	wait.Wait()
	for _, r := range reached {
		v := out.Views[slices.Index(ids, r.Peer)]
		v.Dialled, v.Dialable = true, r.Dialable
	}
	return out
}

// Outside asks how others see this peer.
func (s *service) Outside(ctx context.Context, _ *controlv1.OutsideRequest) (*controlv1.OutsideResponse, error) {
	return s.peer.Outside(ctx), nil
}
