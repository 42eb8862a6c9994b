package roster

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"

	"gotong/grid"
	"gotong/grid/identity"
)

// Errors of writing statements. Test with errors.Is.
var (
	// ErrNotAdmin: the peer may not do that in this grid.
	ErrNotAdmin = errors.New("only an admin, the inviter, or a peer of the same owner may do that")
	// ErrAuthor: this peer cannot write a statement that counts.
	ErrAuthor = errors.New("this peer cannot write into the roster")
	// ErrForked: the author's own statements contradict each other, so nothing
	// that it writes counts until another member admits it again.
	ErrForked = errors.New("this peer's statements contradict each other; another member has to admit it again")
	// ErrChainFull: the author has written MaxChain statements in its epoch.
	ErrChainFull = errors.New("this peer has written as many roster statements as it may")
)

// AdmitParams describe a peer to admit.
type AdmitParams struct {
	PeerKey    ed25519.PublicKey
	Delegation identity.Signed // by the peer's owner, for this grid and peer
	Consent    identity.Signed // by the peer (SignConsent)
	GrantAdmin bool            // make the owner an admin; the author has to be one
}

// CheckAdmit says whether Admit by that author would accept the parameters,
// without writing: the delegation and consent verify for this grid and peer,
// neither the peer nor its owner was removed, and the author may do it.
func (r *Roster) CheckAdmit(author grid.PeerID, p AdmitParams) error {
	_, err := r.View().plan(author, p)
	return err
}

// Admit signs with the node key that a peer belongs to the grid; the statement
// is durable when it returns. A peer that is a member already, for the same
// owner and with that delegation or a later one, is left as it is; a forked one
// gets a new chain.
//
// Papers that do not fit are identity.ErrDelegation, ErrConsent or
// identity.ErrBadSignature; a removed peer or owner is grid.ErrRemoved; ErrAuthor says that it is the
// author who may not write.
func (r *Roster) Admit(node identity.NodeKey, p AdmitParams) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	plan, err := r.View().plan(node.PeerID(), p)
	if err != nil || plan == nil {
		return err
	}
	return r.commitOwn(signAdmit(node, r.set.grid, plan.link, p, plan.epoch))
}

// admitPlan is where an admission goes and which epoch it opens.
type admitPlan struct {
	link  link
	epoch uint32
}

// plan returns nil when the admission would change nothing.
func (v *View) plan(author grid.PeerID, p AdmitParams) (*admitPlan, error) {
	a, err := openAdmission(v.id, p.PeerKey, p.Delegation.Encode(), p.Consent.Encode())
	if err != nil {
		return nil, fmt.Errorf("admit a peer: %w", err)
	}
	if v.out.removed(a.peer) || v.out.removedOwners[a.owner] {
		return nil, fmt.Errorf("admit %s: %w", a.peer.Short(), grid.ErrRemoved)
	}
	if p.GrantAdmin && !v.IsAdmin(author) {
		return nil, fmt.Errorf("admit %s as an admin: %w: %w", a.peer.Short(), ErrAuthor, ErrNotAdmin)
	}
	if v.holds(a, p.GrantAdmin) {
		return nil, nil
	}
	l, err := v.nextLink(author)
	if err != nil {
		return nil, fmt.Errorf("admit %s: %w", a.peer.Short(), err)
	}
	epoch, err := v.epochFor(a.peer)
	if err != nil {
		return nil, fmt.Errorf("admit %s: %w", a.peer.Short(), err)
	}
	return &admitPlan{l, epoch}, nil
}

// holds reports whether admitting a would change nothing.
func (v *View) holds(a *admission, grantAdmin bool) bool {
	m, ok := v.members[a.peer]
	return ok && m.Owner == a.owner && !m.Forked && m.Delegation.Epoch >= a.delegation.Epoch &&
		(!grantAdmin || v.out.owners[a.owner].admin)
}

// epochFor returns the author epoch for an admission of the peer: a forked one
// starts a new chain.
func (v *View) epochFor(peer grid.PeerID) (uint32, error) {
	p := v.out.peers[peer]
	switch {
	case p == nil:
		return 0, nil
	case !p.forked[p.epoch()]:
		return p.epoch(), nil
	case p.epoch() == MaxEpoch:
		return 0, ErrChainFull
	default:
		return p.epoch() + 1, nil
	}
}

