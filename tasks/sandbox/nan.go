package sandbox

import (
	"encoding/binary"
	"fmt"

	"gotong/tasks"
)

// WebAssembly leaves the sign and the payload of a NaN that arithmetic makes
// open, and the engine leaves them to the processor: 0/0 has its sign set on
// amd64 and not on arm64, which printf shows. So that a result does not depend
// on the processor, every arithmetic instruction whose NaN could be looked at
// is followed by one that replaces any NaN by the canonical one. The standard
// allows an engine to do just that.
//
// A NaN whose bits nobody sees is left alone: one that a function only keeps in
// its variables, calculates with and compares. NaNs that a program loads or
// makes of integers, and only moves, keep their bits, which are the same
// everywhere.

// lanes says what an instruction calculates: no float, or floats of a type.
type lanes byte

const (
	noFloat lanes = iota
	laneF32
	laneF64
	laneF32x4
	laneF64x2
)

// Value types and instructions that the rewritten code uses.
const (
	typeF32  = 0x7D
	typeF64  = 0x7C
	typeV128 = 0x7B

	opIf       = 0x04
	noResult   = 0x40
	opSelect   = 0x1B
	opLocalGet = 0x20
	opLocalSet = 0x21
	opLocalTee = 0x22
	simd       = 0xFD
)

// canonicalNaN pushes the canonical NaN.
var canonicalNaN = [...][]byte{
	laneF32:   {0x43, 0, 0, 0xC0, 0x7F},
	laneF64:   {0x44, 0, 0, 0, 0, 0, 0, 0xF8, 0x7F},
	laneF32x4: {simd, 0x0C, 0, 0, 0xC0, 0x7F, 0, 0, 0xC0, 0x7F, 0, 0, 0xC0, 0x7F, 0, 0, 0xC0, 0x7F},
	laneF64x2: {simd, 0x0C, 0, 0, 0, 0, 0, 0, 0xF8, 0x7F, 0, 0, 0, 0, 0, 0, 0xF8, 0x7F},
}

// notEqual compares single floats: a NaN does not equal itself.
var notEqual = [...]byte{laneF32: 0x5C, laneF64: 0x62}

// keepNumbers takes a vector, that of canonical NaNs and the vector twice, and
// leaves the lanes that equal themselves.
var keepNumbers = [...][]byte{
	laneF32x4: {simd, 0x41, simd, 0x52}, // f32x4.eq, v128.bitselect
	laneF64x2: {simd, 0x47, simd, 0x52}, // f64x2.eq
}

// maxRewrittenCode bounds the code section with the instructions added.
const maxRewrittenCode = 4 * tasks.MaxModuleBytes

// canonicalNaNs returns the body of a code section in which no NaN depends on
// the processor. It needs the bodies of the type and the function section.
func canonicalNaNs(types, functions, code []byte) ([]byte, error) {
	params, err := parameterCounts(types, functions)
	if err != nil {
		return nil, err
	}
	count, at, err := takeSize(code, 0)
	if err != nil || int(count) != len(params) {
		return nil, errWasm
	}
	out := binary.AppendUvarint(make([]byte, 0, len(code)+len(code)/8), uint64(count))
	for i := range params {
		size, body, err := takeSize(code, at)
		if err != nil || uint64(len(code)-body) < uint64(size) {
			return nil, errWasm
		}
		at = body + int(size)
		if out, err = appendCanonical(out, code[body:at], params[i]); err != nil {
			return nil, fmt.Errorf("function %d: %w", i, err)
		}
		if len(out) > maxRewrittenCode {
			return nil, fmt.Errorf("its floating-point code is larger than %d bytes", maxRewrittenCode)
		}
	}
	if at != len(code) {
		return nil, errWasm
	}
	return out, nil
}

// parameterCounts returns how many parameters each function of the code section
// has.
func parameterCounts(types, functions []byte) ([]uint32, error) {
	count, at, err := takeSize(types, 0)
	if err != nil {
		return nil, err
	}
	var ofType []uint32
	for range count {
		if at >= len(types) || types[at] != 0x60 {
			return nil, errWasm
		}
		at++
		for side := range 2 {
			n, next, err := takeSize(types, at)
			if err != nil || uint64(len(types)-next) < uint64(n) {
				return nil, errWasm
			}
			if at = next + int(n); side == 0 {
				ofType = append(ofType, n)
			}
		}
	}
	count, at, err = takeSize(functions, 0)
	if err != nil {
		return nil, err
	}
	var params []uint32
	for range count {
		var index uint32
		if index, at, err = takeSize(functions, at); err != nil || uint64(index) >= uint64(len(ofType)) {
			return nil, errWasm
		}
		params = append(params, ofType[index])
	}
	return params, nil
}

// appendCanonical appends the body of one function, with its size.
func appendCanonical(out, body []byte, params uint32) ([]byte, error) {
	groups, at, err := takeSize(body, 0)
	if err != nil {
		return nil, err
	}
	locals, start := uint64(params), at
	scan := floatScan{params: params}
	for range groups {
		var n uint32
		if n, start, err = takeSize(body, start); err != nil || start >= len(body) {
			return nil, errWasm
		}
		locals += uint64(n)
		scan.locals = append(scan.locals, localGroup{locals, body[start]})
		start++ // its type
	}
	scan.code = body[start:]
	if err := scan.follow(); err != nil {
		return nil, err
	}
	// One more local for each type of the values that are looked at.
	own := map[byte]uint64{}
	var declared []byte
	for _, m := range scan.made {
		if t := m.lanes.valueType(); m.seen && own[t] == 0 {
			declared = append(declared, 1, t)
			own[t] = locals + uint64(len(declared)/2)
		}
	}
	if len(declared) == 0 {
		out = binary.AppendUvarint(out, uint64(len(body)))
		return append(out, body...), nil
	}
	w := binary.AppendUvarint(make([]byte, 0, len(body)*2), uint64(groups)+uint64(len(own)))
	w = append(w, body[at:start]...)
	w = append(w, declared...)
	from := 0
	for _, m := range scan.made {
		if m.seen {
			w = append(w, scan.code[from:m.end]...)
			w = m.lanes.appendCanonical(w, own[m.lanes.valueType()]-1)
			from = m.end
		}
	}
	w = append(w, scan.code[from:]...)
	out = binary.AppendUvarint(out, uint64(len(w)))
	return append(out, w...), nil
}

func (l lanes) valueType() byte {
	switch l {
	case laneF32:
		return typeF32
	case laneF64:
		return typeF64
	}
	return typeV128
}

// appendCanonical appends instructions that replace a NaN on the stack, or the
// lanes that are one. They use a local. A branch that is never taken is the
// fastest for single floats.
func (l lanes) appendCanonical(w []byte, local uint64) []byte {
	w = binary.AppendUvarint(append(w, opLocalTee), local)
	if l == laneF32 || l == laneF64 {
		w = binary.AppendUvarint(append(w, opLocalGet), local)
		w = append(w, notEqual[l], opIf, noResult)
		w = append(w, canonicalNaN[l]...)
		w = append(binary.AppendUvarint(append(w, opLocalSet), local), opEnd)
		return binary.AppendUvarint(append(w, opLocalGet), local)
	}
	w = append(w, canonicalNaN[l]...)
	w = binary.AppendUvarint(append(w, opLocalGet), local)
	w = binary.AppendUvarint(append(w, opLocalGet), local)
	return append(w, keepNumbers[l]...)
}
