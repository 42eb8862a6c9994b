package identity

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"gotong/grid"
	"gotong/grid/disk"
)

const (
	nodeKeyMode     fs.FileMode = 0o600
	nodeKeyMaxBytes             = 4096 // of the PEM file; one takes 119
	pemType                     = "PRIVATE KEY"
	boxKeyInfo                  = "gotong node box v1"
)

// Errors of the node key file. Test with errors.Is.
var (
	// ErrKeyFile: the file is not an Ed25519 key in PEM, PKCS#8.
	ErrKeyFile = errors.New("not a node key file")
	// ErrKeyExposed: other users of the machine may read or write the file.
	ErrKeyExposed = errors.New("node key file is open to other users")
)

// NodeKey is the key of one peer: it signs for the peer and is its identity in
// TLS. It never leaves the machine. The zero value is no key.
type NodeKey struct {
	private ed25519.PrivateKey
}

// NewNodeKey makes a key from the system's randomness and stores it nowhere.
func NewNodeKey() (NodeKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return NodeKey{}, fmt.Errorf("make a node key: %w", err)
	}
	return NodeKey{private}, nil
}

// LoadOrCreateNodeKey reads the key at path, or makes one there, durably and
// readable by its user only, when there is no such file. The caller holds
// whatever lock keeps a second process from doing the same.
func LoadOrCreateNodeKey(path string) (NodeKey, error) {
	key, err := LoadNodeKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := disk.RemoveTemps(path); err != nil {
		return NodeKey{}, fmt.Errorf("store the node key: %w", err)
	}
	if key, err = NewNodeKey(); err != nil {
		return NodeKey{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key.private)
	if err != nil {
		return NodeKey{}, fmt.Errorf("encode the node key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
	if err := disk.WriteFile(path, text, nodeKeyMode); err != nil {
		return NodeKey{}, fmt.Errorf("store the node key: %w", err)
	}
	return key, nil
}

// LoadNodeKey reads the key at path: fs.ErrNotExist when there is none,
// ErrKeyExposed when others may read it, ErrKeyFile when it is something else.
func LoadNodeKey(path string) (NodeKey, error) {
	if err := checkPrivate(path); err != nil {
		return NodeKey{}, err
	}
	text, err := disk.ReadFile(path, nodeKeyMaxBytes)
	if err != nil {
		return NodeKey{}, fmt.Errorf("node key: %w", err)
	}
	key, err := parseNodeKey(text)
	if err != nil {
		return NodeKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func parseNodeKey(text []byte) (NodeKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return NodeKey{}, fmt.Errorf("%w: no PEM block %q", ErrKeyFile, pemType)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return NodeKey{}, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return NodeKey{}, fmt.Errorf("%w: not an Ed25519 key", ErrKeyFile)
	}
	return NodeKey{private}, nil
}

// Private returns the signing key itself.
func (k NodeKey) Private() ed25519.PrivateKey { return k.private }

// Public returns the public key.
func (k NodeKey) Public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// PeerID returns the id of the peer whose key this is.
func (k NodeKey) PeerID() grid.PeerID { return grid.PeerIDOf(k.Public()) }

// BoxKey derives the X25519 key to which others encrypt for this peer.
func (k NodeKey) BoxKey() *ecdh.PrivateKey {
	key, err := ecdh.X25519().NewPrivateKey(derive(k.private.Seed(), boxKeyInfo, 32))
	if err != nil { // only for a wrong length
		panic("identity: box key: " + err.Error())
	}
	return key
}

// IsZero reports whether k is the zero value, which is no key.
func (k NodeKey) IsZero() bool { return k.private == nil }

// Format implements fmt.Formatter and hides the key from every verb.
func (k NodeKey) Format(f fmt.State, _ rune) { hide(f) }

// LogValue implements slog.LogValuer and hides the key.
func (k NodeKey) LogValue() slog.Value { return slog.StringValue(redacted) }
