package roster

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"gotong/grid"
	"gotong/grid/identity"
)

// DomainConsent is the signing domain of consents.
const DomainConsent identity.Domain = "gotong consent v1"

// Consent is a peer's word, signed by its node key, that it belongs to an owner
// in a grid and accepts an inviter. Without it anybody could claim a stranger's
// peer, or become its inviter by admitting it once more.
//
// Body: grid 32 bytes, owner 32, inviter 32 (zero when nobody invited).
type Consent struct {
	Grid    grid.GridID
	Owner   grid.OwnerID
	Inviter grid.PeerID
}

const consentBodyBytes = 3 * 32

// SignConsent signs c with the node key of the peer that consents.
func SignConsent(node identity.NodeKey, c Consent) identity.Signed {
	body := make([]byte, 0, consentBodyBytes)
	body = append(body, c.Grid[:]...)
	body = append(body, c.Owner[:]...)
	body = append(body, c.Inviter[:]...)
	return identity.Sign(node.Private(), DomainConsent, body)
}

// OpenConsent verifies the signature and returns the consent. The peer that
// gave it is the one whose key is in s.
func OpenConsent(s identity.Signed) (Consent, error) {
	if err := s.Verify(DomainConsent); err != nil {
		return Consent{}, err
	}
	b := s.Body
	if len(b) != consentBodyBytes {
		return Consent{}, fmt.Errorf("%w: %d bytes", ErrConsent, len(b))
	}
	return Consent{grid.GridID(b[:32]), grid.OwnerID(b[32:64]), grid.PeerID(b[64:])}, nil
}

// ErrConsent says that a consent does not fit the peer, the owner or the grid.
// Test with errors.Is.
var ErrConsent = errors.New("consent does not hold")

// admission is what genesis, admit and device have in common, verified: a peer,
// its owner, the owner's delegation and the peer's consent.
type admission struct {
	peer       grid.PeerID
	key        ed25519.PublicKey
	owner      grid.OwnerID
	ownerKey   ed25519.PublicKey
	delegation identity.Delegation
	signed     identity.Signed // the delegation as it came
	inviter    grid.PeerID     // to whom the peer consented; zero: nobody
}

// openAdmission verifies that the delegation and the consent name each other's
// signer and the grid.
func openAdmission(g grid.GridID, peerKey, delegation, consent []byte) (*admission, error) {
	if len(peerKey) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("peer key of %d bytes", len(peerKey))
	}
	signed, err := identity.ParseSigned(delegation)
	if err != nil {
		return nil, err
	}
	d, owner, err := identity.OpenDelegation(signed)
	if err != nil {
		return nil, err
	}
	a := &admission{
		peer: grid.PeerIDOf(peerKey), key: peerKey, owner: owner, ownerKey: signed.Key,
		delegation: d, signed: signed,
	}
	if d.Grid != g || d.Peer != a.peer {
		return nil, fmt.Errorf("%w: it names another grid or peer", identity.ErrDelegation)
	}
	signedConsent, err := identity.ParseSigned(consent)
	if err != nil {
		return nil, err
	}
	c, err := OpenConsent(signedConsent)
	if err != nil {
		return nil, err
	}
	if grid.PeerIDOf(signedConsent.Key) != a.peer || c.Grid != g || c.Owner != owner {
		return nil, fmt.Errorf("%w: it is of another peer, or for another grid or owner", ErrConsent)
	}
	a.inviter = c.Inviter
	return a, nil
}
