package blake3_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"hash"
	"testing"

	library "lukechampine.com/blake3"

	"gotong/grid/blake3"
)

var _ hash.Hash = blake3.New()

// pattern is the input of the official test vectors.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

// TestKnownAnswers takes lengths of the official test vectors of BLAKE3
// (test_vectors.json of its reference implementation).
func TestKnownAnswers(t *testing.T) {
	for n, want := range map[int]string{
		0:    "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
		1:    "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
		1023: "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11",
		1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
		1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
	} {
		if got := blake3.Sum256(pattern(n)); hex.EncodeToString(got[:]) != want {
			t.Errorf("%d bytes: %x", n, got)
		}
	}
}

// TestEqualsTheLibrary compares with the library's own tree at the lengths where
// the shape of the tree changes, in one piece and in several.
func TestEqualsTheLibrary(t *testing.T) {
	const chunk, group = 1 << 10, 16 << 10
	for _, around := range []int{0, 64, chunk, 2 * chunk, 3 * chunk, group - chunk, group, group + chunk, 2 * group, 3 * group, 7 * group, 8 * group, 64*group + chunk} {
		for n := max(around-1, 0); n <= around+1; n++ {
			checkSum(t, pattern(n), 1, 63, chunk, group-1, group, group+1, 3*group)
		}
	}
}

// checkSum checks the hash of data, written in pieces of each length too.
func checkSum(t *testing.T, data []byte, pieces ...int) {
	t.Helper()
	want := library.Sum256(data)
	if got := blake3.Sum256(data); got != want {
		t.Fatalf("%d bytes: got %x, want %x", len(data), got, want)
	}
	h := blake3.New()
	for _, piece := range pieces {
		if len(data)/piece > 1<<12 {
			continue
		}
		h.Reset()
		for rest := data; len(rest) > 0; {
			n := min(piece, len(rest))
			if got, err := h.Write(rest[:n]); got != n || err != nil {
				t.Fatal(got, err)
			}
			rest = rest[n:]
			if so := len(data) - len(rest); so%3 == 0 && h.Sum256() != library.Sum256(data[:so]) {
				t.Fatalf("sum in between, after %d of %d bytes in pieces of %d", so, len(data), piece)
			}
		}
		var place [32]byte // as hash.Hash has it: in place where there is room
		if h.Sum(place[:0]); place != want {
			t.Errorf("%d bytes: %x in its place, want %x", len(data), place, want)
		}
		if got := h.Sum([]byte("x")); !bytes.Equal(got, append([]byte("x"), want[:]...)) {
			t.Fatalf("%d bytes in pieces of %d: got %x, want %x", len(data), piece, got, want)
		}
	}
}

func FuzzSum256(f *testing.F) {
	f.Add(uint32(0), uint16(1))
	f.Add(uint32(16<<10+1), uint16(1<<10))
	f.Fuzz(func(t *testing.T, n uint32, piece uint16) {
		checkSum(t, pattern(int(n%(1<<20))), max(int(piece), 1))
	})
}

func BenchmarkSum256(b *testing.B) {
	for _, size := range []int{32, 1 << 10, 4 << 10, 16 << 10, 1 << 20, 4 << 20} {
		data := pattern(size)
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				blake3.Sum256(data)
			}
		})
	}
}
