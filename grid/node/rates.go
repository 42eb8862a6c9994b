package node

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/peernet"
	controlv1 "gotong/proto/control/v1"
)

const (
	// rateWindow is the time over which the rate of a holder is taken.
	rateWindow = 5 * time.Second
	// minShownBytes: who moved less than that only said hello.
	minShownBytes = 64 << 10
)

// holderRates says how much was moved to or from each holder since it was made.
type holderRates struct {
	peer *Peer
	read func() map[grid.PeerID]uint64

	mu      sync.Mutex
	start   map[grid.PeerID]uint64
	samples []rateSample // oldest first
}

type rateSample struct {
	at    time.Time
	bytes map[grid.PeerID]uint64
}

// watchRates begins to look at one direction of the traffic.
func (p *Peer) watchRates(direction func(peernet.Traffic) uint64) *holderRates {
	r := &holderRates{peer: p, read: func() map[grid.PeerID]uint64 {
		out := map[grid.PeerID]uint64{}
		for id, t := range p.net.Traffic() {
			out[id] = direction(t)
		}
		return out
	}}
	r.start = r.read()
	r.samples = []rateSample{{time.Now(), r.start}}
	return r
}

// now returns the holders with which something was moved, by name.
func (r *holderRates) now(at time.Time) []*controlv1.HolderRate {
	r.mu.Lock()
	defer r.mu.Unlock()
	latest := rateSample{at, r.read()}
	r.samples = append(r.samples, latest)
	for len(r.samples) > 2 && at.Sub(r.samples[1].at) >= rateWindow {
		r.samples = r.samples[1:]
	}
	oldest := r.samples[0]
	took := at.Sub(oldest.at).Seconds()
	var out []*controlv1.HolderRate
	for id, bytes := range latest.bytes {
		moved := bytes - r.start[id]
		if moved < minShownBytes {
			continue
		}
		rate := &controlv1.HolderRate{Peer: id.String(), Name: r.peer.nameOf(id), Bytes: moved}
		if took > 0 {
			rate.BytesPerSecond = float64(bytes-oldest.bytes[id]) / took
		}
		out = append(out, rate)
	}
	slices.SortFunc(out, func(a, b *controlv1.HolderRate) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Peer, b.Peer))
	})
	return out
}