// nextLink returns the place of the author's next statement.
func (v *View) nextLink(author grid.PeerID) (link, error) {
	if status := v.Status(author); status != StatusActive {
		return link{}, fmt.Errorf("%w: it is %s in this roster", ErrAuthor, status)
	}
	p := v.out.peers[author]
	epoch := p.epoch()
	if p.forked[epoch] {
		return link{}, fmt.Errorf("%w: %w", ErrAuthor, ErrForked)
	}
	at := p.last(epoch)
	// Statements beyond a gap exist: own ones were lost here. Writing would
	// contradict them.
	if len(v.out.x.chains[author][epoch]) > int(at.number) {
		return link{}, fmt.Errorf("%w: %w", ErrAuthor, ErrForked)
	}
	if at.number == MaxChain {
		return link{}, fmt.Errorf("%w: %w", ErrAuthor, ErrChainFull)
	}
	return link{epoch: epoch, number: at.number + 1, previous: at.hash}, nil
}

// last names the last counted statement of an epoch; number 0 when there is
// none.
func (p *peerStanding) last(epoch uint32) cut {
	counted := p.counted[epoch]
	if len(counted) == 0 {
		return cut{epoch: epoch}
	}
	return cut{epoch: epoch, number: uint32(len(counted)), hash: counted[len(counted)-1].hash}
}

// RemoveParams name whom to remove: exactly one of the fields is set.
type RemoveParams struct {
	Peer  grid.PeerID
	Owner grid.OwnerID
}

// Remove signs with the node key that a peer, or an owner with all peers, is
// removed for good; what they wrote so far, as far as it is known here, keeps
// counting. It is durable when it returns. ErrNotAdmin says that the node may
// not, grid.ErrUnknownPeer that there is nobody of that id, and removing twice
// is no error.
func (r *Roster) Remove(node identity.NodeKey, p RemoveParams) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.View()
	removal, l, err := v.planRemoval(node.PeerID(), p)
	if err != nil || removal == nil {
		return err
	}
	return r.commitOwn(signRemove(node, v.id, l, *removal))
}

// CheckRemove returns the error that Remove by that author would return, and
// changes nothing.
func (r *Roster) CheckRemove(author grid.PeerID, p RemoveParams) error {
	_, _, err := r.View().planRemoval(author, p)
	return err
}

// planRemoval returns nil when the removal would change nothing.
func (v *View) planRemoval(author grid.PeerID, p RemoveParams) (*removal, link, error) {
	removal, err := v.removalOf(p)
	if err != nil || removal == nil {
		return nil, link{}, err
	}
	l, err := v.nextLink(author)
	if err != nil {
		return nil, link{}, fmt.Errorf("remove: %w", err)
	}
	if !v.out.authorised(author, removal) {
		return nil, link{}, ErrNotAdmin
	}
	return removal, l, nil
}

// removalOf builds the removal with a cut for each author; nil when there is
// nothing left to remove.
func (v *View) removalOf(p RemoveParams) (*removal, error) {
	if p.Peer.IsZero() == p.Owner.IsZero() {
		return nil, errors.New("remove: name either a peer or an owner")
	}
	r := &removal{peer: p.Peer, owner: p.Owner, cuts: map[grid.PeerID]cut{}}
	if p.Owner.IsZero() {
		if v.out.peers[p.Peer] == nil {
			return nil, fmt.Errorf("remove %s: %w", p.Peer.Short(), grid.ErrUnknownPeer)
		}
		if v.out.removed(p.Peer) {
			return nil, nil
		}
		r.cuts[p.Peer] = v.lastOf(p.Peer)
		return r, nil
	}
	switch v.OwnerStatus(p.Owner) {
	case StatusUnknown:
		return nil, fmt.Errorf("remove owner %s: %w", p.Owner.Short(), grid.ErrUnknownPeer)
	case StatusRemoved:
		return nil, nil
	}
	for peer := range v.out.peers {
		if at := v.lastOf(peer); at != (cut{}) && slices.Contains(v.out.x.claims[peer], p.Owner) {
			r.cuts[peer] = at
		}
	}
	if len(r.cuts) > MaxCuts {
		return nil, fmt.Errorf("remove owner %s: more than %d of its peers wrote statements; remove some of them first", p.Owner.Short(), MaxCuts)
	}
	return r, nil
}

func (v *View) lastOf(peer grid.PeerID) cut {
	p := v.out.peers[peer]
	return p.last(p.epoch())
}

// commitOwn stores a statement that was just signed here.
func (r *Roster) commitOwn(raw []byte) error {
	s, err := parseStatement(r.set.grid, raw)
	if err != nil {
		return fmt.Errorf("own statement: %w", err)
	}
	return r.commit([]*statement{s})
}
