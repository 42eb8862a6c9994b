package invite

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/roster"
	invitev1 "gotong/proto/invite/v1"
)

// DomainOwnerProof is the signing domain of an owner's proof in Find.
const DomainOwnerProof identity.Domain = "gotong owner proof v1"

// findContext separates the keying material of Find from that of invites, whose
// context is an id of 16 bytes.
var findContext = []byte("owner")

// Find asks a member, on a join connection, in which grid it knows the owner
// and up to which epoch. The answer is a delegation that the owner signed once,
// so nobody can invent it; another member may know one of a higher epoch. The
// caller closes conn. Errors: grid.ErrNotMember when the member does not know
// the owner, grid.ErrRemoved.
func Find(ctx context.Context, conn JoinConn, owner ed25519.PrivateKey) (identity.Delegation, error) {
	return find(ctx, conn, owner, false)
}

// Look is Find for an owner who may have been removed, and who has to see by
// whom: it returns the other side's statements as well. The caller closes conn.
func Look(ctx context.Context, conn JoinConn, owner ed25519.PrivateKey) (identity.Delegation, JoinResult, error) {
	d, err := find(ctx, conn, owner, true)
	if err != nil {
		return d, JoinResult{}, err
	}
	defer withCancel(ctx, conn)()
	result, err := receiveAny(ctx, conn, d.Grid)
	return d, result, err
}

func find(ctx context.Context, conn JoinConn, owner ed25519.PrivateKey, wantRoster bool) (identity.Delegation, error) {
	material, err := ownerMaterial(conn)
	if err != nil {
		return identity.Delegation{}, err
	}
	proof := identity.Sign(owner, DomainOwnerProof, material)
	defer withCancel(ctx, conn)()
	response, err := request(ctx, conn, &invitev1.Request{Ask: &invitev1.Request_Find{Find: &invitev1.Find{Proof: proof.Encode(), WantRoster: wantRoster}}})
	if err != nil {
		return identity.Delegation{}, fmt.Errorf("find the owner: %w", err)
	}
	signed, err := identity.ParseSigned(response.GetDelegation())
	if err != nil {
		return identity.Delegation{}, fmt.Errorf("find the owner: %w: %w", ErrAnswer, err)
	}
	d, by, err := identity.OpenDelegation(signed)
	if err == nil && by != grid.OwnerIDOf(owner.Public().(ed25519.PublicKey)) {
		err = fmt.Errorf("a delegation by another owner")
	}
	if err != nil {
		return identity.Delegation{}, fmt.Errorf("find the owner: %w: %w", ErrAnswer, err)
	}
	return d, nil
}

func ownerMaterial(conn JoinConn) ([]byte, error) {
	material, err := conn.ExportKeyingMaterial(exporterLabel, findContext, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("keying material of the session: %w", err)
	}
	return material, nil
}

// find answers an owner who proves to be one. Who was removed is told what the
// statements are, to take back what was signed in their name, but no addresses.
func (s *Server) find(conn JoinConn, m *invitev1.Find) (*invitev1.Response, error) {
	proof, err := identity.ParseSigned(m.GetProof())
	if err == nil {
		err = proof.Verify(DomainOwnerProof)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: proof: %w", ErrBadRequest, err)
	}
	material, err := ownerMaterial(conn)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(proof.Body, material) {
		return nil, fmt.Errorf("%w: proof of another session", ErrBadRequest)
	}
	view, owner := s.cfg.Roster.View(), grid.OwnerIDOf(proof.Key)
	status := view.OwnerStatus(owner)
	if status == roster.StatusRemoved && !m.GetWantRoster() {
		return nil, grid.ErrRemoved
	}
	if status == roster.StatusUnknown {
		return nil, grid.ErrNotMember
	}
	newest, ok := view.NewestDelegation(owner)
	if !ok {
		return nil, grid.ErrNotMember
	}
	return &invitev1.Response{Status: invitev1.Status_STATUS_OK, Delegation: newest.Encode()}, nil
}
