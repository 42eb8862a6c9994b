package storage

import (
	"fmt"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
)

// MaxGrantBytes bounds the encoded grant in a header or a head. A delegation
// takes 184 bytes; the rest is room for later kinds.
const MaxGrantBytes = 1024

// openGrant verifies that grant is a delegation by which owner gives signer the
// wanted capability. Grid and expiry are for the caller to judge: see Allows.
func openGrant(grant []byte, owner grid.OwnerID, signer grid.PeerID, want grid.Capability) (identity.Delegation, error) {
	signed, err := identity.ParseSigned(grant)
	if err != nil {
		return identity.Delegation{}, fmt.Errorf("%w: grant: %w", ErrDenied, err)
	}
	d, by, err := identity.OpenDelegation(signed)
	switch {
	case err != nil:
		return identity.Delegation{}, fmt.Errorf("%w: grant: %w", ErrDenied, err)
	case by != owner:
		return identity.Delegation{}, fmt.Errorf("%w: grant is by owner %s, not %s", ErrDenied, by.Short(), owner.Short())
	case d.Peer != signer:
		return identity.Delegation{}, fmt.Errorf("%w: grant is for peer %s, not %s", ErrDenied, d.Peer.Short(), signer.Short())
	case !d.Capabilities.Has(want):
		return identity.Delegation{}, fmt.Errorf("%w: grant gives peer %s capabilities %#x, wanted %#x", ErrDenied, signer.Short(), uint32(d.Capabilities), uint32(want))
	}
	return d, nil
}

// allows judges the parts of a grant that depend on where and when it is shown.
func allows(d identity.Delegation, signer grid.PeerID, want grid.Capability, g grid.GridID, now time.Time) error {
	if err := d.Allows(g, signer, want, now); err != nil {
		return fmt.Errorf("%w: %w", ErrDenied, err)
	}
	return nil
}
