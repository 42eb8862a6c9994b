package sandbox

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// image is what memory holds after the segments were copied to it; false when
// one does not fit.
func image(segments []segment, size int) ([]byte, bool) {
	memory := make([]byte, size)
	for _, s := range segments {
		if int(s.offset)+len(s.data) > size {
			return nil, false
		}
		copy(memory[s.offset:], s.data)
	}
	return memory, true
}

// TestMergeDataKeepsMemory draws segments in any order, with and without
// overlaps, and compares the memory that a guest would find.
func TestMergeDataKeepsMemory(t *testing.T) {
	merges, unchanged := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		const size = 8192
		segments := make([]segment, rapid.IntRange(0, 12).Draw(t, "segments"))
		for i := range segments {
			segments[i] = segment{
				uint32(rapid.IntRange(0, size+10).Draw(t, "offset")),
				rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "data"),
			}
		}
		body := appendSegments(nil, segments)
		merged := mergeData(body)
		if bytes.Equal(merged, body) {
			unchanged++
			return
		}
		after, ok := parseSegments(merged)
		if !ok || len(after) > len(segments) {
			t.Fatalf("%d segments became %d, %t", len(segments), len(after), ok)
		}
		merges++
		want, wantFits := image(segments, size)
		got, gotFits := image(after, size)
		if wantFits != gotFits || !bytes.Equal(want, got) {
			t.Fatalf("memory differs (fits: %t, want %t)", gotFits, wantFits)
		}
	})
	if merges == 0 || unchanged == 0 {
		t.Errorf("%d sections were merged and %d left as they are", merges, unchanged)
	}
}

func TestMergeDataAsCompilersWrite(t *testing.T) {
	word := []byte{1, 2, 3, 4, 5, 6, 7}
	var many []segment
	for i := range 10_000 {
		many = append(many, segment{uint32(1<<20 + 16*i), word})
	}
	low := segment{16, []byte("lower than what came before")}
	merged, ok := parseSegments(mergeData(appendSegments(nil, append(many, low))))
	if !ok || len(merged) != 2 || merged[0].offset != 16 || len(merged[1].data) != 16*9999+len(word) {
		t.Errorf("%d segments, %t", len(merged), ok)
	}
	for name, section := range map[string][]segment{
		"overlap":  {{8, word}, {10, word}},
		"far away": {{8, word}, {8 + 7 + mergeGap + 1, word}},
	} {
		body := appendSegments(nil, section)
		if got := mergeData(body); !bytes.Equal(got, body) {
			t.Errorf("%s: %x, want %x", name, got, body)
		}
	}
	for name, body := range map[string][]byte{
		"passive":       {1, 1, 2, 'h', 'i'},
		"other memory":  {1, 2, 1, 0x41, 0, 0x0b, 1, 'x'},
		"from a global": {1, 0, 0x23, 0, 0x0b, 1, 'x'},
		"cut":           {1, 0, 0x41, 0, 0x0b, 9, 'x'},
		"left over":     {0, 7},
		"long number":   {1, 0, 0x41, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x0b, 0},
		"empty":         {},
	} {
		if got := mergeData(slices.Clone(body)); !bytes.Equal(got, body) {
			t.Errorf("%s: %x, want %x", name, got, body)
		}
	}
}

// TestMergeDataIsBounded: zeros that are written out must not make a small
// module large.
func TestMergeDataIsBounded(t *testing.T) {
	var sparse []segment
	for i := range 4 * mergeFill / mergeGap {
		sparse = append(sparse, segment{uint32(i * (mergeGap + 1)), []byte{1}})
	}
	body := appendSegments(nil, sparse)
	merged := mergeData(body)
	if len(merged) > len(body)+mergeFill {
		t.Errorf("%d bytes became %d", len(body), len(merged))
	}
	if segments, ok := parseSegments(merged); !ok || len(segments) >= len(sparse) {
		t.Errorf("%d segments became %d", len(sparse), len(segments))
	}
}

func TestInt32(t *testing.T) {
	for _, v := range []int32{0, 1, -1, 63, 64, -64, -65, 1 << 20, -1 << 31, 1<<31 - 1} {
		if got, n := takeInt32(append(appendInt32(nil, v), 0xff)); got != v || n == 0 {
			t.Errorf("%d came back as %d (%d bytes)", v, got, n)
		}
	}
	for _, b := range [][]byte{nil, {0x80}, {0xff, 0xff, 0xff, 0xff, 0x0f}, {0x80, 0x80, 0x80, 0x80, 0x80, 0}} {
		if _, n := takeInt32(b); n != 0 {
			t.Errorf("%x is taken for a number", b)
		}
	}
}

// TestNumberedSegmentsStay: code may refer to them.
func TestNumberedSegmentsStay(t *testing.T) {
	data := appendSegments(nil, []segment{{0, []byte{1}}, {2, []byte{1}}})
	module := slices.Concat(wasmHead, []byte{sectionDataCount, 1, 2, sectionData, byte(len(data))}, data)
	if got, err := rewrite(module); err != nil || !bytes.Equal(got, module) {
		t.Errorf("%x, %v", got, err)
	}
	named := slices.Concat(wasmHead, []byte{sectionCustom, 2, 1, 'n'}, module[len(wasmHead):])
	if got, err := rewrite(named); err != nil || !bytes.Equal(got, module) {
		t.Errorf("with a name: %x, %v", got, err)
	}
}
