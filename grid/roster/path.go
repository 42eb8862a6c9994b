package roster

import (
	"cmp"
	"slices"

	"gotong/grid"
)

// MaxPathBytes bounds the statements that PathTo returns.
const MaxPathBytes = 64 << 10

// pathFinder answers PathTo for one view.
type pathFinder struct {
	ordered []*statement
	out     *outcome
}

func newPathFinder(ordered []*statement, out *outcome) *pathFinder {
	return &pathFinder{slices.Clip(ordered), out}
}

// PathTo returns encoded statements, at most MaxPathBytes, that lead from the
// genesis to an active member: its admission, those of its inviters, the disowns
// that count, because they may undo a removal of it, and of the inviters' chains
// as much as fits, newest first. Whoever knows the rest can verify
// that the peer belongs. It returns nil for a peer that is not a member.
func (v *View) PathTo(id grid.PeerID) [][]byte {
	if _, ok := v.members[id]; !ok {
		return nil
	}
	picked := v.path.pick(id)
	var out [][]byte
	for _, s := range v.path.ordered {
		if picked[s] {
			out = append(out, s.raw)
		}
	}
	return out
}

// pick takes the edges of the path first and then fills what is left with the
// chains, because the other side is likely to have the older parts.
func (f *pathFinder) pick(id grid.PeerID) map[*statement]bool {
	picked, left := map[*statement]bool{}, MaxPathBytes
	take := func(s *statement) bool {
		if picked[s] {
			return true
		}
		if len(s.raw) > left {
			return false
		}
		picked[s] = true
		left -= len(s.raw)
		return true
	}
	edges := f.edges(id)
	for _, s := range edges {
		take(s)
	}
	for _, s := range f.disowns() {
		take(s)
	}
	for _, s := range edges {
		if s.kind != kindAdmit {
			continue
		}
		counted := f.out.peers[s.author].counted[s.link.epoch]
		for number := int(s.link.number) - 1; number > 0; number-- {
			if !take(counted[number-1]) {
				return picked
			}
		}
	}
	return picked
}

// disowns lists those that count, of owners near the genesis and short ones
// first: one owner cannot fill the path so that those of seniors have no room.
func (f *pathFinder) disowns() []*statement {
	return slices.SortedFunc(slices.Values(f.out.disowns), func(a, b *statement) int {
		return cmp.Or(
			cmp.Compare(f.out.depthOf(a.disown.owner), f.out.depthOf(b.disown.owner)),
			cmp.Compare(len(a.raw), len(b.raw)),
			slices.Compare(a.hash[:], b.hash[:]),
		)
	})
}

// hop is a peer together with the epoch in which its statements are needed.
type hop struct {
	peer  grid.PeerID
	epoch uint32
}

// edges lists the admissions from the peer up to the genesis, nearest first.
func (f *pathFinder) edges(id grid.PeerID) []*statement {
	var out []*statement
	seen := map[hop]bool{}
	follow := func(s *statement) []hop {
		out = append(out, s)
		if s.kind == kindDevice {
			s = f.membership(s.admission.owner)
			out = append(out, s)
		}
		if s.kind == kindAdmit {
			return []hop{{s.author, s.link.epoch}}
		}
		return nil
	}
	for queue := follow(f.shortest(id, nil)); len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if seen[at] {
			continue
		}
		seen[at] = true
		queue = append(queue, follow(f.shortest(at.peer, &at.epoch))...)
	}
	return out
}

// shortest returns the counted admission of a peer that is nearest to the
// genesis; with an epoch, of those that let the peer write in it.
func (f *pathFinder) shortest(peer grid.PeerID, epoch *uint32) *statement {
	var best *statement
	for s := range f.out.peers[peer].admissions {
		if (epoch == nil || s.authorEpoch == *epoch) && (best == nil || f.compare(s, best) < 0) {
			best = s
		}
	}
	return best
}

// membership returns the counted genesis or admit that made the owner a member.
func (f *pathFinder) membership(owner grid.OwnerID) *statement {
	var best *statement
	for _, p := range f.out.peers {
		for s := range p.admissions {
			if s.kind != kindDevice && s.admission.owner == owner && (best == nil || f.compare(s, best) < 0) {
				best = s
			}
		}
	}
	return best
}

// compare orders admissions by their distance from the genesis, then by hash.
func (f *pathFinder) compare(a, b *statement) int {
	if d := f.distance(a) - f.distance(b); d != 0 {
		return d
	}
	return slices.Compare(a.hash[:], b.hash[:])
}

func (f *pathFinder) distance(s *statement) int {
	switch s.kind {
	case kindGenesis:
		return 0
	case kindDevice:
		return f.out.owners[s.admission.owner].depth
	default:
		return f.out.peers[s.author].depth + 1
	}
}
