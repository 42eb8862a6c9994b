package roster

import (
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"gotong/grid"
)

// Doubt is a device whose owner may not have written what it signed lately:
// removals, admissions of those who then removed others, or two statements under
// one number.
type Doubt struct {
	Device   grid.PeerID
	Removals []LateRemoval // by the device, or by who came in through it; the oldest first
	Forked   bool          // it contradicted itself

	keep cut // its last statement before all that
}

// LateRemoval is one removal of a Doubt.
type LateRemoval struct {
	By     grid.PeerID
	Peer   grid.PeerID  // either this
	Owner  grid.OwnerID // or this
	Learnt time.Time
}

// Same reports whether two doubts are of one device and keep the same of it.
func (d Doubt) Same(other Doubt) bool { return d.Device == other.Device && d.keep == other.keep }

// Doubts lists the devices of an owner that signed, or let in who signed, what
// came since a time, by PeerID. learnt says when each statement came to whom the
// caller trusts; of a fork the branch that came first is taken for the right one.
func (v *View) Doubts(owner grid.OwnerID, since time.Time, learnt map[Hash]time.Time) []Doubt {
	d := doubter{x: v.out.x, learnt: learnt, late: func(s *statement) bool {
		at, known := learnt[s.hash]
		return known && !at.Before(since)
	}}
	removers := d.removers()
	var out []Doubt
	for _, device := range slices.SortedFunc(maps.Keys(d.x.chains), grid.PeerID.Compare) {
		if !slices.Contains(d.x.claims[device], owner) {
			continue
		}
		doubt := Doubt{Device: device}
		first := d.walk(&doubt, removers)
		if first == nil && !doubt.Forked || v.out.takenBack(doubt) {
			continue
		}
		doubt.Removals = d.removalsThrough(device)
		out = append(out, doubt)
	}
	return out
}

// takenBack reports whether a disown that counts takes that much back already.
func (o *outcome) takenBack(d Doubt) bool {
	return slices.ContainsFunc(o.disowns, func(s *statement) bool {
		at, ok := s.disown.cuts[d.Device]
		return ok && !d.keep.below(at)
	})
}

// SignDisown returns the statement by which the owner takes back what those
// devices signed, and the devices with it. Any member takes it.
func SignDisown(owner ed25519.PrivateKey, g grid.GridID, doubts []Doubt) ([]byte, error) {
	if len(doubts) == 0 || len(doubts) > MaxCuts {
		return nil, fmt.Errorf("disown %d devices: between 1 and %d can be", len(doubts), MaxCuts)
	}
	own := map[grid.PeerID]cut{}
	for _, d := range doubts {
		if d.Device.IsZero() {
			return nil, errors.New("disown: no device")
		}
		own[d.Device] = d.keep
	}
	return signDisown(owner, g, own), nil
}

type doubter struct {
	x      *index
	learnt map[Hash]time.Time
	late   func(*statement) bool
}

// each calls f with every chained statement that came late.
func (d *doubter) each(f func(*statement)) {
	for _, epochs := range d.x.chains {
		for _, c := range epochs {
			for _, candidates := range c {
				for _, s := range candidates {
					if d.late(s) {
						f(s)
					}
				}
			}
		}
	}
}

// removers are those who removed somebody else lately, and those who let them in
// lately.
func (d *doubter) removers() map[grid.PeerID]bool {
	out := map[grid.PeerID]bool{}
	for grown := true; grown; {
		grown = false
		d.each(func(s *statement) {
			if !out[s.author] && (d.removesOther(s) || s.kind == kindAdmit && out[s.admission.peer]) {
				out[s.author], grown = true, true
			}
		})
	}
	return out
}

func (d *doubter) removesOther(s *statement) bool {
	return s.kind == kindRemove && s.removal.peer != s.author
}

// walk follows the device's chains up to the first doubtful statement, which it
// returns; nil when there is none.
func (d *doubter) walk(doubt *Doubt, removers map[grid.PeerID]bool) *statement {
	chains := d.x.chains[doubt.Device]
	for _, epoch := range slices.Sorted(maps.Keys(chains)) {
		at := cut{epoch: epoch}
		for number := uint32(1); number <= MaxChain; number++ {
			candidates := slices.DeleteFunc(slices.Clone(chains[epoch][number]), func(s *statement) bool { return s.link.previous != at.hash })
			if len(chains[epoch][number]) > 1 && slices.ContainsFunc(chains[epoch][number], d.late) {
				doubt.Forked = true
			}
			if len(candidates) == 0 {
				break
			}
			s := slices.MinFunc(candidates, func(a, b *statement) int { return d.learnt[a.hash].Compare(d.learnt[b.hash]) })
			if d.late(s) && (d.removesOther(s) || s.kind == kindAdmit && removers[s.admission.peer]) {
				doubt.keep = at
				return s
			}
			at = cut{epoch: epoch, number: number, hash: s.hash}
		}
		if at.number > 0 || epoch == 0 {
			doubt.keep = at
		}
	}
	return nil
}

// removalsThrough lists the late removals by a device and by whom it let in.
func (d *doubter) removalsThrough(device grid.PeerID) (out []LateRemoval) {
	through := map[grid.PeerID]bool{device: true}
	for grown := true; grown; {
		grown = false
		d.each(func(s *statement) {
			if s.kind == kindAdmit && through[s.author] && !through[s.admission.peer] {
				through[s.admission.peer], grown = true, true
			}
		})
	}
	d.each(func(s *statement) {
		if through[s.author] && d.removesOther(s) {
			out = append(out, LateRemoval{By: s.author, Peer: s.removal.peer, Owner: s.removal.owner, Learnt: d.learnt[s.hash]})
		}
	})
	slices.SortFunc(out, func(a, b LateRemoval) int {
		return cmp.Or(a.Learnt.Compare(b.Learnt), a.By.Compare(b.By), a.Peer.Compare(b.Peer), slices.Compare(a.Owner[:], b.Owner[:]))
	})
	return out
}
