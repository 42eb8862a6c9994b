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

// DomainHeader is the signing domain of segment headers.
const DomainHeader identity.Domain = "gotong segment header v1"

// Bounds of a header, enforced when one is made and when one is parsed.
const (
	MaxHeaderBytes = 3072            // with the signature
	MaxShardBytes  = MaxSegmentBytes // of one shard; reached when K is 1
)

// Layout of a header; docs/format.md is its description. Everything up to and
// with the grant is the fixed prefix, which every later version keeps.
const (
	headerVersion = 1
	headerFixed   = 144 // bytes before the roots

	offHeaderVersion  = 4
	offHeaderLength   = 6
	offHeaderK        = 8
	offHeaderN        = 9
	offHeaderGrant    = 10
	offHeaderShard    = 12
	offHeaderBytes    = 16
	offHeaderKind     = 20
	offHeaderReserved = 21
	offHeaderCreated  = 24
	offHeaderFloor    = 32
	offHeaderExpires  = 40
	offHeaderVault    = 48
	offHeaderOwner    = 80
	offHeaderSigner   = 112
)

var headerMagic = [4]byte{'g', 't', 's', 'g'}

// GrantKind says what Header.Grant is. It is encoded one higher.
type GrantKind uint8

// The kinds of grants.
const (
	// GrantDelegation: a delegation of the owner to the signer.
	GrantDelegation GrantKind = iota
	// GrantJob: a job grant, under which any member may sign. The vault is the
	// job's id, Expires is set and not after the grant's, and Floor is 0: what
	// was made for a job may go at any time from then on.
	GrantJob
)

// Header describes a segment. It is immutable, travels with every shard, and
// its hash is the SegmentID.
type Header struct {
	Vault      VaultID
	Owner      grid.OwnerID
	Kind       GrantKind // of Grant
	Grant      []byte    // encoded identity.Signed, by which the signer may write for Owner
	Redundancy Redundancy
	Bytes      int        // length of the segment before it was padded with zeros to K×ShardBytes
	ShardBytes int        // length of each shard
	Roots      [][32]byte // BLAKE3 of each of the N shards
	Created    time.Time  // second resolution
	Floor      time.Duration
	Expires    time.Time // zero: never
}

// Validate returns nil when the numbers of h fit together and its bounds hold.
func (h Header) Validate() error {
	if err := h.Redundancy.Validate(); err != nil {
		return err
	}
	switch {
	case len(h.Roots) != h.Redundancy.N:
		return fmt.Errorf("%d shard roots for n = %d", len(h.Roots), h.Redundancy.N)
	case h.Bytes < 1 || h.Bytes > MaxSegmentBytes:
		return fmt.Errorf("segment of %d bytes, want 1 to %d", h.Bytes, MaxSegmentBytes)
	case h.ShardBytes < 1 || h.ShardBytes > MaxShardBytes || h.ShardBytes*h.Redundancy.K < h.Bytes:
		return fmt.Errorf("shards of %d bytes do not hold %d bytes in %d", h.ShardBytes, h.Bytes, h.Redundancy.K)
	case len(h.Grant) > MaxGrantBytes:
		return fmt.Errorf("grant of %d bytes, at most %d", len(h.Grant), MaxGrantBytes)
	case h.Floor < 0 || h.Floor > maxFloor:
		return fmt.Errorf("retention floor %s", h.Floor)
	}
	return nil
}

// Expired reports whether the segment is of no use any more at now.
func (h Header) Expired(now time.Time) bool { return !h.Expires.IsZero() && !now.Before(h.Expires) }

// SignedHeader is a header whose id and signature hold. Only SignHeader and
// the Parse functions make valid ones, and one of ParseKnownHeader allows
// nothing: see Allows.
type SignedHeader struct {
	Header
	ID         SegmentID
	Version    int // of the format
	Signer     grid.PeerID
	SignerKey  ed25519.PublicKey
	Delegation identity.Delegation // what Grant says; zero after ParseKnownHeader, and for GrantJob
	JobGrant   SignedJobGrant      // the same for GrantJob
	Raw        []byte              // the exact bytes with the signature; do not change
}

