// Package seal holds the secrets of a vault and encrypts with them. All secrets
// derive from the owner's recovery phrase and the vault's id, so the phrase
// alone rebuilds them.
//
// Three things are sealed, each its own way:
//
//   - Blobs, by a key that only somebody who knows the plaintext hash h can
//     derive. The hash of a tree is inside its parent, so whoever opens a
//     snapshot record can open all below it, and nobody else can.
//   - Indexed bytes (tables of contents, catalogue), by the index key, so that
//     a device can keep its vault in order without being able to read it.
//   - Snapshot records, by a random key wrapped for each recipient with HPKE.
//     The first recipient is the owner's read key, which a write-only device
//     does not have.
//
// Nonces are random, and the additional data binds kind, vault, id and format
// version, so that nothing sealed can stand in for something else. The derivations
// and layouts are specified in docs/format.md.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"gotong/grid/blake3"
	"gotong/storage"
)

// Overhead is what SealBlob and SealIndexed add: a nonce and a tag.
const Overhead = nonceBytes + tagBytes

const (
	keyBytes   = 32
	nonceBytes = 12
	tagBytes   = 16
)

// ErrNoReadKey says that the read key is not on this machine. The phrase
// brings it back.
var ErrNoReadKey = errors.New("read key is not on this device")

// ErrWrongReadKey says that a read key is not that of the vault.
var ErrWrongReadKey = errors.New("read key of another vault")

// Hash is h, the one hash of plaintext: BLAKE3 with 32 bytes of output.
func Hash(plaintext []byte) [32]byte { return blake3.Sum256(plaintext) }

// sealWith appends nonce, ciphertext and tag to dst.
func sealWith(key *[keyBytes]byte, dst, plaintext, additional []byte) []byte {
	var nonce [nonceBytes]byte
	_, _ = rand.Read(nonce[:]) // never fails: it ends the program instead
	dst = append(dst, nonce[:]...)
	return aead(key).Seal(dst, nonce[:], plaintext, additional)
}

// openWith appends the plaintext to dst. The error is storage.ErrCorrupt.
func openWith(key *[keyBytes]byte, dst, sealed, additional []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, fmt.Errorf("%w: %d sealed bytes are too few", storage.ErrCorrupt, len(sealed))
	}
	out, err := aead(key).Open(dst, sealed[:nonceBytes], sealed[nonceBytes:], additional)
	if err != nil {
		return nil, fmt.Errorf("%w: sealed bytes were altered, or belong elsewhere", storage.ErrCorrupt)
	}
	return out, nil
}

func aead(key *[keyBytes]byte) cipher.AEAD {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("seal: " + err.Error()) // the key length is fixed
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic("seal: " + err.Error())
	}
	return gcm
}
