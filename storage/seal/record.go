package seal

import (
	"bytes"
	"crypto/hpke"
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"gotong/grid/blake3"
	"gotong/storage"
)

// Bounds of a sealed record.
const (
	MaxRecipients  = 16
	MaxRecordBytes = 1 << 20 // sealed, everything included
)

// Layout of a sealed record; docs/format.md is its description.
const (
	recordVersion  = 1
	recordDomain   = "gotong record v1\x00"
	recordFixed    = 6  // bytes before the stanzas
	stanzaFixed    = 16 // bytes of a stanza before the wrapped key
	recipientBytes = 8  // of the recipient's tag
	offStanzaTag   = 8
)

var recordMagic = [4]byte{'g', 't', 'r', 'c'}

// SealRecord encrypts a snapshot record for the owner's read key and for up to
// MaxRecipients−1 further X25519 public keys of 32 bytes each.
func (v VaultSecrets) SealRecord(plaintext []byte, others ...[]byte) ([]byte, error) {
	if len(others) >= MaxRecipients {
		return nil, fmt.Errorf("seal record: %d recipients, at most %d", len(others)+1, MaxRecipients)
	}
	var key [keyBytes]byte
	_, _ = rand.Read(key[:]) // never fails: it ends the program instead
	b := append([]byte(nil), recordMagic[:]...)
	b = append(b, recordVersion, byte(1+len(others)))
	for _, recipient := range append([][]byte{v.keys.readPublic[:]}, others...) {
		var err error
		if b, err = v.appendStanza(b, recipient, key[:]); err != nil {
			return nil, fmt.Errorf("seal record: %w", err)
		}
	}
	b = sealWith(&key, b, plaintext, v.recordData(b))
	if len(b) > MaxRecordBytes {
		return nil, fmt.Errorf("seal record: %d bytes, at most %d", len(b), MaxRecordBytes)
	}
	return b, nil
}

// OpenRecord decrypts a record with the read key. Errors: ErrNoReadKey when
// the key is not here or the record is not for it, storage.ErrCorrupt.
func (v VaultSecrets) OpenRecord(sealed []byte) ([]byte, error) {
	stanzas, payload, err := splitRecord(sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: record: %w", storage.ErrCorrupt, err)
	}
	if v.keys.read == nil {
		return nil, fmt.Errorf("open record: %w", ErrNoReadKey)
	}
	tag := recipientTag(v.keys.readPublic[:])
	for _, stanza := range stanzas {
		if !bytes.Equal(stanza[offStanzaTag:stanzaFixed], tag[:]) || !ownSuite(stanza) {
			continue
		}
		wrapped := stanza[stanzaFixed:]
		key, err := hpke.Open(v.keys.read, recordKDF(), recordAEAD(), v.wrapInfo(), wrapped)
		if err != nil || len(key) != keyBytes {
			return nil, fmt.Errorf("%w: record: wrapped key was altered", storage.ErrCorrupt)
		}
		out, err := openWith((*[keyBytes]byte)(key), nil, payload, v.recordData(sealed[:len(sealed)-len(payload)]))
		if err != nil {
			return nil, fmt.Errorf("record: %w", err)
		}
		return out, nil
	}
	return nil, fmt.Errorf("open record: not sealed for this read key: %w", ErrNoReadKey)
}

func recordKDF() hpke.KDF   { return hpke.HKDFSHA256() }
func recordAEAD() hpke.AEAD { return hpke.AES256GCM() }

// appendStanza wraps key for one recipient: length, the three suite numbers of
// RFC 9180, the recipient's tag, encapsulated key and ciphertext.
func (v VaultSecrets) appendStanza(b, recipient, key []byte) ([]byte, error) {
	public, err := readKEM().NewPublicKey(recipient)
	if err != nil {
		return nil, fmt.Errorf("recipient: %w", err)
	}
	wrapped, err := hpke.Seal(public, recordKDF(), recordAEAD(), v.wrapInfo(), key)
	if err != nil {
		return nil, fmt.Errorf("wrap for recipient: %w", err)
	}
	tag := recipientTag(recipient)
	b = binary.BigEndian.AppendUint16(b, uint16(stanzaFixed+len(wrapped)))
	b = binary.BigEndian.AppendUint16(b, readKEM().ID())
	b = binary.BigEndian.AppendUint16(b, recordKDF().ID())
	b = binary.BigEndian.AppendUint16(b, recordAEAD().ID())
	b = append(b, tag[:]...)
	return append(b, wrapped...), nil
}

// ownSuite reports whether a stanza uses the algorithms of this version; those
// of others are skipped.
func ownSuite(stanza []byte) bool {
	return binary.BigEndian.Uint16(stanza[2:]) == readKEM().ID() &&
		binary.BigEndian.Uint16(stanza[4:]) == recordKDF().ID() &&
		binary.BigEndian.Uint16(stanza[6:]) == recordAEAD().ID()
}

// splitRecord cuts a record into its stanzas and its payload.
func splitRecord(b []byte) (stanzas [][]byte, payload []byte, err error) {
	if len(b) < recordFixed || len(b) > MaxRecordBytes || [4]byte(b) != recordMagic {
		return nil, nil, fmt.Errorf("%d bytes are none", len(b))
	}
	if b[4] != recordVersion {
		return nil, nil, fmt.Errorf("version %d is not known", b[4])
	}
	count := int(b[5])
	if count < 1 || count > MaxRecipients {
		return nil, nil, fmt.Errorf("%d recipients", count)
	}
	rest := b[recordFixed:]
	for range count {
		if len(rest) < stanzaFixed {
			return nil, nil, fmt.Errorf("cut off in its recipients")
		}
		length := int(binary.BigEndian.Uint16(rest))
		if length < stanzaFixed || length > len(rest) {
			return nil, nil, fmt.Errorf("recipient of %d bytes", length)
		}
		stanzas = append(stanzas, rest[:length])
		rest = rest[length:]
	}
	return stanzas, rest, nil
}

func recipientTag(public []byte) [recipientBytes]byte {
	sum := blake3.Sum256(public)
	return [recipientBytes]byte(sum[:])
}

func (v VaultSecrets) wrapInfo() []byte {
	return append([]byte(recordDomain), v.keys.vault[:]...)
}

// recordData binds the payload to the vault and to the whole list of recipients.
func (v VaultSecrets) recordData(before []byte) []byte {
	return append(v.wrapInfo(), before...)
}
