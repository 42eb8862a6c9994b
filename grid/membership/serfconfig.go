package membership

import (
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
)

const (
	// serfProtocol is the version of Serf's protocol that peers speak.
	serfProtocol uint8 = 5
	// gossipPacketBytes is how much memberlist puts into one packet. Packets
	// go over TCP, so a datagram's limit does not apply.
	gossipPacketBytes = 8 << 10
	// userEventBytes bounds a user event.
	userEventBytes = 512
	// broadcastTimeout is how long Serf waits until a change has left this peer.
	broadcastTimeout = 2 * time.Second
	// forgetAfter is how long Serf remembers peers that failed or left. The
	// roster says who belongs; this is for reconnecting alone.
	forgetAfter = 24 * time.Hour
)

// serfConfig returns a fresh configuration: sessions are encrypted and
// authenticated below, names conflict only if keys do.
func (m *Membership) serfConfig(t *transport, events chan<- serf.Event) *serf.Config {
	logger := newSerfLog(m.cfg.Logger)
	timers := m.cfg.Timers

	ml := memberlist.DefaultLANConfig()
	ml.Transport = t
	ml.Logger, ml.LogOutput = logger, nil
	ml.BindAddr, ml.BindPort = "", syntheticPort
	ml.AdvertiseAddr, ml.AdvertisePort = "", syntheticPort
	ml.RequireNodeNames = true
	ml.EnableCompression = false
	ml.GossipVerifyIncoming, ml.GossipVerifyOutgoing = false, false
	ml.UDPBufferSize = gossipPacketBytes
	ml.ProbeInterval, ml.ProbeTimeout = timers.Probe, timers.ProbeTimeout
	ml.GossipInterval, ml.GossipToTheDeadTime = timers.Gossip, timers.PushPull
	ml.PushPullInterval, ml.TCPTimeout = timers.PushPull, timers.Stream
	ml.SuspicionMult = timers.Suspicion

	c := serf.DefaultConfig()
	c.NodeName = m.self.String()
	c.Tags = m.tags().encode()
	c.EventCh = events
	c.ProtocolVersion = serfProtocol
	c.Logger, c.LogOutput = logger, nil
	c.MemberlistConfig = ml
	c.EnableNameConflictResolution = false
	c.ValidateNodeNames = true
	c.UserEventSizeLimit = userEventBytes
	c.BroadcastTimeout = broadcastTimeout
	c.LeavePropagateDelay = timers.Leave
	c.ReconnectInterval = timers.Reconnect
	c.ReconnectTimeout, c.TombstoneTimeout = forgetAfter, forgetAfter
	c.ReconnectTimeoutOverride = reapRemoved{m}
	c.Merge = &gate{self: m.self, allowed: m.isMember, unknown: m.askAbout}
	return c
}

// reapRemoved lets Serf forget at once whom the roster removed.
type reapRemoved struct{ m *Membership }

// ReconnectTimeout implements serf.ReconnectTimeoutOverrider.
func (r reapRemoved) ReconnectTimeout(member *serf.Member, timeout time.Duration) time.Duration {
	if peer, ok := peerOf(member.Name); ok && !r.m.isMember(peer) {
		return 0
	}
	return timeout
}
