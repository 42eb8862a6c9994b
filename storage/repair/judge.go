package repair

import (
	"cmp"
	"slices"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/placement"
	"gotong/storage/segments"
)

// Evidence is all that is known of where the shards of one segment are.
type Evidence struct {
	ID         storage.SegmentID
	Redundancy storage.Redundancy
	Owner      grid.OwnerID
	Copies     [][]segments.Copy // by shard: what members answered, "no" left out
	Refused    []storage.Holder  // said to have a shard, answered that they have not
	Silent     []storage.Holder  // said to have a shard, did not answer
}

// Scene is what a judgement depends on besides the evidence; it is the same for
// all segments of a round.
type Scene struct {
	Self grid.PeerID
	Now  time.Time
	// Started is when this peer began to look: nobody is given up before it had
	// a while to be seen again.
	Started time.Time
	Grace   time.Duration // after which a silent holder's shards count as lost
	Peers   map[grid.PeerID]grid.Peer
	// Silent says since when a member that gossip holds for alive has not
	// answered.
	Silent map[grid.PeerID]time.Time
	// Distrusted says that a peer's word that it has the shard is not believed;
	// nil believes all.
	Distrusted func(grid.PeerID, storage.ShardID) bool
	// Leaving holders hand over what they have and get nothing back.
	Leaving map[grid.PeerID]bool
}

// maxSettling bounds how long after its start a peer waits for others to be
// seen again.
const maxSettling = time.Hour

// urgentPart of the grace is left to silent holders when no shard more may be
// lost.
const urgentPart = 10

// Verdict is what Judge found. Each shard of the segment is in exactly one of
// Good, Away and Lost.
type Verdict struct {
	Good    []storage.Holder // one for each shard that a trusted member has, by shard
	Away    []storage.Holder // shards whose holders are expected back, by shard
	Lost    []int            // to be rebuilt, by shard
	Trash   []storage.Holder // readable, but deleted there
	Crowded []storage.Holder // of Good: more than the site should hold

	Back  map[int]grid.PeerID  // of Lost: a member that had the shard and may have it back
	Avoid map[grid.PeerID]bool // must not get a shard

	// Until is when the first of Away counts as lost; zero when none is away.
	Until time.Time
	// Claimed says that some member holds the segment for deleted; see
	// Repairer: it is believed when the signed deletion is shown.
	Claimed bool

	k       int
	keepers []grid.PeerID // trusted members that have a shard
}

// Retrievable says that enough shards can be read now.
func (v Verdict) Retrievable() bool { return len(v.Good) >= v.k }

// Margin returns how many of the shards that can be read now may still be lost.
func (v Verdict) Margin() int { return len(v.Good) - v.k }

// Holders returns who has, or is expected to have, which shard.
func (v Verdict) Holders() []storage.Holder {
	all := slices.Concat(v.Good, v.Away)
	slices.SortFunc(all, func(a, b storage.Holder) int { return cmp.Compare(a.Shard, b.Shard) })
	return all
}

// Judge decides about each shard of a segment. It is pure.
func Judge(e Evidence, scene Scene) Verdict {
	v := Verdict{Back: map[int]grid.PeerID{}, Avoid: map[grid.PeerID]bool{}, k: e.Redundancy.K}
	good := v.answers(e, scene)
	v.Good, v.Crowded = assign(e.Redundancy, good, scene)
	grace := scene.Grace
	if len(v.Good) <= e.Redundancy.K {
		grace /= urgentPart
	}
	for shard := range e.Redundancy.N {
		if len(good[shard]) > 0 {
			continue
		}
		if away, until := awaited(e, shard, scene, grace); !until.IsZero() {
			v.Away = append(v.Away, away)
			if v.Until.IsZero() || until.Before(v.Until) {
				v.Until = until
			}
			continue
		}
		v.Lost = append(v.Lost, shard)
		if peer, ok := v.returnTo(e, shard, scene); ok {
			v.Back[shard] = peer
		}
	}
	return v
}

