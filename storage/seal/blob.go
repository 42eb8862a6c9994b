package seal

import (
	"crypto/hmac"
	"crypto/sha256"
	"slices"
)

// Prefixes of the additional data; the format version is part of them.
const (
	blobDomain  = "gotong blob v1\x00"
	indexDomain = "gotong index v1\x00"
)

// BlobID names the blob whose plaintext has the hash h. Without the secrets it
// says nothing about the content.
func (v VaultSecrets) BlobID(h [32]byte) [32]byte { return keyed(&v.keys.blobID, h[:]) }

// SealBlob encrypts the bytes of the blob with plaintext hash h, as they are or
// compressed, and appends them to dst; it adds Overhead bytes. kind is bound to
// them. plaintext and dst must not overlap.
func (v VaultSecrets) SealBlob(dst []byte, kind byte, h [32]byte, plaintext []byte) []byte {
	key := keyed(&v.keys.blobKey, h[:])
	return sealWith(&key, slices.Grow(dst, len(plaintext)+Overhead), plaintext, v.blobData(kind, h))
}

// OpenBlob decrypts what SealBlob made of a blob of this kind and hash and
// appends it to dst. The error is storage.ErrCorrupt.
func (v VaultSecrets) OpenBlob(dst []byte, kind byte, h [32]byte, sealed []byte) ([]byte, error) {
	key := keyed(&v.keys.blobKey, h[:])
	return openWith(&key, dst, sealed, v.blobData(kind, h))
}

// SealIndexed encrypts under the index key and appends to dst; it adds Overhead
// bytes. purpose names what is sealed; each has a key of its own.
func (v VaultSecrets) SealIndexed(dst []byte, purpose string, plaintext []byte) []byte {
	key := keyed(&v.keys.index, []byte(purpose))
	return sealWith(&key, slices.Grow(dst, len(plaintext)+Overhead), plaintext, v.indexData(purpose))
}

// OpenIndexed decrypts what SealIndexed made for this purpose and appends it to
// dst. The error is storage.ErrCorrupt.
func (v VaultSecrets) OpenIndexed(dst []byte, purpose string, sealed []byte) ([]byte, error) {
	key := keyed(&v.keys.index, []byte(purpose))
	return openWith(&key, dst, sealed, v.indexData(purpose))
}

func (v VaultSecrets) blobData(kind byte, h [32]byte) []byte {
	id := v.BlobID(h)
	b := make([]byte, 0, len(blobDomain)+1+len(v.keys.vault)+len(id))
	b = append(b, blobDomain...)
	b = append(b, kind)
	b = append(b, v.keys.vault[:]...)
	return append(b, id[:]...)
}

func (v VaultSecrets) indexData(purpose string) []byte {
	b := make([]byte, 0, len(indexDomain)+len(v.keys.vault)+len(purpose))
	b = append(b, indexDomain...)
	b = append(b, v.keys.vault[:]...)
	return append(b, purpose...)
}

// keyed is HMAC-SHA256, the one keyed derivation from a vault's secrets.
func keyed(key *[keyBytes]byte, message []byte) (out [32]byte) {
	mac := hmac.New(sha256.New, key[:])
	mac.Write(message)
	mac.Sum(out[:0])
	return out
}
