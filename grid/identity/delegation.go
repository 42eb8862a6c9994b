package identity

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"gotong/grid"
)

// DomainDelegation is the signing domain of delegations.
const DomainDelegation Domain = "gotong delegation v1"

// Delegation is an owner's word that a peer acts for that owner in one grid.
// It is signed by the owner key.
//
// Body: grid 32 bytes, peer 32, capabilities uint32, epoch uint32, created
// int64 (Unix seconds), expires int64 (Unix seconds, 0 never); integers are
// big-endian.
type Delegation struct {
	Grid         grid.GridID
	Peer         grid.PeerID
	Capabilities grid.Capability
	Epoch        uint32 // recover raises it; lower epochs are then refused
	Created      time.Time
	Expires      time.Time // zero: never
}

const delegationBodyBytes = 32 + 32 + 4 + 4 + 8 + 8

// ErrDelegation says that a delegation does not allow what it was shown for.
var ErrDelegation = errors.New("delegation does not hold")

// SignDelegation signs d with the owner key.
func SignDelegation(owner ed25519.PrivateKey, d Delegation) Signed {
	body := make([]byte, 0, delegationBodyBytes)
	body = append(body, d.Grid[:]...)
	body = append(body, d.Peer[:]...)
	body = binary.BigEndian.AppendUint32(body, uint32(d.Capabilities))
	body = binary.BigEndian.AppendUint32(body, d.Epoch)
	body = binary.BigEndian.AppendUint64(body, uint64(unixOrZero(d.Created)))
	body = binary.BigEndian.AppendUint64(body, uint64(unixOrZero(d.Expires)))
	return Sign(owner, DomainDelegation, body)
}

// OpenDelegation verifies the signature and returns the delegation with the
// owner who signed it. It does not know whether that owner is a member.
func OpenDelegation(s Signed) (Delegation, grid.OwnerID, error) {
	if err := s.Verify(DomainDelegation); err != nil {
		return Delegation{}, grid.OwnerID{}, err
	}
	b := s.Body
	if len(b) != delegationBodyBytes {
		return Delegation{}, grid.OwnerID{}, fmt.Errorf("%w: body of %d bytes", ErrDelegation, len(b))
	}
	d := Delegation{
		Grid:         grid.GridID(b[:32]),
		Peer:         grid.PeerID(b[32:64]),
		Capabilities: grid.Capability(binary.BigEndian.Uint32(b[64:])),
		Epoch:        binary.BigEndian.Uint32(b[68:]),
		Created:      timeOrZero(int64(binary.BigEndian.Uint64(b[72:]))),
		Expires:      timeOrZero(int64(binary.BigEndian.Uint64(b[80:]))),
	}
	if d.Capabilities&^grid.CapAll != 0 {
		return Delegation{}, grid.OwnerID{}, fmt.Errorf("%w: unknown capability bits %#x", ErrDelegation, uint32(d.Capabilities&^grid.CapAll))
	}
	return d, grid.OwnerIDOf(s.Key), nil
}

// Allows returns nil when the delegation gives peer the wanted capabilities in
// the grid at the time now.
func (d Delegation) Allows(g grid.GridID, peer grid.PeerID, want grid.Capability, now time.Time) error {
	switch {
	case d.Grid != g:
		return fmt.Errorf("%w: made for grid %s", ErrDelegation, d.Grid.Short())
	case d.Peer != peer:
		return fmt.Errorf("%w: made for peer %s", ErrDelegation, d.Peer.Short())
	case !d.Capabilities.Has(want):
		return fmt.Errorf("%w: capabilities %#x wanted, %#x given", ErrDelegation, uint32(want), uint32(d.Capabilities))
	case !d.Expires.IsZero() && now.After(d.Expires):
		return fmt.Errorf("%w: expired %s", ErrDelegation, d.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

func unixOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func timeOrZero(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}
