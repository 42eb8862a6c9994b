package sandbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
)

// Numbers of the sections of a module that rewrite looks at.
const (
	sectionCustom    = 0
	sectionType      = 1
	sectionFunction  = 3
	sectionTable     = 4
	sectionCode      = 10
	sectionData      = 11
	sectionDataCount = 12
)

// wasmHead is the magic number and the version.
var wasmHead = []byte("\x00asm\x01\x00\x00\x00")

var errWasm = errors.New("malformed module")

// rewriteVersion counts the changes of rewrite and of what compile asks of the
// engine: code compiled under another is not used.
const rewriteVersion = 2

// section is one section of a module.
type section struct {
	id   byte
	body []byte
}

// rewrite returns module as it is compiled: with a maximum for every table (see
// limitTables), with NaNs that do not depend on the processor (see
// canonicalNaNs), with fewer data segments (see mergeData), and without custom
// sections, which hold names and what debuggers want. A guest computes the same.
// A module whose sections cannot be followed is refused; what else is malformed
// is left for the engine to refuse.
func rewrite(module []byte) ([]byte, error) {
	if !bytes.HasPrefix(module, wasmHead) {
		return module, nil
	}
	sections, err := splitSections(module[len(wasmHead):])
	if err != nil {
		return nil, err
	}
	counted := false // segments have numbers that code refers to
	for _, s := range sections {
		counted = counted || s.id == sectionDataCount
	}
	out := append(make([]byte, 0, len(module)), wasmHead...)
	var types, functions []byte
	for _, s := range sections {
		switch {
		case s.id == sectionCustom:
			continue
		case s.id == sectionType:
			types = s.body
		case s.id == sectionFunction:
			functions = s.body
		case s.id == sectionCode:
			if s.body, err = canonicalNaNs(types, functions, s.body); err != nil {
				return nil, err
			}
		case s.id == sectionTable:
			if s.body, err = limitTables(s.body); err != nil {
				return nil, err
			}
		case s.id == sectionData && !counted:
			s.body = mergeData(s.body)
		}
		out = append(out, s.id)
		out = binary.AppendUvarint(out, uint64(len(s.body)))
		out = append(out, s.body...)
	}
	return out, nil
}

func splitSections(b []byte) ([]section, error) {
	var sections []section
	for at := 0; at < len(b); {
		size, body, err := takeSize(b, at+1)
		if err != nil {
			return nil, err
		}
		if uint64(len(b)-body) < uint64(size) {
			return nil, errWasm
		}
		sections = append(sections, section{b[at], b[body : body+int(size)]})
		at = body + int(size)
	}
	return sections, nil
}

// takeSize reads an unsigned number of at most 32 bits at b[at:].
func takeSize(b []byte, at int) (size uint32, next int, err error) {
	v, n := binary.Uvarint(b[at:])
	if n <= 0 || v > math.MaxUint32 {
		return 0, 0, errWasm
	}
	return uint32(v), at + n, nil
}
