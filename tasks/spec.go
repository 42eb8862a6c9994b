package tasks

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of a Spec, checked by Spec.Validate.
const (
	MaxModuleBytes = 64 << 20  // a module
	MaxArgs        = 1024      // arguments
	MaxArgBytes    = 128 << 10 // all arguments together
	MaxInputs      = 1 << 14   // input files of one task
	MaxInputNames  = 2 << 20   // their names together, with 64 bytes added for each
	MaxNameBytes   = 1024      // path of an input or output below /in or /out
	MaxPartBytes   = 255       // one part of such a path
)

// Runtime says what runs a task. The list is closed.
type Runtime string

// The runtimes.
const (
	// RuntimeWASI runs a WASI preview 1 module in the sandbox, on every system.
	// A Spec without a runtime means it.
	RuntimeWASI Runtime = "wasi"
	// RuntimeNative runs a Linux command, where the donor allowed that.
	RuntimeNative Runtime = "native"
)

// Valid reports whether r is in the list, or empty.
func (r Runtime) Valid() bool { return r == "" || r == RuntimeWASI || r == RuntimeNative }

// Spec says what a task runs. Two Specs with one ID give equal results.
type Spec struct {
	Runtime   Runtime   // empty: RuntimeWASI
	Module    ContentID // a WASI preview 1 module; zero for RuntimeNative
	Args      []string  // arguments after the program's name; of RuntimeNative with the program first
	Inputs    []Input   // files that appear read-only below /in
	Stdin     ContentID // what standard input gives; zero: it is empty
	StdinSize int64     // bytes
	Limits    Limits
}

// Native reports whether s is a Linux command.
func (s Spec) Native() bool { return s.Runtime == RuntimeNative }

// Input is one file below /in.
type Input struct {
	Name    string // slash-separated path below /in; see ValidName
	Content ContentID
	Size    int64 // bytes
}

// Validate reports every fault of s, joined. It does not apply defaults:
// Limits must be complete (see Limits.WithDefaults).
func (s Spec) Validate() error {
	var faults []error
	switch {
	case !s.Runtime.Valid():
		faults = append(faults, fmt.Errorf("unknown runtime %q", s.Runtime))
	case s.Native() && !s.Module.IsZero():
		faults = append(faults, errors.New("a native command with a module"))
	case s.Native() && len(s.Args) == 0:
		faults = append(faults, errors.New("no command"))
	case !s.Native() && s.Module.IsZero():
		faults = append(faults, errors.New("no module"))
	}
	if s.StdinSize < 0 || (s.Stdin.IsZero() && s.StdinSize != 0) {
		faults = append(faults, errors.New("standard input: no content"))
	}
	faults = append(faults, s.validateArgs(), s.validateInputs(), s.Limits.Validate())
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

func (s Spec) validateArgs() error {
	if len(s.Args) > MaxArgs {
		return fmt.Errorf("%d arguments, at most %d", len(s.Args), MaxArgs)
	}
	total := 0
	for i, arg := range s.Args {
		if strings.IndexByte(arg, 0) >= 0 {
			return fmt.Errorf("argument %d contains a NUL byte", i+1)
		}
		total += len(arg)
	}
	if total > MaxArgBytes {
		return fmt.Errorf("arguments of %d bytes, at most %d", total, MaxArgBytes)
	}
	return nil
}

func (s Spec) validateInputs() error {
	if len(s.Inputs) > MaxInputs {
		return fmt.Errorf("%d inputs, at most %d", len(s.Inputs), MaxInputs)
	}
	seen, names := make(map[string]bool, len(s.Inputs)), 0
	for _, in := range s.Inputs {
		if names += len(in.Name) + 64; names > MaxInputNames {
			return fmt.Errorf("names of inputs longer than %d bytes, with 64 added for each", MaxInputNames)
		}
		switch {
		case !ValidName(in.Name):
			return fmt.Errorf("bad input name %q", in.Name)
		case seen[in.Name]:
			return fmt.Errorf("two inputs named %q", in.Name)
		case in.Content.IsZero() || in.Size < 0:
			return fmt.Errorf("input %q: no content", in.Name)
		}
		seen[in.Name] = true
	}
	for name := range seen {
		for dir := parent(name); dir != ""; dir = parent(dir) {
			if seen[dir] {
				return fmt.Errorf("input %q lies below input %q", name, dir)
			}
		}
	}
	return nil
}

func parent(name string) string {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return ""
	}
	return name[:i]
}

// ValidName reports whether name may name a file below /in or /out: a
// slash-separated relative path in UTF-8 without "." and ".." parts, control
// characters, backslashes and colons, within MaxNameBytes and MaxPartBytes.
// Backslash and colon are refused because they separate and name drives on
// some systems where the file may end up.
func ValidName(name string) bool {
	if name == "." || len(name) > MaxNameBytes || !fs.ValidPath(name) || !utf8.ValidString(name) {
		return false
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r == '\\' || r == ':' || unicode.IsControl(r) }) {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > MaxPartBytes {
			return false
		}
	}
	return true
}

// fewInputs is up to how many inputs are looked through rather than put into a map.
const fewInputs = 32

