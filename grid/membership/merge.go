package membership

import (
	"errors"
	"fmt"

	"gotong/grid"

	"github.com/hashicorp/serf/serf"
)

var (
	errSyntheticAddress = errors.New("not the address of its PeerID")
	errGossipVersion    = errors.New("speaks other gossip versions")
)

// gate lets only members into Serf's list. Serf calls it for whole lists and
// for single alive messages, the latter under memberlist's lock: it must not
// block or call Serf. An error about a whole list would abort the exchange for
// one stranger in it, so only single members are refused; each entry of a list
// comes by once more on its own.
type gate struct {
	self    grid.PeerID
	allowed func(grid.PeerID) bool
	unknown func(grid.PeerID) // told of peers to ask about; does not block
}

// NotifyMerge implements serf.MergeDelegate.
func (g *gate) NotifyMerge(members []*serf.Member) error {
	if len(members) != 1 {
		return nil
	}
	return g.check(members[0])
}

func (g *gate) check(m *serf.Member) error {
	peer, err := grid.ParsePeerID(m.Name)
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	switch {
	case !m.Addr.Equal(syntheticIP(peer)) || m.Port != syntheticPort:
		return fmt.Errorf("gossip: peer %s: %w", peer.Short(), errSyntheticAddress)
	case peer == g.self:
		return nil
	case !g.allowed(peer):
		g.unknown(peer)
		return fmt.Errorf("gossip: peer %s: %w", peer.Short(), grid.ErrNotMember)
	case !compatible(m):
		return fmt.Errorf("gossip: peer %s: %w", peer.Short(), errGossipVersion)
	}
	return nil
}

// compatible refuses version numbers that would make memberlist refuse every
// later exchange between all others too: it demands one version that all speak.
func compatible(m *serf.Member) bool {
	core, delegate := serf.ProtocolVersionMap[serfProtocol], serfProtocol
	return m.ProtocolMin <= core && core <= m.ProtocolMax && m.ProtocolCur == core &&
		m.DelegateMin <= delegate && delegate <= m.DelegateMax && m.DelegateCur == delegate
}
