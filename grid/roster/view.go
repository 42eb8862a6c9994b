package roster

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"gotong/grid"
	"gotong/grid/identity"
)

// Status says what the roster knows of a peer.
type Status uint8

// The statuses of a peer.
const (
	StatusUnknown Status = iota // no statement that counts admits it
	StatusActive                // a member
	StatusRemoved               // it, or its owner, was removed for good
)

// String returns "unknown", "active" or "removed".
func (s Status) String() string {
	switch s {
	case StatusActive:
		return "active"
	case StatusRemoved:
		return "removed"
	default:
		return "unknown"
	}
}

// Member is one peer of the grid.
type Member struct {
	ID         grid.PeerID
	Key        ed25519.PublicKey
	Owner      grid.OwnerID
	OwnerKey   ed25519.PublicKey
	Admin      bool                // may remove others
	Forked     bool                // contradicted itself; its statements count no further until it is admitted again
	InvitedBy  grid.PeerID         // zero for the first peer and for devices
	Delegation identity.Delegation // the one with the highest epoch
	Signed     identity.Signed     // that delegation as it was signed
}

// Owner is one person of the grid.
type Owner struct {
	ID      grid.OwnerID
	Key     ed25519.PublicKey
	Admin   bool
	Genesis bool          // founded the grid
	Peers   []grid.PeerID // active ones, sorted
}

// View is who belongs to the grid at one moment. It never changes and may be
// shared.
type View struct {
	id      grid.GridID
	name    string
	digest  [sha256.Size]byte
	out     *outcome
	members map[grid.PeerID]Member // active
	sorted  []Member
	owners  []Owner
	path    *pathFinder
}

// Evaluate reads a set of statements without storing anything and says who
// belongs to grid g. Statements whose author nobody admits are left aside.
// Every statement must be valid (ErrStatement) and one of them the genesis
// (ErrNoGenesis).
func Evaluate(g grid.GridID, statements [][]byte) (*View, error) {
	set := newSet(g)
	fresh, err := set.read(statements)
	if err != nil {
		return nil, err
	}
	set.add(set.connected(fresh))
	return set.view()
}

func (set *set) view() (*View, error) {
	out := evaluate(newIndex(set.ordered))
	if len(out.x.genesis) == 0 {
		return nil, fmt.Errorf("%w for %s", ErrNoGenesis, set.grid)
	}
	v := &View{id: set.grid, name: out.x.genesis[0].name, digest: set.digest(), out: out, members: map[grid.PeerID]Member{}}
	for id := range out.peers {
		if !out.removed(id) {
			v.members[id] = out.member(id)
		}
	}
	v.sorted = slices.SortedFunc(maps.Values(v.members), func(a, b Member) int { return a.ID.Compare(b.ID) })
	v.owners = out.listOwners(v.sorted)
	v.path = newPathFinder(set.ordered, out)
	return v, nil
}

func (o *outcome) member(id grid.PeerID) Member {
	p := o.peers[id]
	best := o.bestAdmission(p)
	m := Member{
		ID: id, Key: best.admission.key, Owner: p.owner, OwnerKey: best.admission.ownerKey,
		Admin: o.isAdmin(id), Forked: p.forked[p.epoch()],
		Delegation: best.admission.delegation, Signed: best.admission.signed,
	}
	for inviter := range p.inviters {
		if m.InvitedBy.IsZero() || inviter.Compare(m.InvitedBy) < 0 {
			m.InvitedBy = inviter
		}
	}
	return m
}

// bestAdmission returns, of the admissions by the peer's owner, the one whose
// delegation has the highest epoch.
func (o *outcome) bestAdmission(p *peerStanding) *statement {
	var best *statement
	for s := range p.admissions {
		if s.admission.owner == p.owner && (best == nil || s.supersedes(best)) {
			best = s
		}
	}
	return best
}

func (s *statement) supersedes(other *statement) bool {
	a, b := s.admission, other.admission
	if a.delegation.Epoch != b.delegation.Epoch {
		return a.delegation.Epoch > b.delegation.Epoch
	}
	if c := bytes.Compare(a.signed.Signature, b.signed.Signature); c != 0 {
		return c < 0
	}
	return bytes.Compare(s.hash[:], other.hash[:]) < 0
}

// epoch returns the highest epoch that was granted: the one in which the peer
// writes.
func (p *peerStanding) epoch() uint32 { return slices.Max(slices.Collect(maps.Keys(p.epochs))) }

