package sandbox

import (
	"encoding/binary"
	"math"
	"sort"
)

// made is a float of arithmetic that an instruction leaves on the stack.
type made struct {
	lanes lanes
	end   int  // of the instruction
	seen  bool // its bits may be looked at
}

// floatScan follows the instructions of one function and finds which floats of
// its arithmetic are looked at: all but those that go into variables that hold
// nothing else, into further arithmetic or a comparison, without a branch on
// the way.
type floatScan struct {
	code   []byte
	params uint32
	locals []localGroup
	made   []made
	stack  []int           // on top of the operand stack: index into made, notFloat or number
	mixed  map[uint32]bool // variables that may hold floats which only were moved
	lazy   bool            // variables are followed
}

// localGroup is local variables of one type: those before end that are in no
// earlier group.
type localGroup struct {
	end       uint64
	valueType byte
}

const (
	notFloat = -1 // or a float whose bits must stay
	number   = -2 // a float, and no NaN

	// scansMost is how often a function is scanned until no further variable
	// is found to be mixed. Above that none is followed.
	scansMost = 8
)

// follow scans the code until it is known which variables are mixed. At first
// none is.
func (s *floatScan) follow() error {
	s.mixed, s.lazy = map[uint32]bool{}, true
	for range scansMost {
		known := len(s.mixed)
		if err := s.run(); err != nil || len(s.mixed) == known {
			return err
		}
	}
	s.lazy = false
	return s.run()
}

// variable returns what a local variable holds if it holds nothing but floats
// of arithmetic, else noFloat.
func (s *floatScan) variable(index uint32) lanes {
	if index < s.params || s.mixed[index] {
		return noFloat
	}
	i := sort.Search(len(s.locals), func(i int) bool { return s.locals[i].end > uint64(index) })
	switch {
	case i == len(s.locals):
		return noFloat
	case s.locals[i].valueType == typeF32:
		return laneF32
	case s.locals[i].valueType == typeF64:
		return laneF64
	}
	return noFloat
}

// effect is what an instruction does with the operand stack.
type effect struct {
	takes, leaves int
	blind         bool // it does not see the bits of NaNs that it takes
	makes         lanes
	ends          bool // of the straight piece of code: all that is there may be seen
}

// run scans the code to its end. Code that breaks the rules of the stack is
// left for the engine to refuse; an instruction that is not known is refused.
func (s *floatScan) run() error {
	s.made, s.stack = s.made[:0], s.stack[:0]
	for at := 0; at < len(s.code); {
		op := s.code[at]
		e, next, err := decode(s.code, at)
		if err != nil {
			return err
		}
		if s.lazy && s.passes(op, at, next) {
			at = next
			continue
		}
		at = next
		if e.ends {
			for _, m := range s.stack {
				s.see(m)
			}
			s.stack = s.stack[:0]
			continue
		}
		for range e.takes {
			if n := len(s.stack); n > 0 {
				if m := s.stack[n-1]; !e.blind || s.otherLanes(m, e.makes) {
					s.see(m)
				}
				s.stack = s.stack[:n-1]
			}
		}
		for range e.leaves {
			if e.makes == noFloat {
				s.stack = append(s.stack, notFloat)
			} else {
				s.push(e.makes, at)
			}
		}
	}
	for _, m := range s.stack {
		s.see(m)
	}
	return nil
}

// passes handles the instructions that hand a float on as it is, but for its
// sign, and reports whether op was one.
func (s *floatScan) passes(op byte, at, next int) bool {
	switch op {
	case opLocalGet, opLocalSet, opLocalTee:
		index, _, err := takeSize(s.code, at+1)
		if err != nil {
			return false
		}
		l := s.variable(index)
		if l == noFloat {
			return false
		}
		return s.passesVariable(op, index, l, next)
	case opSelect:
		return s.passesSelect(next)
	case 0x43: // f32.const
		f := math.Float32frombits(binary.LittleEndian.Uint32(s.code[at+1:]))
		return s.pushNumber(f == f)
	case 0x44: // f64.const
		f := math.Float64frombits(binary.LittleEndian.Uint64(s.code[at+1:]))
		return s.pushNumber(f == f)
	case 0x8B, 0x8C, 0x99, 0x9A: // abs, neg
		// Of a NaN of arithmetic the sign is open already; of any other it
		// must be what the program expects.
		if m := s.top(0); m >= 0 {
			s.stack = s.stack[:len(s.stack)-1]
			s.push(s.made[m].lanes, next)
			return true
		}
	}
	return false
}

