package peernet

import (
	"context"
	"slices"
	"time"

	"gotong/grid"
)

// Reach is what one member said when it tried to dial this peer.
type Reach struct {
	Peer     grid.PeerID
	Dialable bool
}

// CheckReach has members find out anew whether they can dial this peer, and
// returns what they say, ordered by peer; who says nothing before ctx ends is left
// out. A member dials this peer's own signed addresses and nothing else, expects
// its key there, and may answer by what it found a moment ago.
func (n *Net) CheckReach(ctx context.Context, peers []grid.PeerID) []Reach {
	asked := time.Now()
	n.links.poke(peers)
	for {
		told := n.links.nextTold()
		reached, all := n.links.reached(peers, asked)
		if all {
			return reached
		}
		select {
		case <-told:
		case <-ctx.Done():
			return reached
		case <-n.ctx.Done():
			return reached
		}
	}
}

// poke has the keepers of some members ask again.
func (t *linkTable) poke(peers []grid.PeerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, peer := range peers {
		if k := t.keepers[peer]; k != nil {
			select {
			case k.poke <- struct{}{}:
			default: // one poke is waiting already
			}
		}
	}
}

// reached returns what some members have said since a time, and whether all have.
func (t *linkTable) reached(peers []grid.PeerID, since time.Time) (out []Reach, all bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all = true
	for _, peer := range peers {
		v, told := notKnown, time.Time{}
		if k := t.keepers[peer]; k != nil {
			v, told = k.said()
		}
		if v == notKnown || told.Before(since) {
			all = false
			continue
		}
		out = append(out, Reach{peer, v == dialable})
	}
	slices.SortFunc(out, func(a, b Reach) int { return a.Peer.Compare(b.Peer) })
	return out, all
}

// said returns the last verdict and when the peer said it.
func (k *keeper) said() (verdict, time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.verdict, k.told
}

// announce wakes those who wait for a member's word.
func (t *linkTable) announce() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.told)
	t.told = make(chan struct{})
}

// nextTold returns a channel that is closed when a member says from now on whether
// it can dial this peer.
func (t *linkTable) nextTold() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.told
}
