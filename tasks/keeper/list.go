package keeper

import (
	"slices"

	"gotong/grid"
	"gotong/storage/placement"
	"gotong/tasks"
)

// List says who keeps a job.
type List struct {
	By     Stream // whose list it is; zero: the submitter's
	Number uint64 // grows with each change by one driver
	Peers  []grid.PeerID
}

// newer reports whether l replaces other.
func (l List) newer(other List) bool {
	if len(other.Peers) == 0 {
		return len(l.Peers) > 0
	}
	if l.By != other.By {
		return l.By.Beats(other.By)
	}
	return l.Number > other.Number
}

// ranked returns the peers of the list in the order in which they drive.
func ranked(job tasks.JobID, peers []grid.PeerID) []grid.PeerID {
	return placement.Rendezvous(job, peers)
}

// choose returns who may keep a job, best first: members that are there, that
// the policy allows and that are not in taken.
func choose(plan Plan, alive []Member, taken func(grid.PeerID) bool) []grid.PeerID {
	var peers []grid.PeerID
	sites := map[grid.PeerID]string{}
	for _, m := range alive {
		if plan.allows(m) && !taken(m.Peer) {
			peers = append(peers, m.Peer)
			sites[m.Peer] = m.Site
		}
	}
	// One of each site before a second of any: keepers should not vanish together.
	var first, rest []grid.PeerID
	used := map[string]bool{}
	for _, m := range alive {
		if taken(m.Peer) {
			used[m.Site] = true
		}
	}
	for _, peer := range ranked(plan.Job, peers) {
		if used[sites[peer]] {
			rest = append(rest, peer)
			continue
		}
		used[sites[peer]] = true
		first = append(first, peer)
	}
	return append(first, rest...)
}

// allows reports whether a member may keep the job.
func (p Plan) allows(m Member) bool {
	switch p.Keepers {
	case KeepersMine:
		return m.Owner == p.Owner
	case KeepersFriends:
		return m.Owner != p.Owner
	}
	return true
}

func without(peers []grid.PeerID, gone grid.PeerID) []grid.PeerID {
	return slices.DeleteFunc(slices.Clone(peers), func(p grid.PeerID) bool { return p == gone })
}
