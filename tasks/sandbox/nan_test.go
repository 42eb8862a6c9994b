package sandbox

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"gotong/tasks"
)

// TestNaNs: arithmetic makes the canonical NaN whatever the processor makes;
// NaNs that are moved keep their bits.
func TestNaNs(t *testing.T) {
	o := run(t, start(t, "nan", nil))
	wantDone(t, o)
	out := string(o.Stdout)
	if !strings.HasSuffix(out, "0/0 is nan, 7ff8000000000000\n") {
		t.Errorf("arithmetic made another NaN:\n%s", out)
	}
	if strings.Contains(out, "changed") {
		t.Errorf("moving changed bits:\n%s", out)
	}
	var bits uint64 = 0xCBF29CE484222325
	for _, b := range []uint64{
		0x0000000000000000, 0x8000000000000000, 0x3FF0000000000000, 0xBFF8000000000000, 0x7FF0000000000000,
		0xFFF0000000000000, 0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8123456789ABC, 0xFFF8CBA987654321,
		0x7FF0000000000001, 0xFFF4000000000002, 0x0000000000000001, 0x7FEFFFFFFFFFFFFF,
	} {
		for _, c := range binary.LittleEndian.AppendUint64(nil, b) {
			bits = (bits ^ uint64(c)) * 0x100000001B3
		}
	}
	if want := fmt.Sprintf("copied %016x", bits); !strings.Contains(out, want) {
		t.Errorf("no line %q in\n%s", want, out)
	}
}

// TestCodeWithoutFloatsIsLeftAlone: only what calculates with floats pays.
func TestCodeWithoutFloatsIsLeftAlone(t *testing.T) {
	code := func(module []byte) []byte {
		sections, err := splitSections(module[len(wasmHead):])
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sections {
			if s.id == sectionCode {
				return s.body
			}
		}
		return nil
	}
	for _, name := range []string{"noop", "trap"} {
		module := guestModule(t, name)
		written, err := rewrite(module)
		if err != nil || !bytes.Equal(code(written), code(module)) {
			t.Errorf("the code of %s changed: %v", name, err)
		}
	}
}

func TestHostileCodeIsRefused(t *testing.T) {
	types := []byte{1, 0x60, 0, 0}
	functions := []byte{1, 0}
	body := func(code ...byte) []byte { return append([]byte{1, byte(len(code))}, code...) }
	for name, code := range map[string][]byte{
		"no function":        {0},
		"longer than it is":  {1, 9, 0, 0x0B},
		"unknown":            body(0, 0xFF, 0x0B),
		"unknown vector":     body(0, simd, 0x80, 0x02, 0x0B),
		"cut constant":       body(0, 0x44, 1, 2),
		"endless number":     body(0, 0x41, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00, 0x0B),
		"long branch table":  body(0, 0x0E, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0x0B),
		"locals without end": body(3, 1, 0x7C),
	} {
		if out, err := canonicalNaNs(types, functions, code); err == nil {
			t.Errorf("%s: became %x", name, out)
		}
	}
	// Floats without end: the rewritten code is bounded.
	large := append([]byte{0x80, 0x80, 0x80, 0x20}, bytes.Repeat([]byte{0xA0, 0x0F}, tasks.MaxModuleBytes/2)...)
	large = append(binary.AppendUvarint([]byte{1}, uint64(len(large))), large...)
	if _, err := canonicalNaNs(types, functions, large); err == nil {
		t.Error("code of any size is rewritten")
	}
}
