package storage

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
)

// DomainDeletion is the signing domain of deletions.
const DomainDeletion identity.Domain = "gotong deletion v1"

// Bounds of deletions.
const (
	MaxDeletionSegments = 1024                                                                           // segments that one names
	MaxDeletionBytes    = deletionFixed + MaxGrantBytes + 32*MaxDeletionSegments + ed25519.SignatureSize // one, with its signature
	MaxPutDeletions     = 256                                                                            // deletions in one PutDeletions
	MaxDeletionPage     = 1 << 20                                                                        // bytes in one PutDeletions
	MaxSameNumber       = 8                                                                              // deletions of one vault under one number
)

const (
	deletionVersion = 1
	deletionFixed   = 128 // bytes before the grant

	offDeletionVersion  = 4
	offDeletionGrant    = 6
	offDeletionCount    = 8
	offDeletionReserved = 12
	offDeletionNumber   = 16
	offDeletionCreated  = 24
	offDeletionVault    = 32
	offDeletionOwner    = 64
	offDeletionSigner   = 96
)

var deletionMagic = [4]byte{'g', 't', 'd', 'l'}

// Deletion names segments of one vault that their owner no longer needs.
// Holders move what they have of them to their trash, and take nothing of them
// any more. It concerns only segments whose header names the same vault and
// owner. All valid deletions of a vault count together; their numbers only
// order them, so that a holder can ask for those that it missed.
type Deletion struct {
	Vault    VaultID
	Owner    grid.OwnerID
	Number   uint64      // from 1
	Created  time.Time   // second resolution
	Grant    []byte      // encoded identity.Signed delegation of Owner to the signer, with the capability to expire
	Segments []SegmentID // 1 to MaxDeletionSegments, rising
}

// Names reports whether d deletes the segment with that id.
func (d Deletion) Names(id SegmentID) bool {
	_, found := slices.BinarySearchFunc(d.Segments, id, compareSegments)
	return found
}

func compareSegments(a, b SegmentID) int { return bytes.Compare(a[:], b[:]) }

// SignedDeletion is a deletion whose signature and grant hold. Only
// SignDeletion and the Parse functions make valid ones, and one of
// ParseKnownDeletion allows nothing: see Allows.
type SignedDeletion struct {
	Deletion
	ID         [32]byte // BLAKE3 of the bytes without the signature
	Signer     grid.PeerID
	SignerKey  ed25519.PublicKey
	Delegation identity.Delegation // what Grant says; zero after ParseKnownDeletion
	Raw        []byte              // the exact bytes with the signature; do not change
}

// Allows returns nil when the grant lets the signer delete in grid g at now,
// else an error that is ErrDenied.
func (s SignedDeletion) Allows(g grid.GridID, now time.Time) error {
	return allows(s.Delegation, s.Signer, grid.CapExpire, g, now)
}

// SignDeletion encodes d and signs it with the node key. It brings the segments
// in order, each once, and refuses a deletion that ParseDeletion would refuse.
func SignDeletion(node ed25519.PrivateKey, d Deletion) (SignedDeletion, error) {
	d.Segments = slices.Clone(d.Segments)
	slices.SortFunc(d.Segments, compareSegments)
	d.Segments = slices.Compact(d.Segments)
	if len(d.Grant) > MaxGrantBytes || len(d.Segments) > MaxDeletionSegments {
		return SignedDeletion{}, fmt.Errorf("deletion: grant of %d bytes, %d segments", len(d.Grant), len(d.Segments))
	}
	signer := node.Public().(ed25519.PublicKey)
	signed := identity.Sign(node, DomainDeletion, encodeDeletion(d, signer))
	return ParseDeletion(append(signed.Body, signed.Signature...))
}

// ParseDeletion reads a deletion and verifies its signature and its grant.
// Errors are ErrCorrupt when the bytes are no deletion, ErrDenied when it was
// not signed by one who may delete. The result refers to raw.
func ParseDeletion(raw []byte) (SignedDeletion, error) {
	s, err := decodeDeletion(raw)
	if err != nil {
		return SignedDeletion{}, fmt.Errorf("%w: deletion: %w", ErrCorrupt, err)
	}
	body, signature := splitSignature(raw)
	if err := (identity.Signed{Key: s.SignerKey, Signature: signature, Body: body}).Verify(DomainDeletion); err != nil {
		return SignedDeletion{}, fmt.Errorf("%w: deletion: %w", ErrDenied, err)
	}
	if s.Delegation, err = openGrant(s.Grant, s.Owner, s.Signer, grid.CapExpire); err != nil {
		return SignedDeletion{}, fmt.Errorf("deletion: %w", err)
	}
	return s, nil
}

// ParseKnownDeletion reads a deletion whose bytes are trusted already, because
// this store verified them before it wrote them. Errors are ErrCorrupt.
func ParseKnownDeletion(raw []byte) (SignedDeletion, error) {
	s, err := decodeDeletion(raw)
	if err != nil {
		return SignedDeletion{}, fmt.Errorf("%w: deletion: %w", ErrCorrupt, err)
	}
	return s, nil
}

