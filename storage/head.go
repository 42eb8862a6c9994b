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

// DomainHead is the signing domain of heads.
const DomainHead identity.Domain = "gotong head v1"

// Bounds of heads.
const (
	MaxHeadBytes    = 64 << 10 // one head, with its signature
	MaxPutHeads     = 256      // links in one PutHeads
	MaxPutHeadBytes = 1 << 20  // bytes in one PutHeads, all links together
)

const (
	headVersion = 1
	headFixed   = 168 // bytes before the grant

	offHeadVersion = 4
	offHeadGrant   = 6
	offHeadSealed  = 8
	offHeadEpoch   = 12
	offHeadSeq     = 16
	offHeadCreated = 24
	offHeadFloor   = 32
	offHeadVault   = 40
	offHeadOwner   = 72
	offHeadSigner  = 104
	offHeadPrev    = 136
)

var headMagic = [4]byte{'g', 't', 'h', 'd'}

// HeadID names a head: BLAKE3 of its bytes without the signature.
type HeadID [32]byte

// IsZero reports whether id names nothing; the Prev of the first head does.
func (id HeadID) IsZero() bool { return id == HeadID{} }

// Head says where the newest state of a vault is. Heads of one vault are
// numbered from 1 and chained by hash.
type Head struct {
	Vault   VaultID
	Owner   grid.OwnerID
	Seq     uint64 // 1 is the first
	Prev    HeadID // head Seq-1; zero for the first
	Epoch   uint32 // of the delegation in Grant; filled in by SignHead
	Created time.Time
	Floor   time.Duration // how long holders keep this link after a newer one came
	Grant   []byte        // encoded identity.Signed delegation of Owner to the signer
	Sealed  []byte        // opaque to holders; see storage/vault
}

// SignedHead is a head whose signature and grant hold. Only SignHead and
// ParseHead make valid ones.
type SignedHead struct {
	Head
	ID         HeadID
	Signer     grid.PeerID
	Delegation identity.Delegation
	Raw        []byte // the exact bytes with the signature; do not change
}

// IsZero reports whether s was never filled in.
func (s SignedHead) IsZero() bool { return s.ID.IsZero() }

// Allows returns nil when the grant lets the signer write in grid g at now,
// else an error that is ErrDenied.
func (s SignedHead) Allows(g grid.GridID, now time.Time) error {
	return allows(s.Delegation, s.Signer, grid.CapWrite, g, now)
}

// Follows reports whether s is the link right after prev.
func (s SignedHead) Follows(prev SignedHead) bool {
	return s.Vault == prev.Vault && s.Owner == prev.Owner && s.Seq == prev.Seq+1 &&
		s.Prev == prev.ID && s.Epoch >= prev.Epoch
}

// Newer reports whether s stands above other: a higher epoch, else, in the
// same epoch, a higher number.
func (s SignedHead) Newer(other SignedHead) bool {
	if s.Epoch != other.Epoch {
		return s.Epoch > other.Epoch
	}
	return s.Seq > other.Seq
}

// SignHead encodes h and signs it with the node key. Epoch is taken from the
// grant. It refuses a head that ParseHead would refuse.
func SignHead(node ed25519.PrivateKey, h Head) (SignedHead, error) {
	signer := node.Public().(ed25519.PublicKey)
	d, err := openGrant(h.Grant, h.Owner, grid.PeerIDOf(signer), grid.CapWrite)
	if err != nil {
		return SignedHead{}, fmt.Errorf("head: %w", err)
	}
	h.Epoch = d.Epoch
	if h.Floor < 0 || len(h.Sealed) > MaxHeadBytes || len(h.Grant) > MaxGrantBytes {
		return SignedHead{}, fmt.Errorf("head: floor %s, %d sealed bytes", h.Floor, len(h.Sealed))
	}
	signed := identity.Sign(node, DomainHead, encodeHead(h, signer))
	return ParseHead(append(signed.Body, signed.Signature...))
}

