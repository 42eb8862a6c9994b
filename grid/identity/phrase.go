package identity

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"sync"
)

const (
	phraseWords    = 24
	phraseEntropy  = 32   // bytes; 256 bits and 8 bits of checksum make 24 words of 11 bits
	wordBits       = 11   // 2048 words
	maxPhraseBytes = 4096 // read from a person or a file; 24 words need 215
	ownerKeyInfo   = "gotong owner key v1"
	redacted       = "[secret]"
)

// ErrPhrase says that a text is not a recovery phrase. Test with errors.Is.
// Errors name the position of a bad word, never the word.
var ErrPhrase = errors.New("not a recovery phrase")

//go:embed english.txt
var englishText string

// english is the BIP39 English word list; it is sorted.
var english = sync.OnceValue(func() []string { return strings.Fields(englishText) })

// Phrase is the recovery phrase of an owner: 24 words of the BIP39 English list
// that carry 256 bits of entropy and a checksum. Whoever has it is the owner.
// Only String shows the words: printing or logging a Phrase does not.
type Phrase struct {
	entropy [phraseEntropy]byte
}

// NewPhrase makes a phrase from 32 bytes of the system's randomness.
func NewPhrase() (Phrase, error) {
	var p Phrase
	if _, err := rand.Read(p.entropy[:]); err != nil {
		return Phrase{}, fmt.Errorf("make a recovery phrase: %w", err)
	}
	return p, nil
}

// PhraseOf returns the phrase that carries these 32 bytes.
func PhraseOf(entropy [32]byte) Phrase { return Phrase{entropy: entropy} }

// ParsePhrase reads 24 words in any case, separated by any white space, with or
// without the numbers that are printed beside them, and checks their checksum. Every failure is an ErrPhrase.
func ParsePhrase(s string) (Phrase, error) {
	if len(s) > maxPhraseBytes {
		return Phrase{}, fmt.Errorf("%w: more than %d bytes", ErrPhrase, maxPhraseBytes)
	}
	words := slices.DeleteFunc(strings.Fields(strings.ToLower(s)), isNumber)
	if len(words) != phraseWords {
		return Phrase{}, fmt.Errorf("%w: %d words, want %d", ErrPhrase, len(words), phraseWords)
	}
	bits := new(big.Int)
	for i, word := range words {
		index, ok := slices.BinarySearch(english(), word)
		if !ok {
			return Phrase{}, fmt.Errorf("%w: word %d is not in the word list", ErrPhrase, i+1)
		}
		bits.Lsh(bits, wordBits)
		bits.Or(bits, big.NewInt(int64(index)))
	}
	var raw [phraseEntropy + 1]byte
	bits.FillBytes(raw[:])
	p := Phrase{entropy: [phraseEntropy]byte(raw[:phraseEntropy])}
	if raw[phraseEntropy] != p.checksum() {
		return Phrase{}, fmt.Errorf("%w: the checksum is wrong, so a word is mistaken or two are swapped", ErrPhrase)
	}
	return p, nil
}

// isNumber reports whether a field is the number of a word, such as "7.".
func isNumber(field string) bool {
	return strings.Trim(field, "0123456789.):") == ""
}

func (p Phrase) checksum() byte {
	sum := sha256.Sum256(p.entropy[:])
	return sum[0]
}

// String returns the 24 words, in lower case, separated by single spaces. It
// is the only way to see them.
func (p Phrase) String() string {
	bits := new(big.Int).SetBytes(append(p.Entropy(), p.checksum()))
	words := make([]string, phraseWords)
	mask := big.NewInt(1<<wordBits - 1)
	for i := phraseWords - 1; i >= 0; i-- {
		words[i] = english()[new(big.Int).And(bits, mask).Int64()]
		bits.Rsh(bits, wordBits)
	}
	return strings.Join(words, " ")
}

// Entropy returns a copy of the 32 bytes that the words carry, from which the
// secrets of the owner's vaults are derived too.
func (p Phrase) Entropy() []byte { return slices.Clone(p.entropy[:]) }

// OwnerKey derives the owner's signing key.
func (p Phrase) OwnerKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(derive(p.entropy[:], ownerKeyInfo, ed25519.SeedSize))
}

// Format implements fmt.Formatter and hides the words from every verb.
func (p Phrase) Format(f fmt.State, _ rune) { hide(f) }

// LogValue implements slog.LogValuer and hides the words.
func (p Phrase) LogValue() slog.Value { return slog.StringValue(redacted) }

func hide(f fmt.State) {
	_, _ = f.Write([]byte(redacted)) // fmt.State keeps no error to report
}

// derive is HKDF-SHA256 without salt: the secrets here are uniform already. It
// fails only for lengths that this package does not ask for.
func derive(secret []byte, info string, n int) []byte {
	key, err := hkdf.Key(sha256.New, secret, nil, info, n)
	if err != nil {
		panic("identity: derive " + info + ": " + err.Error())
	}
	return key
}
