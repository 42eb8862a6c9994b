package invite

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"google.golang.org/protobuf/proto"

	"gotong/grid"
	invitev1 "gotong/proto/invite/v1"
)

// The file of an invite: 16 bytes magic, CRC-32C of the rest, StoredInvite.
const (
	fileMagic    = "gotong invite 1\n"
	fileExt      = ".invite"
	maxFileBytes = 4 << 10 // one has about 120
)

var (
	errStored  = errors.New("not a stored invite")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// stored is one invite as the inviting peer keeps it.
type stored struct {
	id         ID
	secret     [secretBytes]byte
	expires    time.Time
	grantAdmin bool
	usedBy     grid.PeerID // zero while unused
	wrong      uint32
}

func fileName(id ID) string { return hex.EncodeToString(id[:]) + fileExt }

// usable says whether the joiner, who has proved the secret, may use it. Who
// used it already may come again, even late.
func (s stored) usable(joiner grid.PeerID, now time.Time) error {
	switch {
	case s.usedBy == joiner:
		return nil
	case !s.usedBy.IsZero():
		return ErrUsed
	case s.wrong >= MaxWrong:
		return ErrBurnt
	case !now.Before(s.expires):
		return ErrExpired
	}
	return nil
}

func (s stored) encode() []byte {
	m := &invitev1.StoredInvite{
		Invite: s.id[:], Secret: s.secret[:], Expires: s.expires.Unix(),
		GrantAdmin: s.grantAdmin, WrongProofs: s.wrong,
	}
	if !s.usedBy.IsZero() {
		m.UsedBy = s.usedBy[:]
	}
	body, err := proto.Marshal(m)
	if err != nil { // only for text that is not UTF-8, of which there is none
		panic("invite: encode: " + err.Error())
	}
	out := binary.BigEndian.AppendUint32([]byte(fileMagic), crc32.Checksum(body, castagnoli))
	return append(out, body...)
}

func parseStored(data []byte) (stored, error) {
	head := len(fileMagic) + 4
	if len(data) < head || !bytes.HasPrefix(data, []byte(fileMagic)) {
		return stored{}, errStored
	}
	body := data[head:]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(data[len(fileMagic):]) {
		return stored{}, fmt.Errorf("%w: checksum", errStored)
	}
	var m invitev1.StoredInvite
	if err := proto.Unmarshal(body, &m); err != nil {
		return stored{}, fmt.Errorf("%w: %w", errStored, err)
	}
	s := stored{expires: time.Unix(m.GetExpires(), 0).UTC(), grantAdmin: m.GetGrantAdmin(), wrong: m.GetWrongProofs()}
	used := len(m.GetUsedBy())
	if len(m.GetInvite()) != len(s.id) || len(m.GetSecret()) != len(s.secret) || (used != 0 && used != len(s.usedBy)) {
		return stored{}, fmt.Errorf("%w: field lengths", errStored)
	}
	copy(s.id[:], m.GetInvite())
	copy(s.secret[:], m.GetSecret())
	copy(s.usedBy[:], m.GetUsedBy())
	return s, nil
}
