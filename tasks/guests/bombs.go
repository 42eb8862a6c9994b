package guests

import (
	"encoding/binary"
	"slices"
)

// wasmHead is the magic number and the version.
var wasmHead = []byte("\x00asm\x01\x00\x00\x00")

func uleb(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }

func section(id byte, body ...byte) []byte { return slices.Concat([]byte{id}, uleb(len(body)), body) }

// command is a module whose only function, without arguments, is _start. More
// sections go between its functions and its exports.
func command(code []byte, more ...[]byte) []byte {
	return slices.Concat(wasmHead,
		section(1, 1, 0x60, 0, 0),
		section(3, 1, 0),
		slices.Concat(more...),
		section(7, slices.Concat([]byte{1, 6}, []byte("_start"), []byte{0, 0})...),
		section(10, slices.Concat([]byte{1}, uleb(len(code)), code)...))
}

// CompileBomb returns a small module that is hard to compile: one function with
// so many variables that are all alive across so many loops.
func CompileBomb(locals, loops int) []byte {
	code := slices.Concat(uleb(1), uleb(locals), []byte{0x7e})
	for i := range loops {
		code = slices.Concat(code, []byte{0x03, 0x40}, // loop
			[]byte{0x20}, uleb(i%locals), []byte{0x42, 0x01, 0x7c, 0x21}, uleb((i*7+1)%locals)) // local = local + 1
	}
	for i := range loops {
		code = slices.Concat(code, []byte{0x20}, uleb(i%locals), []byte{0xa7, 0x0d, 0x00, 0x0b}) // br_if, end
	}
	return command(append(code, 0x0b))
}

// TableBomb returns a module that begins with so many table entries, which are
// memory that is no linear memory.
func TableBomb(entries int) []byte {
	return command([]byte{0, 0x0b}, section(4, slices.Concat([]byte{1, 0x70, 0}, uleb(entries))...))
}

// StartLoop returns a module that loops before its _start, in what the engine
// calls while it sets the module up.
func StartLoop() []byte {
	return slices.Concat(wasmHead,
		section(1, 1, 0x60, 0, 0),
		section(3, 2, 0, 0),
		section(7, slices.Concat([]byte{1, 6}, []byte("_start"), []byte{0, 0})...),
		section(8, 1),
		section(10, 2, 2, 0, 0x0b, 7, 0, 0x03, 0x40, 0x0c, 0, 0x0b, 0x0b))
}
