package invite

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/roster"
)

const (
	sheetPrefix       = "gotongsheet1"
	sheetDomain       = "gotong sheet v1\x00"
	maxSheetTextBytes = 64 << 10 // a printed sheet with its QR code
	// MaxSheetMembers and MaxSheetAddresses bound a sheet, so that its QR code
	// can be read from paper.
	MaxSheetMembers   = 3
	MaxSheetAddresses = 3 // of each member
)

// ErrSheet says that a text holds no recovery sheet, or a mistyped one. Test
// with errors.Is.
var ErrSheet = errors.New("not a recovery sheet")

// SheetMember is one member through which an owner can come back.
type SheetMember struct {
	Peer      grid.PeerID
	Addresses []string // HOST:PORT, at most MaxSheetAddresses
}

// Sheet is all that an owner needs to come back. Whoever has it is the owner.
type Sheet struct {
	Grid    grid.GridID
	Phrase  identity.Phrase
	Created time.Time     // whole seconds
	Members []SheetMember // 1 to MaxSheetMembers
}

// Encode returns the sheet as one word. It contains the phrase.
func (s Sheet) Encode() string {
	var b []byte
	b = append(b, s.Grid[:]...)
	b = append(b, s.Phrase.Entropy()...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Created.Unix()))
	b = append(b, byte(len(s.Members)))
	for _, m := range s.Members {
		b = append(b, m.Peer[:]...)
		b = append(b, byte(len(m.Addresses)))
		for _, address := range m.Addresses {
			b = binary.BigEndian.AppendUint16(b, uint16(len(address)))
			b = append(b, address...)
		}
	}
	return sheetPrefix + codeEncoding.EncodeToString(append(b, sheetCheck(b)...))
}

// LogValue implements slog.LogValuer and hides the phrase.
func (s Sheet) LogValue() slog.Value { return slog.StringValue("[recovery sheet]") }

// Format implements fmt.Formatter and hides the phrase.
func (s Sheet) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[recovery sheet]")) }

func sheetCheck(payload []byte) []byte {
	sum := sha256.Sum256(append([]byte(sheetDomain), payload...))
	return sum[:codeCheckBytes]
}

// ParseSheet finds the word of a sheet in a text, in any case, broken into
// lines or not; in a longer text it ends at an empty line. Every failure is an
// ErrSheet; none shows the text.
func ParseSheet(text string) (Sheet, error) {
	if len(text) > maxSheetTextBytes {
		return Sheet{}, fmt.Errorf("%w: more than %d bytes", ErrSheet, maxSheetTextBytes)
	}
	_, word, ok := strings.Cut(strings.ToLower(text), sheetPrefix)
	if !ok {
		return Sheet{}, fmt.Errorf("%w: nothing in it begins with %q", ErrSheet, sheetPrefix)
	}
	word, _, _ = strings.Cut(strings.ReplaceAll(word, "\r", ""), "\n\n")
	word = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, word)
	raw, err := codeEncoding.DecodeString(word)
	if err != nil || codeEncoding.EncodeToString(raw) != word {
		return Sheet{}, fmt.Errorf("%w: it has characters that no sheet has, or its end is missing", ErrSheet)
	}
	payload := raw[:max(0, len(raw)-codeCheckBytes)]
	if !bytes.Equal(sheetCheck(payload), raw[len(payload):]) {
		return Sheet{}, fmt.Errorf("%w: the checksum is wrong, so a part is missing or mistyped", ErrSheet)
	}
	return parseSheetPayload(payload)
}

func parseSheetPayload(b []byte) (s Sheet, err error) {
	r := reader{rest: b}
	var entropy [32]byte
	copy(s.Grid[:], r.take(len(s.Grid)))
	copy(entropy[:], r.take(len(entropy)))
	s.Phrase = identity.PhraseOf(entropy)
	s.Created = time.Unix(int64(r.number(8)), 0).UTC()
	count := int(r.number(1))
	if r.short || count < 1 || count > MaxSheetMembers {
		return Sheet{}, fmt.Errorf("%w: malformed", ErrSheet)
	}
	for range count {
		var m SheetMember
		copy(m.Peer[:], r.take(len(m.Peer)))
		addresses := int(r.number(1))
		if addresses > MaxSheetAddresses {
			return Sheet{}, fmt.Errorf("%w: malformed", ErrSheet)
		}
		for range addresses {
			address := string(r.take(int(r.number(2))))
			if err := roster.CheckAddress(address); err != nil {
				return Sheet{}, fmt.Errorf("%w: malformed address", ErrSheet)
			}
			m.Addresses = append(m.Addresses, address)
		}
		s.Members = append(s.Members, m)
	}
	if r.short || len(r.rest) > 0 {
		return Sheet{}, fmt.Errorf("%w: malformed", ErrSheet)
	}
	return s, nil
}