// Contents returns the module, the inputs and the standard input, each once,
// module first.
func (s Spec) Contents() []ContentID {
	ids := make([]ContentID, 0, 2+len(s.Inputs))
	has := func(id ContentID) bool { return slices.Contains(ids, id) }
	if len(s.Inputs) > fewInputs {
		seen := make(map[ContentID]bool, len(s.Inputs))
		has = func(id ContentID) bool {
			had := seen[id]
			seen[id] = true
			return had
		}
	}
	add := func(id ContentID) {
		if !id.IsZero() && !has(id) {
			ids = append(ids, id)
		}
	}
	add(s.Module)
	for _, in := range s.Inputs {
		add(in.Content)
	}
	add(s.Stdin)
	return ids
}

// ID returns a hash of everything that determines the result: what Seed covers,
// the runtime and the limits.
func (s Spec) ID() [32]byte {
	seed, l := s.Seed(), s.Limits
	runtime := s.Runtime
	if runtime == "" {
		runtime = RuntimeWASI
	}
	buf := make([]byte, 0, 192)
	buf = append(buf, "gotong spec v1\x00"...)
	buf = appendString(buf, string(runtime))
	buf = append(buf, seed[:]...)
	for _, v := range []int64{l.MemoryBytes, int64(l.Wall), l.StdoutBytes, l.StderrBytes, l.OutputBytes, int64(l.OutputFiles)} {
		buf = binary.AppendVarint(buf, v)
	}
	return sha256.Sum256(buf)
}

// Seed returns the seed of the randomness that the task sees: a hash of
// module, arguments, inputs and standard input. So tasks that differ in an
// argument draw different numbers, and one task draws the same numbers on every
// peer.
func (s Spec) Seed() [32]byte {
	size := len("gotong seed v1\x00") + 2*idBytes + 2*binary.MaxVarintLen64
	for _, arg := range s.Args {
		size += len(arg) + binary.MaxVarintLen64
	}
	for _, in := range s.Inputs {
		size += len(in.Name) + binary.MaxVarintLen64 + idBytes
	}
	buf := make([]byte, 0, size)
	buf = append(buf, "gotong seed v1\x00"...)
	buf = append(buf, s.Module[:]...)
	buf = binary.AppendUvarint(buf, uint64(len(s.Args)))
	for _, arg := range s.Args {
		buf = appendString(buf, arg)
	}
	buf = binary.AppendUvarint(buf, uint64(len(s.Inputs)))
	for _, in := range s.Inputs {
		buf = appendString(buf, in.Name)
		buf = append(buf, in.Content[:]...)
	}
	if !s.Stdin.IsZero() {
		buf = append(buf, s.Stdin[:]...)
	}
	return sha256.Sum256(buf)
}

func appendString(buf []byte, s string) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(s)))
	return append(buf, s...)
}

// Ceilings that no Limits may exceed, so that a Result always fits a message
// of MaxResultBytes.
const (
	MaxMemoryBytes = 4 << 30 // the address space of a 32-bit module
	MaxWall        = 7 * 24 * time.Hour
	MaxStdoutBytes = MaxOutputBytes
	MaxStderrBytes = 256 << 10
	MaxOutputBytes = 64 << 30
	MaxOutputFiles = 4096
)

// PageBytes is the unit in which a module's memory grows.
const PageBytes = 64 << 10

// Limits bound one task. It is comparable.
type Limits struct {
	MemoryBytes int64         // linear memory of the module
	Wall        time.Duration // real time from the task's start in the sandbox
	StdoutBytes int64         // standard output
	StderrBytes int64         // standard error
	OutputBytes int64         // all files below /out together
	OutputFiles int           // files and directories below /out
}

// DefaultLimits returns what a task gets when nothing is asked for.
func DefaultLimits() Limits {
	return Limits{
		MemoryBytes: 512 << 20,
		Wall:        10 * time.Minute,
		StdoutBytes: 1 << 30,
		StderrBytes: 64 << 10,
		OutputBytes: 1 << 30,
		OutputFiles: 1024,
	}
}

// RunLimits returns what the tasks of a command line get, whether somebody waits for
// them or not: so each knows the results that are remembered of the other.
func RunLimits(memory int64, wall time.Duration) Limits {
	l := CeilingLimits()
	l.MemoryBytes, l.Wall, l.StdoutBytes = memory, wall, DefaultLimits().StdoutBytes
	return l
}

// CeilingLimits returns the most that Validate accepts.
func CeilingLimits() Limits {
	return Limits{MaxMemoryBytes, MaxWall, MaxStdoutBytes, MaxStderrBytes, MaxOutputBytes, MaxOutputFiles}
}

// Validate reports every field that is not positive or above its ceiling,
// joined.
func (l Limits) Validate() error {
	return l.Within(CeilingLimits())
}

// Within reports every field of l that is not positive or above that of most,
// joined: a worker's refusal in words.
func (l Limits) Within(most Limits) error {
	check := func(name string, got, most int64) error {
		switch {
		case got <= 0:
			return fmt.Errorf("%s limit must be positive", name)
		case got > most:
			return fmt.Errorf("%s limit %d is above %d", name, got, most)
		}
		return nil
	}
	wall := error(nil)
	switch {
	case l.Wall <= 0:
		wall = errors.New("time limit must be positive")
	case l.Wall > most.Wall:
		wall = fmt.Errorf("time limit %s is above %s", l.Wall, most.Wall)
	}
	return errors.Join(
		check("memory", l.MemoryBytes, most.MemoryBytes),
		wall,
		check("standard output", l.StdoutBytes, most.StdoutBytes),
		check("standard error", l.StderrBytes, most.StderrBytes),
		check("output", l.OutputBytes, most.OutputBytes),
		check("output files", int64(l.OutputFiles), int64(most.OutputFiles)),
	)
}
