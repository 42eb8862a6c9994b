package tasks

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"gotong/grid"
)

// State says how a task ended. The list is closed.
type State string

// The states of an ended task.
const (
	// StateDone: the program ended with exit code 0.
	StateDone State = "done"
	// StateFailed: the program ended with another exit code, trapped, or could
	// not be started. Running it again gives the same.
	StateFailed State = "failed"
	// StateLimit: it was stopped at the limit that Result.Limit names.
	StateLimit State = "limit"
	// StateCancelled: whoever asked for it no longer wants it.
	StateCancelled State = "cancelled"
	// StateLost: it ended through no fault of its own (its process was killed,
	// the peer went away). It should run again, here or elsewhere.
	StateLost State = "lost"
)

// Valid reports whether s is in the list.
func (s State) Valid() bool {
	switch s {
	case StateDone, StateFailed, StateLimit, StateCancelled, StateLost:
		return true
	}
	return false
}

// Final reports whether s says something of the program itself, so that
// another run would end alike (StateLimit on a loaded machine excepted).
func (s State) Final() bool { return s == StateDone || s == StateFailed || s == StateLimit }

// Limit names the bound at which a task was stopped. The list is closed.
type Limit string

// The limits of StateLimit.
const (
	LimitNone    Limit = ""
	LimitWall    Limit = "wall"    // Limits.Wall
	LimitMemory  Limit = "memory"  // Limits.MemoryBytes, or the process's own bound
	LimitStdout  Limit = "stdout"  // Limits.StdoutBytes or StderrBytes
	LimitOutput  Limit = "output"  // Limits.OutputBytes or OutputFiles
	LimitCompile Limit = "compile" // time or memory to compile the module
)

// Valid reports whether l is in the list.
func (l Limit) Valid() bool {
	switch l {
	case LimitNone, LimitWall, LimitMemory, LimitStdout, LimitOutput, LimitCompile:
		return true
	}
	return false
}

// LargeOutput says in the reason of LimitStdout what to do.
const LargeOutput = "a job file can allow more (resources: stdout, stderr), and files below /out count apart"

// NoExitCode is the ExitCode of a task that ended without one: trapped,
// stopped, or never started.
const NoExitCode = -1

// Bounds of a Result.
const (
	// InlineStdoutBytes bounds Result.Stdout; a longer standard output is in
	// Result.LargeStdout.
	InlineStdoutBytes = 2 << 20
	// InlineOutputBytes bounds the sum of Output.Data in one Result; larger
	// outputs stay in the worker's content store until they are fetched.
	InlineOutputBytes = 256 << 10
	// MaxWhyBytes bounds Result.Why.
	MaxWhyBytes = 1 << 10
	// MaxResultBytes bounds a Result however it is encoded: output texts,
	// inline data, and the list of output names at their longest in practice.
	MaxResultBytes = InlineStdoutBytes + MaxStderrBytes + InlineOutputBytes + MaxOutputNames + MaxStoredBytes + 64<<10
	// MaxOutputNames bounds the sum of the lengths of the names of all outputs
	// of a task, with 64 bytes added for each.
	MaxOutputNames = 512 << 10
	// MaxStoredBytes bounds what Output.Stored says of all outputs of a task,
	// with 34 bytes for each segment and holder.
	MaxStoredBytes = 512 << 10
)

// Result says how one task ended.
type Result struct {
	Task     TaskID
	State    State
	Limit    Limit  // set when State is StateLimit
	ExitCode int    // 0 … 2³²-1, or NoExitCode
	Why      string // in words, when State is not StateDone; from a hostile guest in part: escape when printed
	// Stdout is the standard output; of a task without an exit code no more than the
	// first InlineStdoutBytes.
	Stdout []byte
	// LargeStdout is a standard output of more than InlineStdoutBytes, of a task with
	// an exit code; Stdout is empty then. It has no name and never rides inline.
	LargeStdout *Output
	Stderr      []byte
	Outputs     []Output // files below /out, sorted by name; whole only when State is StateDone
	Elapsed     time.Duration
	Peer        grid.PeerID // who ran it
	Engine      string      // what ran it, with version: results are compared within one engine
}

// StdoutSize returns the bytes of the standard output.
func (r *Result) StdoutSize() int64 {
	if r.LargeStdout != nil {
		return r.LargeStdout.Size
	}
	return int64(len(r.Stdout))
}

// Large returns what did not come with the result: the standard output first, then
// outputs, which files asks for.
func (r *Result) Large(files bool) (list []*Output) {
	if r.LargeStdout != nil {
		list = append(list, r.LargeStdout)
	}
	for i := range r.Outputs {
		if files && !r.Outputs[i].Inline() {
			list = append(list, &r.Outputs[i])
		}
	}
	return list
}

// Output is one file that a task left below /out, or its standard output.
type Output struct {
	Name    string // slash-separated path below /out; ValidName; of a standard output empty
	Size    int64  // bytes
	Content ContentID
	Data    []byte // the bytes when they ride inline, else nil
	// Stored is where the worker stored it, when it did not come inline and the
	// job asks for that; else nil: ask the worker for Content.
	Stored *Stored
}

// Inline reports whether the bytes of o came with the result.
func (o Output) Inline() bool { return int64(len(o.Data)) == o.Size }

