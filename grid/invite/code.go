package invite

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"gotong/grid"
	"gotong/grid/roster"
)

const (
	codePrefix       = "gotong1"
	codeDomain       = "gotong code v1\x00"
	codeCheckBytes   = 4
	maxCodeTextBytes = 16 << 10 // read from a person; a full one has about 3,000
	secretBytes      = 32
	// MaxCodeAddresses bounds the addresses in a code, so that it stays one
	// line and fits a QR code. The most useful come first.
	MaxCodeAddresses = 6
)

// ErrCode says that a text is not an invite code, or was mistyped. Test with
// errors.Is.
var ErrCode = errors.New("not an invite code")

var codeEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ID names an invite at the peer that made it.
type ID [16]byte

// Code is what the inviting person passes on. Whoever has it first can join.
type Code struct {
	Grid      grid.GridID
	GridName  string
	Inviter   grid.PeerID
	Addresses []string // HOST:PORT of the inviter, at most MaxCodeAddresses
	ID        ID
	Secret    [secretBytes]byte
	Expires   time.Time // whole seconds
}

// String returns the code as one word: "gotong1" and lower-case base32. It
// contains the secret.
//
// Encoded: grid 32 bytes, inviter 32, id 16, secret 32, expires 8 (Unix
// seconds), length of the name 1, name, number of addresses 1, and for each its
// length 2 and its bytes; then the first 4 bytes of SHA-256 of all this behind
// a fixed prefix.
func (c Code) String() string {
	b := c.payload()
	return codePrefix + codeEncoding.EncodeToString(append(b, codeCheck(b)...))
}

// LogValue implements slog.LogValuer and hides the secret.
func (c Code) LogValue() slog.Value { return slog.StringValue("[invite of " + c.Inviter.Short() + "]") }

func (c Code) payload() []byte {
	var b []byte
	b = append(b, c.Grid[:]...)
	b = append(b, c.Inviter[:]...)
	b = append(b, c.ID[:]...)
	b = append(b, c.Secret[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Expires.Unix()))
	b = append(b, byte(len(c.GridName)))
	b = append(b, c.GridName...)
	b = append(b, byte(len(c.Addresses)))
	for _, address := range c.Addresses {
		b = binary.BigEndian.AppendUint16(b, uint16(len(address)))
		b = append(b, address...)
	}
	return b
}

func codeCheck(payload []byte) []byte {
	sum := sha256.Sum256(append([]byte(codeDomain), payload...))
	return sum[:codeCheckBytes]
}

// ParseCode reads a code in any case and with any white space in it, as mail
// programs break lines. Every failure is an ErrCode; none shows the text.
func ParseCode(s string) (Code, error) {
	if len(s) > maxCodeTextBytes {
		return Code{}, fmt.Errorf("%w: more than %d bytes", ErrCode, maxCodeTextBytes)
	}
	text := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, s)
	text, ok := strings.CutPrefix(text, codePrefix)
	if !ok {
		return Code{}, fmt.Errorf("%w: it does not begin with %q", ErrCode, codePrefix)
	}
	raw, err := codeEncoding.DecodeString(text)
	if err != nil || codeEncoding.EncodeToString(raw) != text {
		return Code{}, fmt.Errorf("%w: it has characters that no code has, or its end is missing", ErrCode)
	}
	payload := raw[:max(0, len(raw)-codeCheckBytes)]
	if !bytes.Equal(codeCheck(payload), raw[len(payload):]) {
		return Code{}, fmt.Errorf("%w: the checksum is wrong, so a part is missing or mistyped", ErrCode)
	}
	return parsePayload(payload)
}

func parsePayload(b []byte) (c Code, err error) {
	r := reader{rest: b}
	copy(c.Grid[:], r.take(len(c.Grid)))
	copy(c.Inviter[:], r.take(len(c.Inviter)))
	copy(c.ID[:], r.take(len(c.ID)))
	copy(c.Secret[:], r.take(len(c.Secret)))
	c.Expires = time.Unix(int64(r.number(8)), 0).UTC()
	c.GridName = string(r.take(int(r.number(1))))
	count := int(r.number(1))
	if r.short || len(c.GridName) > grid.MaxNameLen || !utf8.ValidString(c.GridName) || count > MaxCodeAddresses {
		return Code{}, fmt.Errorf("%w: malformed", ErrCode)
	}
	for range count {
		address := string(r.take(int(r.number(2))))
		if err := roster.CheckAddress(address); err != nil {
			return Code{}, fmt.Errorf("%w: malformed address", ErrCode)
		}
		c.Addresses = append(c.Addresses, address)
	}
	if r.short || len(r.rest) > 0 {
		return Code{}, fmt.Errorf("%w: malformed", ErrCode)
	}
	return c, nil
}

// reader takes fields off the front of bytes; after the first that is not there
// all others are empty.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if r.short || n > len(r.rest) {
		r.short = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) number(size int) (n uint64) {
	for _, b := range r.take(size) {
		n = n<<8 | uint64(b)
	}
	return n
}
