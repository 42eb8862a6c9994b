package vault

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"
	"slices"

	"gotong/storage"
)

// numberSet is a set of segment numbers: one bit for each segment of the vault.
type numberSet struct{ words []uint64 }

func (s *numberSet) add(n uint32) {
	word := int(n / 64)
	if word >= len(s.words) {
		s.words = append(s.words, make([]uint64, word+1-len(s.words))...)
	}
	s.words[word] |= 1 << (n % 64)
}

func (s *numberSet) has(n uint32) bool {
	word := int(n / 64)
	return word < len(s.words) && s.words[word]&(1<<(n%64)) != 0
}

func (s *numberSet) remove(n uint32) {
	if s.has(n) {
		s.words[n/64] &^= 1 << (n % 64)
	}
}

func (s *numberSet) clone() numberSet { return numberSet{slices.Clone(s.words)} }

func (s *numberSet) count() (n int) {
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return n
}

// addAll adds all that t has.
func (s *numberSet) addAll(t *numberSet) {
	if missing := len(t.words) - len(s.words); missing > 0 {
		s.words = append(s.words, make([]uint64, missing)...)
	}
	for i, w := range t.words {
		s.words[i] |= w
	}
}

// all yields the numbers by rising value.
func (s *numberSet) all() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for i, w := range s.words {
			for ; w != 0; w &= w - 1 {
				if !yield(uint32(i*64 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

// encode writes the set as runs: varints of the gap since the end of the run
// before and of the run's length, from number 0.
func (s *numberSet) encode() []byte {
	var out []byte
	var end, start, length uint64
	for n := range s.all() {
		if length > 0 && uint64(n) == start+length {
			length++
			continue
		}
		if length > 0 {
			out = binary.AppendUvarint(binary.AppendUvarint(out, start-end), length)
			end = start + length
		}
		start, length = uint64(n), 1
	}
	if length > 0 {
		out = binary.AppendUvarint(binary.AppendUvarint(out, start-end), length)
	}
	return out
}

// decodeNumbers reads what encode wrote; every number is below limit.
func decodeNumbers(b []byte, limit uint32) (numberSet, error) {
	var s numberSet
	var at uint64
	for len(b) > 0 {
		gap, n := binary.Uvarint(b)
		length, m := binary.Uvarint(b[max(n, 0):])
		if n <= 0 || m <= 0 || length == 0 || gap > uint64(limit) || length > uint64(limit) || at+gap+length > uint64(limit) {
			return numberSet{}, fmt.Errorf("%w: runs of segment numbers", storage.ErrCorrupt)
		}
		b = b[n+m:]
		at += gap
		for ; length > 0; length-- {
			s.add(uint32(at))
			at++
		}
	}
	return s, nil
}
