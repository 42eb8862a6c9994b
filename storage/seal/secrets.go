package seal

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"fmt"
	"log/slog"

	"gotong/storage"
)

// minEntropyBytes is the least that a recovery phrase may carry.
const minEntropyBytes = 16

// derivePrefix precedes the purpose in the HKDF info of each secret.
const derivePrefix = "gotong vault v1 "

// VaultSecrets are the secrets of one vault. The value is a reference: copies
// are cheap and share the keys. It is safe for concurrent use, and prints
// nothing of itself.
type VaultSecrets struct{ keys *vaultKeys }

type vaultKeys struct {
	vault      storage.VaultID
	blobID     [keyBytes]byte
	blobKey    [keyBytes]byte
	chunker    [keyBytes]byte
	index      [keyBytes]byte
	readPublic [keyBytes]byte
	read       hpke.PrivateKey // nil on a write-only device
}

// DeriveVault derives all secrets of a vault from the entropy of the owner's
// recovery phrase (at least 16 bytes).
func DeriveVault(entropy []byte, vault storage.VaultID) (VaultSecrets, error) {
	if len(entropy) < minEntropyBytes {
		return VaultSecrets{}, fmt.Errorf("vault secrets: %d bytes of entropy, want at least %d", len(entropy), minEntropyBytes)
	}
	k := &vaultKeys{vault: vault}
	var readSeed [keyBytes]byte
	for purpose, dst := range map[string]*[keyBytes]byte{
		"blob id": &k.blobID, "blob key": &k.blobKey, "chunker": &k.chunker,
		"index": &k.index, "read": &readSeed,
	} {
		key, err := hkdf.Key(sha256.New, entropy, vault[:], derivePrefix+purpose, keyBytes)
		if err != nil {
			return VaultSecrets{}, fmt.Errorf("vault secrets: %w", err)
		}
		copy(dst[:], key)
	}
	read, err := readKEM().DeriveKeyPair(readSeed[:])
	if err != nil {
		return VaultSecrets{}, fmt.Errorf("vault secrets: %w", err)
	}
	k.read = read
	copy(k.readPublic[:], read.PublicKey().Bytes())
	return VaultSecrets{k}, nil
}

func readKEM() hpke.KEM { return hpke.DHKEM(ecdh.X25519()) }

// IsZero reports whether v has no secrets at all.
func (v VaultSecrets) IsZero() bool { return v.keys == nil }

// Vault returns the vault that the secrets belong to.
func (v VaultSecrets) Vault() storage.VaultID { return v.keys.vault }

// ChunkerKey returns the 32-byte key of content-defined chunking, in new memory.
func (v VaultSecrets) ChunkerKey() []byte {
	key := v.keys.chunker
	return key[:]
}

// CanRead reports whether the read key is there, so that OpenRecord works.
func (v VaultSecrets) CanRead() bool { return v.keys.read != nil }

// ReadPublic returns the public half of the read key, 32 bytes of X25519, in
// new memory.
func (v VaultSecrets) ReadPublic() []byte {
	key := v.keys.readPublic
	return key[:]
}

// WithoutRead returns the secrets of a write-only device.
func (v VaultSecrets) WithoutRead() VaultSecrets {
	keys := *v.keys
	keys.read = nil
	return VaultSecrets{&keys}
}

// ReadKey returns the private read key, 32 bytes in new memory; nil when it is
// not here.
func (v VaultSecrets) ReadKey() []byte {
	if v.keys.read == nil {
		return nil
	}
	key, err := v.keys.read.Bytes()
	if err != nil {
		panic("seal: read key: " + err.Error()) // only keys that cannot be exported fail
	}
	return key
}

// WithRead returns the secrets with a read key of 32 bytes, which must be the
// one of this vault: else the error is ErrWrongReadKey.
func (v VaultSecrets) WithRead(private []byte) (VaultSecrets, error) {
	key, err := readKEM().NewPrivateKey(private)
	if err != nil || !bytes.Equal(key.PublicKey().Bytes(), v.keys.readPublic[:]) {
		return VaultSecrets{}, ErrWrongReadKey
	}
	keys := *v.keys
	keys.read = key
	return VaultSecrets{&keys}, nil
}

// String says whose secrets they are, never what they are.
func (v VaultSecrets) String() string {
	if v.IsZero() {
		return "no vault secrets"
	}
	return "secrets of vault " + v.keys.vault.Short()
}

// Format implements fmt.Formatter, so that no verb prints a key.
func (v VaultSecrets) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(v.String())) }

// LogValue implements slog.LogValuer, so that no handler prints a key.
func (v VaultSecrets) LogValue() slog.Value { return slog.StringValue(v.String()) }
