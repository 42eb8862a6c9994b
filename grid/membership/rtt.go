package membership

import (
	"time"

	"gotong/grid"

	"github.com/hashicorp/serf/serf"
)

// roundTrip estimates the round trip to a peer from Serf's network
// coordinates; 0 while there is none for it.
func roundTrip(s *serf.Serf, peer grid.PeerID) time.Duration {
	if s == nil {
		return 0
	}
	there, ok := s.GetCachedCoordinate(peer.String())
	if !ok {
		return 0
	}
	here, err := s.GetCoordinate()
	if err != nil || !here.IsCompatibleWith(there) {
		return 0
	}
	return here.DistanceTo(there)
}

// alive returns the other members that gossip calls alive, in any order.
func (m *Membership) alive() []grid.PeerID {
	m.mu.Lock()
	defer m.mu.Unlock()
	var peers []grid.PeerID
	for peer, o := range m.opinions {
		if o.state == grid.StateAlive {
			peers = append(peers, peer)
		}
	}
	return peers
}