func (o *outcome) listOwners(members []Member) []Owner {
	byID := map[grid.OwnerID]*Owner{}
	for _, m := range members {
		owner := byID[m.Owner]
		if owner == nil {
			standing := o.owners[m.Owner]
			owner = &Owner{ID: m.Owner, Key: m.OwnerKey, Admin: standing.admin, Genesis: standing.genesis}
			byID[m.Owner] = owner
		}
		owner.Peers = append(owner.Peers, m.ID)
	}
	out := make([]Owner, 0, len(byID))
	for _, owner := range byID {
		out = append(out, *owner)
	}
	slices.SortFunc(out, func(a, b Owner) int { return a.ID.Compare(b.ID) })
	return out
}

// Grid returns the id of the grid.
func (v *View) Grid() grid.GridID { return v.id }

// Name returns the name that the genesis gave the grid.
func (v *View) Name() string { return v.name }

// Digest is equal for equal sets of statements, and practically only then.
func (v *View) Digest() [sha256.Size]byte { return v.digest }

// Member returns an active member.
func (v *View) Member(id grid.PeerID) (Member, bool) {
	m, ok := v.members[id]
	return m, ok
}

// Status says whether a peer is active, removed, or unknown. A peer whose only
// inviter had its statements cut off is unknown, not removed: another member
// may admit it.
func (v *View) Status(id grid.PeerID) Status {
	if _, ok := v.members[id]; ok {
		return StatusActive
	}
	if v.out.removed(id) {
		return StatusRemoved
	}
	return StatusUnknown
}

// OwnerStatus says whether an owner is a member, was removed, or is unknown. An
// owner all of whose peers were removed one by one is still active and may
// bring in a new device.
func (v *View) OwnerStatus(id grid.OwnerID) Status {
	switch {
	case v.out.removedOwners[id]:
		return StatusRemoved
	case v.out.owners[id] != nil:
		return StatusActive
	default:
		return StatusUnknown
	}
}

// Members returns the active members, sorted by PeerID. The slice is shared: do
// not change it.
func (v *View) Members() []Member { return v.sorted }

// Owners returns the owners with at least one active peer, sorted by OwnerID.
// The slice is shared: do not change it.
func (v *View) Owners() []Owner { return v.owners }

// Disowned reports whether some owner's disown counts: what it undid may be news
// to others.
func (v *View) Disowned() bool { return len(v.out.disowns) > 0 }

// Mentioned reports whether some statement, counted or not, admits the peer.
func (v *View) Mentioned(id grid.PeerID) bool { return len(v.out.x.claims[id]) > 0 }

// Removed returns the removed peers that the roster has heard of, sorted.
func (v *View) Removed() []grid.PeerID {
	var out []grid.PeerID
	for id := range v.out.peers {
		if v.out.removed(id) {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, grid.PeerID.Compare)
	return out
}

// OwnerOf returns the owner of a peer that counts as admitted, removed or not.
func (v *View) OwnerOf(id grid.PeerID) (grid.OwnerID, bool) {
	p := v.out.peers[id]
	if p == nil {
		return grid.OwnerID{}, false
	}
	return p.owner, true
}

// IsAdmin reports whether an active peer may remove others.
func (v *View) IsAdmin(id grid.PeerID) bool { return v.members[id].Admin }

// Forked reports whether an active peer contradicted itself.
func (v *View) Forked(id grid.PeerID) bool { return v.members[id].Forked }

// Delegation returns what an active peer's owner lets it do, and the signed
// bytes that prove it.
func (v *View) Delegation(id grid.PeerID) (identity.Delegation, identity.Signed, bool) {
	m, ok := v.members[id]
	return m.Delegation, m.Signed, ok
}

// NewestDelegation returns, of all delegations by an owner that the roster has,
// those of removed peers included, the one with the highest epoch.
func (v *View) NewestDelegation(owner grid.OwnerID) (newest identity.Signed, ok bool) {
	var best *admission
	consider := func(a *admission) {
		if a.owner == owner && (best == nil || a.delegation.Epoch > best.delegation.Epoch) {
			best = a
		}
	}
	for _, device := range v.out.x.devices[owner] {
		consider(device.admission)
	}
	for _, p := range v.out.peers {
		for s := range p.admissions {
			consider(s.admission)
		}
	}
	if best == nil {
		return identity.Signed{}, false
	}
	return best.signed, true
}