// passesVariable handles a variable that holds floats of arithmetic, as long as
// it does.
func (s *floatScan) passesVariable(op byte, index uint32, l lanes, next int) bool {
	if op == opLocalGet {
		s.push(l, next)
		return true
	}
	if s.top(0) == notFloat {
		s.mixed[index] = true
		return false
	}
	if op == opLocalSet {
		s.stack = s.stack[:len(s.stack)-1]
	}
	return true
}

// passesSelect handles a choice between floats of arithmetic.
func (s *floatScan) passesSelect(next int) bool {
	a, b := s.top(1), s.top(2)
	if len(s.stack) < 3 || a == notFloat || b == notFloat {
		return false
	}
	kept := number
	if m := max(a, b); m >= 0 {
		if s.made[m].lanes.valueType() == typeV128 {
			return false
		}
		kept = m
	}
	s.stack = s.stack[:len(s.stack)-3]
	if kept == number {
		return s.pushNumber(true)
	}
	s.push(s.made[kept].lanes, next)
	return true
}

func (s *floatScan) pushNumber(ok bool) bool {
	if ok {
		s.stack = append(s.stack, number)
	}
	return ok
}

// top returns what is so far below the top of the stack.
func (s *floatScan) top(below int) int {
	if i := len(s.stack) - 1 - below; i >= 0 {
		return s.stack[i]
	}
	return notFloat
}

func (s *floatScan) push(l lanes, end int) {
	s.stack = append(s.stack, len(s.made))
	s.made = append(s.made, made{lanes: l, end: end})
}

// otherLanes reports whether vector arithmetic takes a vector apart in another
// way than it was made.
func (s *floatScan) otherLanes(m int, taker lanes) bool {
	return m >= 0 && s.made[m].lanes.valueType() == typeV128 && s.made[m].lanes != taker
}

func (s *floatScan) see(m int) {
	if m >= 0 {
		s.made[m].seen = true
	}
}

// decode returns what the instruction at b[at:] does and where the next one is.
func decode(b []byte, at int) (effect, int, error) {
	op := b[at]
	at++
	switch op {
	case 0xFC:
		return decodeMore(b, at)
	case simd:
		return decodeSIMD(b, at)
	}
	e, immediate := effectOf(op)
	at, err := immediate.skip(b, at)
	return e, at, err
}

// immediate is what follows an opcode.
type immediate byte

const (
	immUnknown immediate = iota // no such opcode
	immNone
	immByte
	immNumber
	immTwoNumbers
	immBlock // a block type: a signed number
	immTable // of labels
	immTypes // a list of value types
	imm4
	imm8
	imm16
	immMemoryLane // two numbers and a byte
)

func (i immediate) skip(b []byte, at int) (int, error) {
	fixed := 0
	numbers := 0
	switch i {
	case immUnknown:
		return 0, errWasm
	case immByte:
		fixed = 1
	case imm4:
		fixed = 4
	case imm8:
		fixed = 8
	case imm16:
		fixed = 16
	case immNumber, immBlock:
		numbers = 1
	case immTwoNumbers:
		numbers = 2
	case immMemoryLane:
		numbers, fixed = 2, 1
	case immTable:
		n, next, err := takeSize(b, at)
		if err != nil || uint64(n) > uint64(len(b)) {
			return 0, errWasm
		}
		at, numbers = next, int(n)+1
	case immTypes:
		n, next, err := takeSize(b, at)
		if err != nil || uint64(n) > uint64(len(b)) {
			return 0, errWasm
		}
		at, fixed = next, int(n)
	}
	for range numbers {
		next, err := skipNumber(b, at)
		if err != nil {
			return 0, err
		}
		at = next
	}
	if len(b)-at < fixed {
		return 0, errWasm
	}
	return at + fixed, nil
}