// IsZero reports whether s was never filled in.
func (s SignedHeader) IsZero() bool { return s.ID.IsZero() }

// Allows returns nil when the grant lets the signer write in grid g at now,
// and the segment has not expired, else an error that is ErrDenied.
func (s SignedHeader) Allows(g grid.GridID, now time.Time) error {
	if s.Expired(now) {
		return fmt.Errorf("%w: the segment expired %s", ErrDenied, s.Expires.UTC().Format(time.RFC3339))
	}
	if s.Kind == GrantJob {
		return s.JobGrant.Allows(g, now)
	}
	return allows(s.Delegation, s.Signer, grid.CapWrite, g, now)
}

// SignHeader encodes h, names the segment and signs for it with the node key.
// It refuses a header that ParseSignedHeader would refuse.
func SignHeader(node ed25519.PrivateKey, h Header) (SignedHeader, error) {
	if err := h.Validate(); err != nil {
		return SignedHeader{}, fmt.Errorf("segment header: %w", err)
	}
	signer := node.Public().(ed25519.PublicKey)
	signed := identity.Sign(node, DomainHeader, encodeHeader(h, signer))
	return ParseSignedHeader(append(signed.Body, signed.Signature...))
}

// ParseSignedHeader reads a header with its signature and verifies both the
// signature and the grant. Errors are ErrCorrupt when the bytes are no header,
// ErrDenied when it was not signed by one who may. The result refers to raw.
func ParseSignedHeader(raw []byte) (SignedHeader, error) {
	s, err := decodeHeader(raw)
	if err != nil {
		return SignedHeader{}, err
	}
	if err := s.verify(); err != nil {
		return SignedHeader{}, fmt.Errorf("segment header: %w", err)
	}
	return s, nil
}

// ParseKnownHeader reads the header of a segment whose id is known from a
// trusted place, such as a file name that this store chose after it verified
// the header, or an index. The id vouches for every byte, so the signature,
// which only authorises quota, is not verified again: this is 30 times faster.
// Errors are ErrCorrupt. The result refers to raw.
func ParseKnownHeader(raw []byte, id SegmentID) (SignedHeader, error) {
	s, err := decodeHeader(raw)
	if err != nil {
		return SignedHeader{}, err
	}
	if s.ID != id {
		return SignedHeader{}, fmt.Errorf("%w: header is of segment %s, not %s", ErrCorrupt, s.ID.Short(), id.Short())
	}
	return s, nil
}

func (s *SignedHeader) verify() error {
	body, signature := splitSignature(s.Raw)
	signed := identity.Signed{Key: s.SignerKey, Signature: signature, Body: body}
	if err := signed.Verify(DomainHeader); err != nil {
		return fmt.Errorf("%w: %w", ErrDenied, err)
	}
	var err error
	switch s.Kind {
	case GrantDelegation:
		s.Delegation, err = openGrant(s.Grant, s.Owner, s.Signer, grid.CapWrite)
	case GrantJob:
		s.JobGrant, err = s.openJob()
	default:
		err = fmt.Errorf("%w: grant of unknown kind %d", ErrDenied, body[offHeaderKind])
	}
	return err
}

// openJob verifies the job grant and that the header keeps to it.
func (s *SignedHeader) openJob() (SignedJobGrant, error) {
	g, err := OpenJobGrant(s.Grant)
	if err != nil {
		return g, err
	}
	switch {
	case g.Owner != s.Owner || VaultID(g.Job) != s.Vault:
		return g, fmt.Errorf("%w: grant is for job %s of owner %s", ErrDenied, VaultID(g.Job).Short(), g.Owner.Short())
	case s.Expires.IsZero() || s.Expires.After(g.Expires):
		return g, fmt.Errorf("%w: segment of a job that outlives its grant", ErrDenied)
	case s.Floor != 0:
		return g, fmt.Errorf("%w: segment of a job with a floor of %s", ErrDenied, s.Floor)
	}
	return g, nil
}