// ParseDeletions verifies raw deletions, of any vaults, within the bounds of
// PutDeletions.
func ParseDeletions(raw [][]byte) ([]SignedDeletion, error) {
	if len(raw) == 0 || len(raw) > MaxPutDeletions {
		return nil, fmt.Errorf("%w: %d deletions at once, want 1 to %d", ErrCorrupt, len(raw), MaxPutDeletions)
	}
	total := 0
	deletions := make([]SignedDeletion, len(raw))
	for i, b := range raw {
		if total += len(b); total > MaxDeletionPage {
			return nil, fmt.Errorf("%w: more than %d bytes of deletions at once", ErrCorrupt, MaxDeletionPage)
		}
		d, err := ParseDeletion(b)
		if err != nil {
			return nil, err
		}
		deletions[i] = d
	}
	return deletions, nil
}

func encodeDeletion(d Deletion, signer ed25519.PublicKey) []byte {
	b := make([]byte, 0, deletionFixed+len(d.Grant)+32*len(d.Segments)+ed25519.SignatureSize)
	b = append(b, deletionMagic[:]...)
	b = binary.BigEndian.AppendUint16(b, deletionVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(len(d.Grant)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(d.Segments)))
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, d.Number)
	b = appendUnix(b, d.Created)
	b = append(b, d.Vault[:]...)
	b = append(b, d.Owner[:]...)
	b = append(b, signer...)
	b = append(b, d.Grant...)
	for _, id := range d.Segments {
		b = append(b, id[:]...)
	}
	return b
}

func decodeDeletion(raw []byte) (SignedDeletion, error) {
	none := func(format string, args ...any) (SignedDeletion, error) {
		return SignedDeletion{}, fmt.Errorf(format, args...)
	}
	if len(raw) < deletionFixed+ed25519.SignatureSize || len(raw) > MaxDeletionBytes || [4]byte(raw) != deletionMagic {
		return none("%d bytes are none", len(raw))
	}
	body, _ := splitSignature(raw)
	if version := binary.BigEndian.Uint16(body[offDeletionVersion:]); version != deletionVersion {
		return none("version %d is not known", version)
	}
	grantBytes, count := int(binary.BigEndian.Uint16(body[offDeletionGrant:])), binary.BigEndian.Uint32(body[offDeletionCount:])
	grantEnd := deletionFixed + grantBytes
	switch {
	case grantBytes > MaxGrantBytes || count < 1 || count > MaxDeletionSegments:
		return none("grant of %d bytes, %d segments", grantBytes, count)
	case grantEnd+32*int(count) != len(body) || !allZero(body[offDeletionReserved:offDeletionNumber]):
		return none("%d bytes do not match the lengths inside", len(raw))
	}
	segments, err := readRising(body[grantEnd:], int(count))
	if err != nil {
		return SignedDeletion{}, err
	}
	key := ed25519.PublicKey(body[offDeletionSigner:deletionFixed:deletionFixed])
	s := SignedDeletion{
		Deletion: Deletion{
			Vault:    VaultID(body[offDeletionVault:]),
			Owner:    grid.OwnerID(body[offDeletionOwner:]),
			Number:   binary.BigEndian.Uint64(body[offDeletionNumber:]),
			Created:  readUnix(body[offDeletionCreated:]),
			Grant:    body[deletionFixed:grantEnd:grantEnd],
			Segments: segments,
		},
		ID: hash(body), Signer: grid.PeerIDOf(key), SignerKey: key, Raw: slices.Clip(raw),
	}
	if s.Number == 0 {
		return none("number 0")
	}
	return s, nil
}

// readRising reads ids of which each is higher than the one before.
func readRising(b []byte, count int) ([]SegmentID, error) {
	ids := make([]SegmentID, count)
	for i := range ids {
		ids[i] = SegmentID(b[32*i:])
		if i > 0 && compareSegments(ids[i-1], ids[i]) >= 0 {
			return nil, errors.New("segments do not rise")
		}
	}
	return ids, nil
}

// maxDeletionPages bounds what one store may answer about one vault.
const maxDeletionPages = 256

// EachDeletions calls take with the pages of deletions of a vault that one store
// has with numbers above after, verified and belonging together. ask gives the next page, as DeletionStore.Deletions does. Errors:
// that of ask, ErrCorrupt, ErrDenied.
func EachDeletions(owner grid.OwnerID, vault VaultID, after uint64, ask func(after uint64) ([][]byte, error), take func(raw [][]byte, deletions []SignedDeletion)) error {
	for range maxDeletionPages {
		raw, err := ask(after)
		if err != nil || len(raw) == 0 {
			return err
		}
		deletions, err := ParseDeletions(raw)
		if err != nil {
			return err
		}
		for _, d := range deletions {
			if d.Owner != owner || d.Vault != vault || d.Number <= after {
				return fmt.Errorf("%w: deletion %d of vault %s, asked for those of %s after %d", ErrCorrupt, d.Number, d.Vault.Short(), vault.Short(), after)
			}
		}
		take(raw, deletions)
		after = deletions[len(deletions)-1].Number
	}
	return nil
}
