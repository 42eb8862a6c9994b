package node

import (
	"context"

	"gotong/grid"
)

// watchReturns sees to it that a peer that is alive again is used again at
// once, not only when the pause after its last failure is over.
func (p *Peer) watchReturns(ctx context.Context) error {
	alive := map[grid.PeerID]bool{} // of members only
	for {
		changed := p.membership.Watch()
		now := map[grid.PeerID]bool{}
		for _, peer := range p.membership.Peers() {
			if peer.State != grid.StateAlive {
				continue
			}
			now[peer.ID] = true
			if !alive[peer.ID] {
				p.clients.Returned(peer.ID)
				p.forgive(peer.ID)
				p.repair.Returned()
				if p.spool != nil && p.spool.Stats().Segments > 0 { // perhaps for this one
					p.repair.Soon()
				}
			}
		}
		alive = now
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// forgive ends the pause after failures of a peer that is there now, whether
// gossip had noticed that it was away or not.
func (p *Peer) forgive(peer grid.PeerID) {
	p.segments.Forgive(peer)
	p.holders.forget(peer)
}
