package peernet

import (
	"sync"
	"sync/atomic"

	"gotong/grid"
)

// Traffic is what gRPC moved between this peer and another one since it started,
// in bytes before encryption.
type Traffic struct {
	Sent, Received uint64
}

// Traffic returns that of each peer with which there was any.
func (n *Net) Traffic() map[grid.PeerID]Traffic {
	out := map[grid.PeerID]Traffic{}
	n.pace.counts.Range(func(peer, count any) bool {
		c := count.(*trafficCount)
		out[peer.(grid.PeerID)] = Traffic{c.sent.Load(), c.received.Load()}
		return true
	})
	return out
}

// trafficCounts has a *trafficCount for each peer that was connected: members,
// so there are as many as the grid ever had.
type trafficCounts struct{ sync.Map }

type trafficCount struct {
	sent, received atomic.Uint64
}

// of returns the count of a peer.
func (t *trafficCounts) of(peer grid.PeerID) *trafficCount {
	count, _ := t.LoadOrStore(peer, new(trafficCount))
	return count.(*trafficCount)
}
