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
	MaxInputs      = 1024      // input files of one task
	MaxNameBytes   = 1024      // path of an input or output below /in or /out
	MaxPartBytes   = 255       // one part of such a path
)

// Spec says what a task runs. Two equal Specs give equal results.
type Spec struct {
	Module ContentID // a WASI preview 1 module
	Args   []string  // arguments after the program's name
	Inputs []Input   // files that appear read-only below /in
	Limits Limits
}

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
	if s.Module.IsZero() {
		faults = append(faults, errors.New("no module"))
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
	seen := make(map[string]bool, len(s.Inputs))
	for _, in := range s.Inputs {
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

// Contents returns the module and the inputs, each once, module first.
func (s Spec) Contents() []ContentID {
	ids := make([]ContentID, 0, 1+len(s.Inputs))
	ids = append(ids, s.Module)
	for _, in := range s.Inputs {
		if !slices.Contains(ids, in.Content) {
			ids = append(ids, in.Content)
		}
	}
	return ids
}

// Seed returns the seed of the randomness that the task sees: a hash of
// module, arguments and inputs. So tasks that differ in an argument draw
// different numbers, and one task draws the same numbers on every peer.
func (s Spec) Seed() [32]byte {
	size := len("gotong seed v1\x00") + idBytes + 2*binary.MaxVarintLen64
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
	MaxStdoutBytes = 2 << 20
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
		StdoutBytes: 1 << 20,
		StderrBytes: 64 << 10,
		OutputBytes: 1 << 30,
		OutputFiles: 1024,
	}
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