// maxNumberBytes is how long a number of 64 bits may be.
const maxNumberBytes = 10

// skipNumber returns where the number at b[at:] ends, signed or not.
func skipNumber(b []byte, at int) (int, error) {
	for i := at; i < len(b) && i < at+maxNumberBytes; i++ {
		if b[i] < 0x80 {
			return i + 1, nil
		}
	}
	return 0, errWasm
}

// Shapes of instructions.
var (
	straight = effect{}
	branches = effect{ends: true}
	constant = effect{leaves: 1}
	unary    = effect{takes: 1, leaves: 1}
	binary2  = effect{takes: 2, leaves: 1}
	stores   = effect{takes: 2}
	compares = effect{takes: 2, leaves: 1, blind: true}
	truncate = effect{takes: 1, leaves: 1, blind: true}
	three    = effect{takes: 3}
)

// float1 and float2 are arithmetic with one and two operands.
func float1(l lanes) effect { return effect{takes: 1, leaves: 1, blind: true, makes: l} }
func float2(l lanes) effect { return effect{takes: 2, leaves: 1, blind: true, makes: l} }

// effectOf knows the instructions of one byte.
func effectOf(op byte) (effect, immediate) {
	switch {
	case op == 0x00, op == 0x05, op == 0x0B, op == 0x0F: // unreachable, else, end, return
		return branches, immNone
	case op == 0x01: // nop
		return straight, immNone
	case op >= 0x02 && op <= 0x04: // block, loop, if
		return branches, immBlock
	case op == 0x0C, op == 0x0D: // br, br_if
		return branches, immNumber
	case op == 0x0E: // br_table
		return branches, immTable
	case op == 0x10: // call
		return branches, immNumber
	case op == 0x11: // call_indirect
		return branches, immTwoNumbers
	case op == 0x1A: // drop
		return effect{takes: 1, blind: true}, immNone
	case op == opSelect:
		return effect{takes: 3, leaves: 1}, immNone
	case op == 0x1C: // select with types
		return effect{takes: 3, leaves: 1}, immTypes
	case op == opLocalGet, op == 0x23: // global.get
		return constant, immNumber
	case op == 0x21, op == 0x24: // local.set, global.set
		return effect{takes: 1}, immNumber
	case op == opLocalTee, op == 0x25: // table.get
		return unary, immNumber
	case op == 0x26: // table.set
		return stores, immNumber
	case op >= 0x28 && op <= 0x35: // loads
		return unary, immTwoNumbers
	case op >= 0x36 && op <= 0x3E: // stores
		return stores, immTwoNumbers
	case op == 0x3F: // memory.size
		return constant, immByte
	case op == 0x40: // memory.grow
		return unary, immByte
	case op == 0x41, op == 0x42: // i32.const, i64.const
		return constant, immNumber
	case op == 0x43: // f32.const
		return constant, imm4
	case op == 0x44: // f64.const
		return constant, imm8
	case op == 0xD0: // ref.null
		return constant, immByte
	case op == 0xD1: // ref.is_null
		return unary, immNone
	case op == 0xD2: // ref.func
		return constant, immNumber
	}
	return numeric(op), knownNumeric(op)
}

func knownNumeric(op byte) immediate {
	if op >= 0x45 && op <= 0xC4 {
		return immNone
	}
	return immUnknown
}