func splitSignature(raw []byte) (body, signature []byte) {
	at := len(raw) - ed25519.SignatureSize
	return raw[:at:at], raw[at:]
}

func encodeHeader(h Header, signer ed25519.PublicKey) []byte {
	length := headerFixed + 32*len(h.Roots) + len(h.Grant)
	b := make([]byte, 0, length+ed25519.SignatureSize)
	b = append(b, headerMagic[:]...)
	b = binary.BigEndian.AppendUint16(b, headerVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = append(b, byte(h.Redundancy.K), byte(h.Redundancy.N))
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.Grant)))
	b = binary.BigEndian.AppendUint32(b, uint32(h.ShardBytes))
	b = binary.BigEndian.AppendUint32(b, uint32(h.Bytes))
	b = append(b, byte(h.Kind)+1, 0, 0, 0)
	b = appendUnix(b, h.Created)
	b = appendSeconds(b, h.Floor)
	b = appendUnix(b, h.Expires)
	b = append(b, h.Vault[:]...)
	b = append(b, h.Owner[:]...)
	b = append(b, signer...)
	for _, root := range h.Roots {
		b = append(b, root[:]...)
	}
	return append(b, h.Grant...)
}

// decodeHeader parses without verifying the signature. Of versions that it
// does not know it reads the fixed prefix and keeps the rest unread.
func decodeHeader(raw []byte) (SignedHeader, error) {
	corrupt := func(format string, args ...any) (SignedHeader, error) {
		return SignedHeader{}, fmt.Errorf("%w: segment header: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
	if len(raw) < headerFixed+ed25519.SignatureSize || len(raw) > MaxHeaderBytes || [4]byte(raw) != headerMagic {
		return corrupt("%d bytes are none", len(raw))
	}
	body, _ := splitSignature(raw)
	version := int(binary.BigEndian.Uint16(body[offHeaderVersion:]))
	n, grantBytes := int(body[offHeaderN]), int(binary.BigEndian.Uint16(body[offHeaderGrant:]))
	end := headerFixed + 32*n + grantBytes
	switch {
	case version == 0:
		return corrupt("version 0")
	case int(binary.BigEndian.Uint16(body[offHeaderLength:])) != len(body) || end > len(body):
		return corrupt("%d bytes do not match the lengths inside", len(raw))
	case version == headerVersion && (end != len(body) || !allZero(body[offHeaderReserved:offHeaderCreated])):
		return corrupt("bytes that version %d does not have", version)
	}
	floor, err := readSeconds(body[offHeaderFloor:])
	if err != nil {
		return SignedHeader{}, fmt.Errorf("segment header: %w", err)
	}
	signer := ed25519.PublicKey(body[offHeaderSigner:headerFixed:headerFixed])
	s := SignedHeader{
		Header: Header{
			Vault:      VaultID(body[offHeaderVault:]),
			Owner:      grid.OwnerID(body[offHeaderOwner:]),
			Kind:       GrantKind(body[offHeaderKind] - 1),
			Grant:      body[end-grantBytes : end : end],
			Redundancy: Redundancy{K: int(body[offHeaderK]), N: n},
			Bytes:      int(binary.BigEndian.Uint32(body[offHeaderBytes:])),
			ShardBytes: int(binary.BigEndian.Uint32(body[offHeaderShard:])),
			Roots:      readRoots(body[headerFixed:], n),
			Created:    readUnix(body[offHeaderCreated:]),
			Floor:      floor,
			Expires:    readUnix(body[offHeaderExpires:]),
		},
		ID: hash(body), Version: version,
		Signer: grid.PeerIDOf(signer), SignerKey: signer, Raw: slices.Clip(raw),
	}
	if err := s.Header.Validate(); err != nil {
		return corrupt("%v", err)
	}
	return s, nil
}

func readRoots(b []byte, n int) [][32]byte {
	roots := make([][32]byte, n)
	for i := range roots {
		roots[i] = [32]byte(b[32*i:])
	}
	return roots
}