// answers sorts what members said: the trusted ones that have each shard.
func (v *Verdict) answers(e Evidence, scene Scene) [][]grid.PeerID {
	good := make([][]grid.PeerID, e.Redundancy.N)
	for shard := range min(len(e.Copies), len(good)) {
		id := storage.ShardID{Segment: e.ID, Index: shard}
		for _, c := range e.Copies[shard] {
			if _, member := scene.Peers[c.Peer]; !member {
				continue
			}
			switch c.State {
			case storage.ShardStored:
				if scene.Distrusted != nil && scene.Distrusted(c.Peer, id) {
					v.Avoid[c.Peer] = true
				} else if !slices.Contains(good[shard], c.Peer) {
					good[shard], v.keepers = append(good[shard], c.Peer), append(v.keepers, c.Peer)
				}
			case storage.ShardTrash:
				v.Claimed = true
				v.Trash = append(v.Trash, storage.Holder{Shard: shard, Peer: c.Peer})
			case storage.ShardDeleted:
				v.Claimed = true
			}
		}
		if len(good[shard]) > 1 { // the first is the one that stays
			good[shard] = placement.Rendezvous(e.ID, good[shard])
		}
	}
	for peer := range scene.Leaving {
		v.Avoid[peer] = true
	}
	return good
}

// awaited returns a holder of the shard that does not answer but is expected
// back, and until when; the zero time when there is none.
func awaited(e Evidence, shard int, scene Scene, grace time.Duration) (best storage.Holder, until time.Time) {
	for _, h := range e.Silent {
		peer, member := scene.Peers[h.Peer]
		if h.Shard != shard || !member {
			continue
		}
		if ends := lostAt(peer, scene, grace); ends.After(scene.Now) && ends.After(until) {
			best, until = h, ends
		}
	}
	return best, until
}

// lostAt returns when the shards of a peer that does not answer count as lost.
func lostAt(peer grid.Peer, scene Scene, grace time.Duration) time.Time {
	ends := lastSeen(peer, scene).Add(grace)
	if known := scene.Started.Add(min(grace, scene.Grace/urgentPart, maxSettling)); known.After(ends) {
		return known
	}
	return ends
}

// lastSeen returns since when a peer that did not answer has been away.
func lastSeen(peer grid.Peer, scene Scene) time.Time {
	seen := peer.Since
	if peer.State == grid.StateAlive { // gossip hears it, but it answers nothing
		silent, known := scene.Silent[peer.ID]
		if !known {
			return scene.Now
		}
		seen = silent
	}
	if seen.IsZero() || seen.After(scene.Now) {
		return scene.Now
	}
	return seen
}

// returnTo finds the member that had the shard and says that it lost it.
func (v *Verdict) returnTo(e Evidence, shard int, scene Scene) (grid.PeerID, bool) {
	may := func(peer grid.PeerID) bool {
		_, member := scene.Peers[peer]
		return member && !v.Avoid[peer]
	}
	if shard < len(e.Copies) {
		for _, c := range e.Copies[shard] {
			if c.State == storage.ShardBad && may(c.Peer) {
				return c.Peer, true
			}
		}
	}
	var best storage.Holder
	for _, h := range e.Refused {
		if h.Shard == shard && may(h.Peer) && (best.Peer.IsZero() || h.Epoch > best.Epoch) {
			best = h
		}
	}
	return best.Peer, !best.Peer.IsZero()
}

// Turn returns how many reachable peers are to act on a segment before self
// does: first the owner's peers, then those that hold a shard of it, each in
// rendezvous order. Two peers that see the same never have the same turn.
func Turn(e Evidence, v Verdict, scene Scene) int {
	var owners, holders []grid.PeerID
	for id, peer := range scene.Peers {
		switch keeps := slices.Contains(v.keepers, id); {
		case peer.Owner == e.Owner && (keeps || peer.State == grid.StateAlive):
			owners = append(owners, id)
		case keeps:
			holders = append(holders, id)
		}
	}
	order := append(placement.Rendezvous(e.ID, owners), placement.Rendezvous(e.ID, holders)...)
	if i := slices.Index(order, scene.Self); i >= 0 {
		return i
	}
	return len(order)
}

// waitIntervals is how many intervals a peer waits for each that comes before
// it.
const waitIntervals = 2

// ActsAt returns when a peer acts that first saw the damage at a time.
func ActsAt(seen time.Time, turn int, interval time.Duration) time.Time {
	return seen.Add(time.Duration(turn*waitIntervals) * interval)
}