// numeric knows the instructions without immediates that calculate.
func numeric(op byte) effect {
	switch {
	case op == 0x45, op == 0x50: // eqz
		return unary
	case op <= 0x5A: // comparisons of integers
		return binary2
	case op <= 0x66: // of floats
		return compares
	case op <= 0x69, op >= 0x79 && op <= 0x7B: // clz, ctz, popcnt
		return unary
	case op <= 0x8A: // arithmetic of integers
		return binary2
	case op == 0x8B, op == 0x8C, op == 0x99, op == 0x9A: // abs, neg: they see the sign
		return unary
	case op == 0x98, op == 0xA6: // copysign
		return binary2
	case op <= 0x91: // f32 ceil to sqrt
		return float1(laneF32)
	case op <= 0x97: // f32 add to max
		return float2(laneF32)
	case op <= 0x9F: // f64 ceil to sqrt
		return float1(laneF64)
	case op <= 0xA5: // f64 add to max
		return float2(laneF64)
	case op >= 0xA8 && op <= 0xAB, op >= 0xAE && op <= 0xB1: // truncation to integers
		return truncate
	case op == 0xB6: // f32.demote_f64
		return float1(laneF32)
	case op == 0xBB: // f64.promote_f32
		return float1(laneF64)
	}
	return unary // conversions and reinterpretations
}

// decodeMore decodes what follows 0xFC.
func decodeMore(b []byte, at int) (effect, int, error) {
	op, at, err := takeSize(b, at)
	if err != nil {
		return effect{}, 0, err
	}
	e, imm := effect{}, immUnknown
	switch {
	case op <= 7: // saturating truncation
		e, imm = truncate, immNone
	case op == 8, op == 10, op == 12, op == 14: // memory.init, memory.copy, table.init, table.copy
		e, imm = three, immTwoNumbers
	case op == 9, op == 13: // data.drop, elem.drop
		e, imm = straight, immNumber
	case op == 11, op == 17: // memory.fill, table.fill
		e, imm = three, immNumber
	case op == 15: // table.grow
		e, imm = binary2, immNumber
	case op == 16: // table.size
		e, imm = constant, immNumber
	}
	at, err = imm.skip(b, at)
	return e, at, err
}

// floatLanes are the vector instructions whose NaNs depend on the processor,
// with the number of operands.
var floatLanes = map[uint32]effect{
	0x67: float1(laneF32x4), 0x68: float1(laneF32x4), 0x69: float1(laneF32x4), 0x6A: float1(laneF32x4), // ceil, floor, trunc, nearest
	0xE3: float1(laneF32x4),                                                                            // sqrt
	0xE4: float2(laneF32x4), 0xE5: float2(laneF32x4), 0xE6: float2(laneF32x4), 0xE7: float2(laneF32x4), // add, sub, mul, div
	0xE8: float2(laneF32x4), 0xE9: float2(laneF32x4), // min, max
	0x74: float1(laneF64x2), 0x75: float1(laneF64x2), 0x7A: float1(laneF64x2), 0x94: float1(laneF64x2),
	0xEF: float1(laneF64x2),
	0xF0: float2(laneF64x2), 0xF1: float2(laneF64x2), 0xF2: float2(laneF64x2), 0xF3: float2(laneF64x2),
	0xF4: float2(laneF64x2), 0xF5: float2(laneF64x2),
	0x5E: float1(laneF32x4), // demote
	0x5F: float1(laneF64x2), // promote
}

// decodeSIMD decodes what follows 0xFD. All instructions but the arithmetic of
// floats end a straight piece: what they do with the stack need not be known,
// nor whether they look at lanes of another width.
func decodeSIMD(b []byte, at int) (effect, int, error) {
	op, at, err := takeSize(b, at)
	if err != nil {
		return effect{}, 0, err
	}
	e, known := floatLanes[op]
	if !known {
		e = branches
	}
	imm := immNone
	switch {
	case op <= 11, op == 92, op == 93: // loads and a store
		imm = immTwoNumbers
	case op == 12, op == 13: // v128.const, i8x16.shuffle
		imm = imm16
	case op >= 21 && op <= 34: // extract_lane, replace_lane
		imm = immByte
	case op >= 84 && op <= 91: // loads and stores of a lane
		imm = immMemoryLane
	case op > 0xFF:
		imm = immUnknown
	}
	at, err = imm.skip(b, at)
	return e, at, err
}