// Validate checks what a stranger could get wrong in r: states outside their
// lists, names that leave /out, bounds. It does not hash Data.
func (r Result) Validate() error {
	switch {
	case !r.State.Valid():
		return fmt.Errorf("%w: unknown state %q", ErrInvalid, r.State)
	case !r.Limit.Valid() || (r.State == StateLimit) != (r.Limit != LimitNone):
		return fmt.Errorf("%w: limit %q in state %s", ErrInvalid, r.Limit, r.State)
	case r.State == StateDone && r.ExitCode != 0:
		return fmt.Errorf("%w: done with exit code %d", ErrInvalid, r.ExitCode)
	case len(r.Stdout) > InlineStdoutBytes || len(r.Stderr) > MaxStderrBytes:
		return fmt.Errorf("%w: output text too long", ErrInvalid)
	case r.LargeStdout != nil && !r.validLargeStdout():
		return fmt.Errorf("%w: standard output apart from its result", ErrInvalid)
	case len(r.Why) > MaxWhyBytes:
		return fmt.Errorf("%w: reason too long", ErrInvalid)
	case len(r.Outputs) > MaxOutputFiles:
		return fmt.Errorf("%w: %d outputs", ErrInvalid, len(r.Outputs))
	}
	return r.validateOutputs()
}

func (r Result) validLargeStdout() bool {
	out := r.LargeStdout
	return out.Name == "" && len(out.Data) == 0 && len(r.Stdout) == 0 && r.ExitCode != NoExitCode &&
		out.Size > InlineStdoutBytes && out.Size <= MaxStdoutBytes && !out.Content.IsZero() &&
		(out.Stored == nil || (out.Stored.Size == out.Size && out.Stored.Validate() == nil))
}

func (r Result) validateOutputs() error {
	inline, names, stored, last := 0, 0, 0, ""
	if r.LargeStdout != nil {
		stored = r.LargeStdout.Stored.bytes()
	}
	for i, out := range r.Outputs {
		inline += len(out.Data)
		names += len(out.Name) + 64
		stored += out.Stored.bytes()
		switch {
		case !ValidName(out.Name):
			return fmt.Errorf("%w: output name %q", ErrInvalid, out.Name)
		case i > 0 && out.Name <= last:
			return fmt.Errorf("%w: outputs not sorted at %q", ErrInvalid, out.Name)
		case out.Size < 0 || out.Content.IsZero() || (len(out.Data) > 0 && !out.Inline()):
			return fmt.Errorf("%w: output %q has no content", ErrInvalid, out.Name)
		case out.Stored != nil && (out.Stored.Size != out.Size || out.Stored.Validate() != nil):
			return fmt.Errorf("%w: output %q is not where it says", ErrInvalid, out.Name)
		}
		last = out.Name
	}
	if inline > InlineOutputBytes || names > MaxOutputNames || stored > MaxStoredBytes {
		return fmt.Errorf("%w: outputs too long for one result", ErrInvalid)
	}
	return nil
}

// Errors that cross layers and the wire. Test with errors.Is.
var (
	// ErrInvalid: the task or result breaks a rule of this package.
	ErrInvalid = errors.New("invalid task")
	// ErrBusy: the worker has no room now; try another or later.
	ErrBusy = errors.New("no free slot")
	// ErrRefused: the worker will not run this task (a donor's rule, limits
	// above what it gives); another peer may.
	ErrRefused = errors.New("refused by this peer's rules")
	// ErrUnfit: an ErrRefused that no waiting changes, such as for want of a
	// command.
	ErrUnfit = fmt.Errorf("%w", ErrRefused)
	// ErrNoContent: the module or an input is not on the worker yet; see
	// MissingContent.
	ErrNoContent = errors.New("content not here")
	// ErrContent: bytes do not have the hash that names them.
	ErrContent = errors.New("content does not match its hash")
	// ErrStoreFull: the worker's content store cannot take more.
	ErrStoreFull = errors.New("content store full")
	// ErrSandbox: this machine cannot confine a guest, so it runs none.
	ErrSandbox = errors.New("no safe sandbox on this machine")
	// ErrStopped: the worker is shutting down.
	ErrStopped = errors.New("worker stopped")
	// ErrCancelled: the owner of the job wants no more of it.
	ErrCancelled = errors.New("cancelled by its owner")
	// ErrWithdrawn: the donor's rules do not let the task go on.
	ErrWithdrawn = errors.New("the donor needs the machine")
)

// Reason returns the text of an error of a worker that takes no task, without
// the words of ErrRefused, which beside the rule say nothing more.
func Reason(err error) string {
	text := err.Error()
	if errors.Is(err, ErrRefused) {
		text = strings.TrimSuffix(text, ": "+ErrRefused.Error())
		text = strings.TrimPrefix(text, ErrRefused.Error()+": ")
	}
	return text
}

// MissingContent is an ErrNoContent that says what to send.
type MissingContent struct{ IDs []ContentID }

// Error lists missing contents.
func (e *MissingContent) Error() string {
	var names []string
	for _, id := range e.IDs[:min(len(e.IDs), missingNamed)] {
		names = append(names, id.Short())
	}
	if more := len(e.IDs) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return ErrNoContent.Error() + ": " + strings.Join(names, ", ")
}

// missingNamed bounds the contents that a MissingContent names in words.
const missingNamed = 8

// Is makes errors.Is(err, ErrNoContent) true.
func (e *MissingContent) Is(target error) bool { return target == ErrNoContent }
