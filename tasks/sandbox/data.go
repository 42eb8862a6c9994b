package sandbox

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// Bounds of mergeData.
const (
	// mergeGap is the longest run of zeros that is written out to make two
	// segments one: copying so many bytes costs less than a segment.
	mergeGap = 512
	// mergeFill bounds all zeros that are written out, for a module that is made
	// to grow.
	mergeFill = 8 << 20
)

// Opcodes of the expression that says where a segment goes.
const (
	opI32Const = 0x41
	opEnd      = 0x0b
	activeFlag = 0x00 // of a segment: copied to the first memory at the start
)

// segment is one active data segment.
type segment struct {
	offset uint32
	data   []byte
}

// mergeData returns the body of a data section with neighbouring segments made
// one. Compilers leave runs of zeros out, Go tens of thousands of them, and the
// engine spends more on each segment than on its bytes, at every start of a
// guest. Memory is all zero before and no byte is written twice, so the guest sees
// no difference. A section with anything but active segments at constant places,
// or with some that overlap, stays as it is. Nothing may refer to segments by
// number: the module must have no data count section.
func mergeData(body []byte) []byte {
	segments, ok := parseSegments(body)
	if !ok {
		return body
	}
	var merged []segment
	fill, end := 0, uint64(0)
	for _, s := range segments {
		gap := uint64(s.offset) - end
		if len(merged) > 0 && gap <= mergeGap && fill+int(gap) <= mergeFill {
			last := &merged[len(merged)-1]
			last.data = append(last.data, make([]byte, gap)...)
			last.data = append(last.data, s.data...)
			fill += int(gap)
		} else {
			// Clipped: appending to it must not write over the module.
			merged = append(merged, segment{s.offset, s.data[:len(s.data):len(s.data)]})
		}
		end = uint64(s.offset) + uint64(len(s.data))
	}
	return appendSegments(make([]byte, 0, len(body)+fill), merged)
}

// parseSegments returns the segments of a data section by their places; false
// when they are not all active at constant places, or overlap.
func parseSegments(b []byte) (segments []segment, ok bool) {
	count, at, err := takeSize(b, 0)
	if err != nil {
		return nil, false
	}
	for range count {
		if len(b)-at < 2 || b[at] != activeFlag || b[at+1] != opI32Const {
			return nil, false
		}
		offset, n := takeInt32(b[at+2:])
		if n <= 0 || len(b) <= at+2+n || b[at+2+n] != opEnd {
			return nil, false
		}
		var size uint32
		if size, at, err = takeSize(b, at+2+n+1); err != nil || uint64(len(b)-at) < uint64(size) {
			return nil, false
		}
		segments = append(segments, segment{uint32(offset), b[at : at+int(size)]})
		at += int(size)
	}
	slices.SortStableFunc(segments, func(a, b segment) int { return cmp.Compare(a.offset, b.offset) })
	end := uint64(0)
	for _, s := range segments {
		if uint64(s.offset) < end {
			return nil, false
		}
		end = uint64(s.offset) + uint64(len(s.data))
	}
	return segments, at == len(b)
}

func appendSegments(b []byte, segments []segment) []byte {
	b = binary.AppendUvarint(b, uint64(len(segments)))
	for _, s := range segments {
		b = append(b, activeFlag, opI32Const)
		b = appendInt32(b, int32(s.offset))
		b = append(b, opEnd)
		b = binary.AppendUvarint(b, uint64(len(s.data)))
		b = append(b, s.data...)
	}
	return b
}

// takeInt32 reads a signed number of at most 32 bits; n is 0 when there is none.
func takeInt32(b []byte) (v int32, n int) {
	const lastShift = 28
	var bits int64
	for shift := 0; shift <= lastShift && n < len(b); shift += 7 {
		c := b[n]
		n++
		bits |= int64(c&0x7f) << shift
		if c&0x80 != 0 {
			continue
		}
		if c&0x40 != 0 {
			bits |= -1 << (shift + 7)
		}
		if bits != int64(int32(bits)) {
			return 0, 0
		}
		return int32(bits), n
	}
	return 0, 0
}

func appendInt32(b []byte, v int32) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if (v == 0 && c&0x40 == 0) || (v == -1 && c&0x40 != 0) {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
