package scheduler

import (
	"crypto/ed25519"
	"fmt"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/grid/identity"
)

// DomainResults is the signing domain of results.
const DomainResults identity.Domain = "gotong task results v1"

// MaxSignedResults bounds how many results one signature covers.
const MaxSignedResults = 256

const hashBytes = 32

// Proof is a worker's signed word for one result. One signature covers a batch
// (a signature costs more than a short task): its body is the concatenated
// BLAKE3 hashes of the encoded results. The batch's body is shared by the
// proofs of the batch.
type Proof struct {
	Signed   identity.Signed
	Position int    // of this result in the batch
	Raw      []byte // the encoded result, as it was sent
}

// Verify returns nil when the peer signed exactly Raw.
func (p Proof) Verify(peer grid.PeerID) error {
	if grid.PeerIDOf(p.Signed.Key) != peer {
		return fmt.Errorf("result signed by another peer than %s: %w", peer.Short(), identity.ErrBadSignature)
	}
	if err := p.Signed.Verify(DomainResults); err != nil {
		return err
	}
	from, hash := p.Position*hashBytes, blake3.Sum256(p.Raw)
	if p.Position < 0 || from+hashBytes > len(p.Signed.Body) || [hashBytes]byte(p.Signed.Body[from:]) != hash {
		return fmt.Errorf("result is not the one that was signed: %w", identity.ErrBadSignature)
	}
	return nil
}

// SignResults signs a batch of at most MaxSignedResults encoded results.
func SignResults(key ed25519.PrivateKey, raw [][]byte) identity.Signed {
	return identity.Sign(key, DomainResults, hashes(raw))
}

// OpenResults verifies a batch and returns a proof for each result. The proofs
// keep the slices.
func OpenResults(key ed25519.PublicKey, signature []byte, raw [][]byte) ([]Proof, error) {
	if len(raw) > MaxSignedResults {
		return nil, fmt.Errorf("%d results under one signature, at most %d", len(raw), MaxSignedResults)
	}
	signed := identity.Signed{Key: key, Signature: signature, Body: hashes(raw)}
	if err := signed.Verify(DomainResults); err != nil {
		return nil, err
	}
	proofs := make([]Proof, len(raw))
	for i := range raw {
		proofs[i] = Proof{Signed: signed, Position: i, Raw: raw[i]}
	}
	return proofs, nil
}

func hashes(raw [][]byte) []byte {
	body := make([]byte, 0, len(raw)*hashBytes)
	for _, r := range raw {
		sum := blake3.Sum256(r)
		body = append(body, sum[:]...)
	}
	return body
}