// ParseHead reads a head and verifies its signature and its grant. Errors are
// ErrCorrupt when the bytes are no head, ErrDenied when it was not signed by
// one who may. The result refers to raw.
func ParseHead(raw []byte) (SignedHead, error) {
	s, key, err := decodeHead(raw)
	if err != nil {
		return SignedHead{}, fmt.Errorf("%w: head: %w", ErrCorrupt, err)
	}
	body, signature := splitSignature(raw)
	if err := (identity.Signed{Key: key, Signature: signature, Body: body}).Verify(DomainHead); err != nil {
		return SignedHead{}, fmt.Errorf("%w: head: %w", ErrDenied, err)
	}
	if s.Delegation, err = openGrant(s.Grant, s.Owner, s.Signer, grid.CapWrite); err != nil {
		return SignedHead{}, fmt.Errorf("head: %w", err)
	}
	if s.Delegation.Epoch != s.Epoch {
		return SignedHead{}, fmt.Errorf("%w: head: epoch %d under a grant of epoch %d", ErrDenied, s.Epoch, s.Delegation.Epoch)
	}
	return s, nil
}

// ParseKnownHead reads a head whose bytes are trusted already, because this
// store verified them before it wrote them. Errors are ErrCorrupt.
func ParseKnownHead(raw []byte) (SignedHead, error) {
	s, _, err := decodeHead(raw)
	if err != nil {
		return SignedHead{}, fmt.Errorf("%w: head: %w", ErrCorrupt, err)
	}
	return s, nil
}

func encodeHead(h Head, signer ed25519.PublicKey) []byte {
	b := make([]byte, 0, headFixed+len(h.Grant)+len(h.Sealed)+ed25519.SignatureSize)
	b = append(b, headMagic[:]...)
	b = binary.BigEndian.AppendUint16(b, headVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.Grant)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(h.Sealed)))
	b = binary.BigEndian.AppendUint32(b, h.Epoch)
	b = binary.BigEndian.AppendUint64(b, h.Seq)
	b = appendUnix(b, h.Created)
	b = appendSeconds(b, h.Floor)
	b = append(b, h.Vault[:]...)
	b = append(b, h.Owner[:]...)
	b = append(b, signer...)
	b = append(b, h.Prev[:]...)
	b = append(b, h.Grant...)
	return append(b, h.Sealed...)
}

func decodeHead(raw []byte) (SignedHead, ed25519.PublicKey, error) {
	none := func(format string, args ...any) (SignedHead, ed25519.PublicKey, error) {
		return SignedHead{}, nil, fmt.Errorf(format, args...)
	}
	if len(raw) < headFixed+ed25519.SignatureSize || len(raw) > MaxHeadBytes || [4]byte(raw) != headMagic {
		return none("%d bytes are none", len(raw))
	}
	body, _ := splitSignature(raw)
	if version := binary.BigEndian.Uint16(body[offHeadVersion:]); version != headVersion {
		return none("version %d is not known", version)
	}
	grantEnd := headFixed + int(binary.BigEndian.Uint16(body[offHeadGrant:]))
	if uint64(grantEnd)+uint64(binary.BigEndian.Uint32(body[offHeadSealed:])) != uint64(len(body)) {
		return none("%d bytes do not match the lengths inside", len(raw))
	}
	floor, err := readSeconds(body[offHeadFloor:])
	if err != nil {
		return none("%v", err)
	}
	key := ed25519.PublicKey(body[offHeadSigner:offHeadPrev:offHeadPrev])
	s := SignedHead{
		Head: Head{
			Vault:   VaultID(body[offHeadVault:]),
			Owner:   grid.OwnerID(body[offHeadOwner:]),
			Seq:     binary.BigEndian.Uint64(body[offHeadSeq:]),
			Prev:    HeadID(body[offHeadPrev:]),
			Epoch:   binary.BigEndian.Uint32(body[offHeadEpoch:]),
			Created: readUnix(body[offHeadCreated:]),
			Floor:   floor,
			Grant:   body[headFixed:grantEnd:grantEnd],
			Sealed:  body[grantEnd:],
		},
		ID: hash(body), Signer: grid.PeerIDOf(key), Raw: slices.Clip(raw),
	}
	if (s.Seq == 1) != s.Prev.IsZero() || s.Seq == 0 {
		return none("number %d with previous head %x", s.Seq, s.Prev[:4])
	}
	return s, key, nil
}
