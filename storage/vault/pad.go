package vault

import (
	"bytes"
	crand "crypto/rand"
	"fmt"
	"math/bits"
	"math/rand/v2"

	"gotong/storage"
)

// minPadded is the length below which nothing is told apart.
const minPadded = 4096

// paddedSize returns the length to which n bytes are padded: eight steps for
// each power of two, at most 12.5 % more, so that lengths say little.
func paddedSize(n int) int {
	if n <= minPadded {
		return minPadded
	}
	step := 1 << (bits.Len(uint(n-1)) - 4)
	return (n + step - 1) / step * step
}

// fillRandom fills b with bytes that nobody can tell from ciphertext. A seeded
// ChaCha8 is several times faster than the system's generator.
func fillRandom(b []byte) {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails: it ends the program instead
	_, _ = rand.NewChaCha8(seed).Read(b)
}

// padPlain appends a one bit and zeros, so that plaintext and overhead bytes
// of sealing together take a padded length.
func padPlain(plain []byte, overhead int) []byte {
	total := paddedSize(len(plain)+1+overhead) - overhead
	plain = append(plain, 0x80)
	return append(plain, make([]byte, total-len(plain))...)
}

// unpadPlain undoes padPlain.
func unpadPlain(padded []byte) ([]byte, error) {
	plain := bytes.TrimRight(padded, "\x00")
	if len(plain) == 0 || plain[len(plain)-1] != 0x80 {
		return nil, fmt.Errorf("%w: no end of padding", storage.ErrCorrupt)
	}
	return plain[:len(plain)-1], nil
}
