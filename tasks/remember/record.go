package remember

import (
	"encoding/binary"
	"slices"

	"gotong/grid/blake3"
)

// A record is 4 bytes length of its value (little-endian), 8 bytes of the
// BLAKE3 hash of key and value, 32 bytes key, and the value; no value means
// that the key is forgotten. Of several records of one key the last counts.
const (
	sumBytes    = 8
	recordHead  = 4 + sumBytes + len(key{})
	maxValueLen = 1 << 30
)

func sum(k key, value []byte) (s [sumBytes]byte) {
	h := blake3.New()
	h.Write(k[:])
	h.Write(value)
	copy(s[:], h.Sum(nil))
	return s
}

func appendRecord(b []byte, k key, value []byte) []byte {
	s := sum(k, value)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(value)))
	b = append(b, s[:]...)
	b = append(b, k[:]...)
	return append(b, value...)
}

// take splits the first record off. It does not check the sum.
func take(b []byte) (k key, value, after []byte, ok bool) {
	if len(b) < recordHead {
		return k, nil, b, false
	}
	n := binary.LittleEndian.Uint32(b)
	if n > maxValueLen || uint64(len(b)-recordHead) < uint64(n) {
		return k, nil, b, false
	}
	k = key(b[4+sumBytes : recordHead])
	return k, b[recordHead : recordHead+int(n)], b[recordHead+int(n):], true
}

func good(b []byte, k key, value []byte) bool {
	return [sumBytes]byte(b[4:4+sumBytes]) == sum(k, value)
}

// find returns the value of the last record of k, and whether there is one. The
// value is nil when it was forgotten.
func find(b []byte, k key) (value []byte, ok bool) {
	for {
		at, v, after, more := take(b)
		if !more {
			return value, ok
		}
		if at == k && good(b, at, v) {
			value, ok = nil, true
			if len(v) > 0 {
				value = v
			}
		}
		b = after
	}
}

// rest returns what follows the last good record.
func rest(b []byte) []byte {
	left := b
	for {
		k, v, after, more := take(b)
		if !more {
			return left
		}
		if good(b, k, v) {
			left = after
		}
		b = after
	}
}

// newest returns the last records that fit in so many bytes, each key once, in
// their order.
func newest(b []byte, most int) []byte {
	var records [][]byte
	for {
		k, v, after, more := take(b)
		if !more {
			break
		}
		if good(b, k, v) {
			records = append(records, b[:len(b)-len(after)])
		}
		b = after
	}
	seen := map[key]bool{}
	var kept [][]byte
	for _, r := range slices.Backward(records) {
		k, v, _, _ := take(r)
		if most -= len(r); most < 0 {
			break
		}
		if !seen[k] && len(v) > 0 {
			kept = append(kept, r)
		}
		seen[k] = true
	}
	slices.Reverse(kept)
	return slices.Concat(kept...)
}
