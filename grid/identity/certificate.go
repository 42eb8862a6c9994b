package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// ErrCertificate says that the other side of a TLS connection showed something
// else than one certificate with an Ed25519 key. Test with errors.Is.
var ErrCertificate = errors.New("not the certificate of a peer")

// Certificate wraps a node key into a certificate for TLS that carries nothing
// but the key: no name, no date that means anything, signed by itself. The
// same key always gives the same bytes. Who is a member is the roster's
// business, so nobody checks this certificate against an authority.
func Certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280: no end known
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make the certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read back the certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// PeerKey returns the key of the other side of a TLS connection. The handshake
// has proved that the other side holds the private key; everything else in the
// certificate is ignored. It is safe to call from VerifyConnection.
func PeerKey(cs tls.ConnectionState) (ed25519.PublicKey, error) {
	if n := len(cs.PeerCertificates); n != 1 {
		return nil, fmt.Errorf("%w: %d certificates, want 1", ErrCertificate, n)
	}
	key, ok := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: not an Ed25519 key", ErrCertificate)
	}
	return key, nil
}
