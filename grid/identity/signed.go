package identity

import (
	"crypto/ed25519"
	"errors"
	"fmt"
)

// Domain separates the kinds of signed bytes: a signature made for one kind
// never verifies as another. The version is part of the name.
type Domain string

// ErrBadSignature says that signed bytes were altered, or were signed by
// another key or for another purpose. Test with errors.Is.
var ErrBadSignature = errors.New("bad signature")

// Signed is a body with the key that signed it. The bytes are kept and passed
// on exactly as they came; nothing is ever encoded again to be verified.
//
// Encoded: 32 bytes Ed25519 public key, 64 bytes signature, body. The
// signature covers the domain, a zero byte and the body.
type Signed struct {
	Key       ed25519.PublicKey
	Signature []byte
	Body      []byte
}

const signedOverhead = ed25519.PublicKeySize + ed25519.SignatureSize

// Sign signs body for one domain. The body is kept, not copied.
func Sign(key ed25519.PrivateKey, domain Domain, body []byte) Signed {
	return Signed{
		Key:       key.Public().(ed25519.PublicKey),
		Signature: ed25519.Sign(key, signedMessage(domain, body)),
		Body:      body,
	}
}

// Verify returns nil when the signature holds for the domain. Parse Body only
// after it did.
func (s Signed) Verify(domain Domain) error {
	if len(s.Key) != ed25519.PublicKeySize || len(s.Signature) != ed25519.SignatureSize ||
		!ed25519.Verify(s.Key, signedMessage(domain, s.Body), s.Signature) {
		return fmt.Errorf("%s: %w", domain, ErrBadSignature)
	}
	return nil
}

// Encode returns the bytes that ParseSigned reads.
func (s Signed) Encode() []byte {
	out := make([]byte, 0, signedOverhead+len(s.Body))
	out = append(out, s.Key...)
	out = append(out, s.Signature...)
	return append(out, s.Body...)
}

// ParseSigned splits encoded bytes; it verifies nothing. The result refers to
// data.
func ParseSigned(data []byte) (Signed, error) {
	if len(data) < signedOverhead {
		return Signed{}, fmt.Errorf("signed bytes: %d are too few", len(data))
	}
	return Signed{
		Key:       ed25519.PublicKey(data[:ed25519.PublicKeySize:ed25519.PublicKeySize]),
		Signature: data[ed25519.PublicKeySize:signedOverhead:signedOverhead],
		Body:      data[signedOverhead:],
	}, nil
}

func signedMessage(domain Domain, body []byte) []byte {
	message := make([]byte, 0, len(domain)+1+len(body))
	message = append(message, domain...)
	message = append(message, 0)
	return append(message, body...)
}
