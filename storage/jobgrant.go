package storage

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
)

// DomainJob is the signing domain of job grants.
const DomainJob identity.Domain = "gotong job v1"

// Bounds of a job grant.
const (
	// MaxJobLife is how long a job may be granted for.
	MaxJobLife = 366 * 24 * time.Hour
	// MaxJobBytes bounds JobGrant.OutputBytes.
	MaxJobBytes = 1 << 50
)

// jobGrantFixed is the length of the body before the delegation.
const jobGrantFixed = 32 + 32 + 8 + 8 + 8

// JobGrant is the word of an owner's device that members may work on a job, and
// that any of them may store what belongs to it at the owner's cost. It travels
// with the job.
type JobGrant struct {
	Job     [32]byte // the id of the job, and the VaultID of its segments
	Owner   grid.OwnerID
	Created time.Time // second resolution
	Expires time.Time // required, after Created, at most MaxJobLife later
	// OutputBytes bounds what may be stored for the job: the bytes of all its
	// segments, padded to whole shards, before redundancy. 0: nothing.
	OutputBytes int64
	Delegation  []byte // encoded identity.Signed delegation of Owner to the signer, with grid.CapWrite
}

// Validate returns nil when the bounds of g hold.
func (g JobGrant) Validate() error {
	switch {
	case g.Job == [32]byte{}:
		return fmt.Errorf("no job id")
	case g.OutputBytes < 0 || g.OutputBytes > MaxJobBytes:
		return fmt.Errorf("%d bytes to store", g.OutputBytes)
	case g.Created.IsZero() || !g.Expires.After(g.Created) || g.Expires.Sub(g.Created) > MaxJobLife:
		return fmt.Errorf("valid from %s to %s", g.Created.UTC().Format(time.RFC3339), g.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// SignedJobGrant is a job grant whose signature and delegation hold. Only
// OpenJobGrant makes valid ones.
type SignedJobGrant struct {
	JobGrant
	Signer grid.PeerID
	Grid   grid.GridID // that the delegation is for
	Raw    []byte      // the exact bytes; do not change

	delegation identity.Delegation
}

// IsZero reports whether s was never filled in.
func (s SignedJobGrant) IsZero() bool { return len(s.Raw) == 0 }

// Allows returns nil when the grant holds in grid g at now, else an error that
// is ErrDenied. Whether the owner is a member is for the caller to judge.
func (s SignedJobGrant) Allows(g grid.GridID, now time.Time) error {
	if !now.Before(s.Expires) {
		return fmt.Errorf("%w: the grant of the job expired %s", ErrDenied, s.Expires.UTC().Format(time.RFC3339))
	}
	return allows(s.delegation, s.Signer, grid.CapWrite, g, now)
}

// SignJobGrant encodes g and signs it with the node key of the device that
// g.Delegation names. It refuses what OpenJobGrant would refuse.
func SignJobGrant(node ed25519.PrivateKey, g JobGrant) ([]byte, error) {
	b := make([]byte, 0, jobGrantFixed+len(g.Delegation))
	b = append(b, g.Job[:]...)
	b = append(b, g.Owner[:]...)
	b = appendUnix(b, g.Created)
	b = appendUnix(b, g.Expires)
	b = binary.BigEndian.AppendUint64(b, uint64(g.OutputBytes))
	b = append(b, g.Delegation...)
	raw := identity.Sign(node, DomainJob, b).Encode()
	if _, err := OpenJobGrant(raw); err != nil {
		return nil, err
	}
	return raw, nil
}

// OpenJobGrant reads a job grant and verifies its signature and its delegation.
// Errors are ErrDenied. The result refers to raw.
func OpenJobGrant(raw []byte) (SignedJobGrant, error) {
	s, err := openJobGrant(raw)
	if err != nil {
		return SignedJobGrant{}, fmt.Errorf("%w: grant of a job: %w", ErrDenied, err)
	}
	return s, nil
}

func openJobGrant(raw []byte) (SignedJobGrant, error) {
	if len(raw) > MaxGrantBytes {
		return SignedJobGrant{}, fmt.Errorf("%d bytes", len(raw))
	}
	signed, err := identity.ParseSigned(raw)
	if err != nil {
		return SignedJobGrant{}, err
	}
	if err := signed.Verify(DomainJob); err != nil {
		return SignedJobGrant{}, err
	}
	b := signed.Body
	if len(b) < jobGrantFixed {
		return SignedJobGrant{}, fmt.Errorf("body of %d bytes", len(b))
	}
	s := SignedJobGrant{
		JobGrant: JobGrant{
			Job:         [32]byte(b),
			Owner:       grid.OwnerID(b[32:]),
			Created:     readUnix(b[64:]),
			Expires:     readUnix(b[72:]),
			OutputBytes: int64(binary.BigEndian.Uint64(b[80:])),
			Delegation:  b[jobGrantFixed:len(b):len(b)],
		},
		Signer: grid.PeerIDOf(signed.Key), Raw: slices.Clip(raw),
	}
	if err := s.Validate(); err != nil {
		return SignedJobGrant{}, err
	}
	if s.delegation, err = openGrant(s.Delegation, s.Owner, s.Signer, grid.CapWrite); err != nil {
		return SignedJobGrant{}, err
	}
	s.Grid = s.delegation.Grid
	return s, nil
}
