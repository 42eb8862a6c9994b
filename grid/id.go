package grid

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
)

// idEncoding writes identifiers: RFC 4648 base32 in lower case without
// padding, so that an identifier is one word to a double click and survives
// being read aloud.
var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

const (
	idBytes      = 32
	idTextLength = 52 // base32 of 32 bytes
	shortLength  = 8
)

// PeerID names one running machine: SHA-256 of its Ed25519 public key under a
// fixed prefix. It is comparable and safe as a map key.
type PeerID [idBytes]byte

// OwnerID names one person: SHA-256 of the owner's Ed25519 public key under a
// fixed prefix.
type OwnerID [idBytes]byte

// GridID names a grid: SHA-256 over the genesis owner's key, a nonce and the
// grid's name (see grid/roster).
type GridID [idBytes]byte

// PeerIDOf returns the PeerID of a node's public key.
func PeerIDOf(public ed25519.PublicKey) PeerID {
	return PeerID(hashWithPrefix("gotong peer v1\x00", public))
}

// OwnerIDOf returns the OwnerID of an owner's public key.
func OwnerIDOf(public ed25519.PublicKey) OwnerID {
	return OwnerID(hashWithPrefix("gotong owner v1\x00", public))
}

func hashWithPrefix(prefix string, data []byte) [idBytes]byte {
	h := sha256.New()
	h.Write([]byte(prefix))
	h.Write(data)
	return [idBytes]byte(h.Sum(nil))
}

// String returns the 52 characters of the id.
func (id PeerID) String() string { return idEncoding.EncodeToString(id[:]) }

// Short returns the first 8 characters, for people; it does not identify.
func (id PeerID) Short() string { return id.String()[:shortLength] }

// IsZero reports whether id is the zero value, which names no peer.
func (id PeerID) IsZero() bool { return id == PeerID{} }

// Compare orders ids by their bytes.
func (id PeerID) Compare(other PeerID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText implements encoding.TextMarshaler with the 52 characters of String.
func (id PeerID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; it accepts what String writes.
func (id *PeerID) UnmarshalText(text []byte) error { return parseID("peer", string(text), id[:]) }

// ParsePeerID reads what PeerID.String wrote.
func ParsePeerID(s string) (id PeerID, err error) { return id, parseID("peer", s, id[:]) }

// String returns the 52 characters of the id.
func (id OwnerID) String() string { return idEncoding.EncodeToString(id[:]) }

// Short returns the first 8 characters, for people; it does not identify.
func (id OwnerID) Short() string { return id.String()[:shortLength] }

// IsZero reports whether id is the zero value, which names no owner.
func (id OwnerID) IsZero() bool { return id == OwnerID{} }

// Compare orders ids by their bytes.
func (id OwnerID) Compare(other OwnerID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText implements encoding.TextMarshaler with the 52 characters of String.
func (id OwnerID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; it accepts what String writes.
func (id *OwnerID) UnmarshalText(text []byte) error { return parseID("owner", string(text), id[:]) }

// ParseGridID reads what GridID.String wrote.
func ParseGridID(s string) (id GridID, err error) { return id, parseID("grid", s, id[:]) }

// ParseOwnerID reads what OwnerID.String wrote.
func ParseOwnerID(s string) (id OwnerID, err error) { return id, parseID("owner", s, id[:]) }

// String returns the 52 characters of the id.
func (id GridID) String() string { return idEncoding.EncodeToString(id[:]) }

// Short returns the first 8 characters, for people; it does not identify.
func (id GridID) Short() string { return id.String()[:shortLength] }

// IsZero reports whether id is the zero value, which names no grid.
func (id GridID) IsZero() bool { return id == GridID{} }

// MarshalText implements encoding.TextMarshaler with the 52 characters of String.
func (id GridID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; it accepts what String writes.
func (id *GridID) UnmarshalText(text []byte) error { return parseID("grid", string(text), id[:]) }

// ParseHex decodes exactly len(dst) bytes of lower-case hex, the text of the ids
// that packages storage and tasks define; kind names the id in the error.
func ParseHex(kind, s string, dst []byte) error {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(dst) || s != hex.EncodeToString(raw) {
		return fmt.Errorf("%s id %q: want %d lower-case hex digits", kind, s, 2*len(dst))
	}
	copy(dst, raw)
	return nil
}

// parseID decodes exactly one canonical id text into dst. Base32 of 32 bytes
// leaves 4 spare bits in the last character; a text that sets them would be a
// second spelling of the same id, so it is refused.
func parseID(kind, s string, dst []byte) error {
	if len(s) != idTextLength {
		return fmt.Errorf("%s id %q: want %d characters, got %d", kind, s, idTextLength, len(s))
	}
	raw, err := idEncoding.DecodeString(s)
	if err != nil || idEncoding.EncodeToString(raw) != s {
		return fmt.Errorf("%s id %q: not lower-case base32", kind, s)
	}
	copy(dst, raw)
	return nil
}
