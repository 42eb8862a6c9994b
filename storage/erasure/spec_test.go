package erasure_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"gotong/storage"
)

// TestParityAsSpecified computes parity as docs/format.md says, in the slowest
// way there is, and compares.
func TestParityAsSpecified(t *testing.T) {
	for _, r := range []storage.Redundancy{{K: 1, N: 3}, {K: 2, N: 3}, {K: 4, N: 6}, {K: 3, N: 8}, {K: 10, N: 30}, {K: 29, N: 30}} {
		const size = 64
		segment := make([]byte, r.K*size)
		_, _ = rand.NewChaCha8([32]byte{1}).Read(segment)
		shards, _, err := newCoder(t, r).Encode(segment, nil)
		if err != nil {
			t.Fatal(err)
		}
		matrix := systematic(r)
		for row := r.K; row < r.N; row++ {
			want := make([]byte, size)
			for c := range r.K {
				for i := range want {
					want[i] ^= multiply(matrix[row][c], segment[c*size+i])
				}
			}
			if !bytes.Equal(shards[row], want) {
				t.Fatalf("%s: shard %d is not as specified", r, row)
			}
		}
	}
}

// multiply is multiplication in GF(2⁸) with the polynomial 0x11D.
func multiply(a, b byte) (product byte) {
	for ; b != 0; b >>= 1 {
		if b&1 != 0 {
			product ^= a
		}
		carry := a&0x80 != 0
		if a <<= 1; carry {
			a ^= 0x1d
		}
	}
	return product
}

func inverse(a byte) byte {
	for b := range 256 {
		if multiply(a, byte(b)) == 1 {
			return byte(b)
		}
	}
	panic("zero has no inverse")
}

// systematic returns V·T⁻¹ by column operations on V that make its first k rows
// the unit matrix.
func systematic(r storage.Redundancy) [][]byte {
	v := make([][]byte, r.N)
	for row := range v {
		v[row] = make([]byte, r.K)
		power := byte(1)
		for c := range v[row] {
			v[row][c] = power
			power = multiply(power, byte(row))
		}
	}
	for i := range r.K {
		for c := i; c < r.K && v[i][i] == 0; c++ {
			if v[i][c] != 0 {
				for row := range v {
					v[row][i], v[row][c] = v[row][c], v[row][i]
				}
			}
		}
		scale := inverse(v[i][i])
		for row := range v {
			v[row][i] = multiply(v[row][i], scale)
		}
		for c := range r.K {
			if factor := v[i][c]; c != i && factor != 0 {
				for row := range v {
					v[row][c] ^= multiply(factor, v[row][i])
				}
			}
		}
	}
	return v
}
