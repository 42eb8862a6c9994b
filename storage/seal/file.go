package seal

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"gotong/grid/blake3"
	"gotong/storage"
)

// Layout of the file form; docs/format.md is its description.
const (
	fileVersion  = 1
	fileHasRead  = 1 // flag
	offFileFlags = 10
	offFileVault = 12
	offFileKeys  = offFileVault + 32
	offFileRead  = offFileKeys + 5*keyBytes
	offFileCheck = offFileRead + keyBytes
	fileBytes    = offFileCheck + 32
)

var fileMagic = []byte("gtsecret")

// Marshal returns the form in which a device keeps the secrets. Whoever reads
// it reads the vault: the caller keeps it in a file of mode 0600.
func (v VaultSecrets) Marshal() ([]byte, error) {
	k := v.keys
	b := make([]byte, 0, fileBytes)
	b = append(b, fileMagic...)
	b = binary.BigEndian.AppendUint16(b, fileVersion)
	var read [keyBytes]byte
	var flags byte
	if k.read != nil {
		private, err := k.read.Bytes()
		if err != nil {
			return nil, fmt.Errorf("vault secrets: %w", err)
		}
		copy(read[:], private)
		flags = fileHasRead
	}
	b = append(b, flags, 0)
	b = append(b, k.vault[:]...)
	for _, key := range [...]*[keyBytes]byte{&k.blobID, &k.blobKey, &k.chunker, &k.index, &k.readPublic, &read} {
		b = append(b, key[:]...)
	}
	sum := blake3.Sum256(b)
	return append(b, sum[:]...), nil
}

// ParseSecrets reads what Marshal wrote. The error is storage.ErrCorrupt: the
// phrase makes the file anew.
func ParseSecrets(b []byte) (VaultSecrets, error) {
	corrupt := func(why string) (VaultSecrets, error) {
		return VaultSecrets{}, fmt.Errorf("%w: vault secrets: %s", storage.ErrCorrupt, why)
	}
	if len(b) < len(fileMagic)+2 || !bytes.HasPrefix(b, fileMagic) {
		return corrupt("not such a file")
	}
	if version := binary.BigEndian.Uint16(b[len(fileMagic):]); version != fileVersion {
		return corrupt(fmt.Sprintf("version %d is not known", version))
	}
	if len(b) != fileBytes || blake3.Sum256(b[:offFileCheck]) != [32]byte(b[offFileCheck:]) {
		return corrupt("checksum does not match")
	}
	if b[offFileFlags]&^fileHasRead != 0 || b[offFileFlags+1] != 0 {
		return corrupt("unknown flags")
	}
	k := &vaultKeys{vault: storage.VaultID(b[offFileVault:])}
	for i, dst := range [...]*[keyBytes]byte{&k.blobID, &k.blobKey, &k.chunker, &k.index, &k.readPublic} {
		copy(dst[:], b[offFileKeys+i*keyBytes:])
	}
	read := b[offFileRead:offFileCheck]
	if b[offFileFlags]&fileHasRead == 0 {
		if !bytes.Equal(read, make([]byte, keyBytes)) {
			return corrupt("a read key where none should be")
		}
		return VaultSecrets{k}, nil
	}
	private, err := readKEM().NewPrivateKey(read)
	if err != nil || !bytes.Equal(private.PublicKey().Bytes(), k.readPublic[:]) {
		return corrupt("read key does not match its public half")
	}
	k.read = private
	return VaultSecrets{k}, nil
}
