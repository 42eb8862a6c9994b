package sandbox

import (
	"time"

	"gotong/tasks"
)

// protocolVersion is the version of the frames; parent and child come from one
// binary, so another version means that the binary was replaced under us.
const protocolVersion = 3

// duty says what a child is for.
type duty byte

const (
	dutyReport  duty = iota // report layers, then end
	dutyRun                 // take a module, then requests
	dutyCompile             // take a module, leave its compiled code, then end
	dutyProbe               // try what no guest may do, then end
)

// setup is what a child learns before it locks itself down.
type setup struct {
	Duty        duty
	Limits      tasks.Limits
	ModuleBytes int64
	Code        bool   // compiled code is staged
	Namespaces  string // of the parent
	Probe       []byte // Targets, for a child that probes
}

func (s setup) append(b []byte) []byte {
	b = appendUint(b, protocolVersion)
	b = appendUint(b, uint64(s.Duty))
	b = appendUint(b, uint64(s.Limits.MemoryBytes))
	b = appendUint(b, uint64(s.Limits.Wall))
	b = appendUint(b, uint64(s.Limits.StdoutBytes))
	b = appendUint(b, uint64(s.Limits.StderrBytes))
	b = appendUint(b, uint64(s.Limits.OutputBytes))
	b = appendUint(b, uint64(s.Limits.OutputFiles))
	b = appendUint(b, uint64(s.ModuleBytes))
	b = appendBool(b, s.Code)
	b = appendString(b, s.Namespaces)
	return appendString(b, s.Probe)
}

func parseSetup(b []byte) (s setup, err error) {
	d := decoder{b: b}
	if d.int(protocolVersion) != protocolVersion {
		d.bad = true
	}
	s.Duty = duty(d.int(int64(dutyProbe)))
	s.Limits = tasks.Limits{
		MemoryBytes: d.int(tasks.MaxMemoryBytes),
		Wall:        time.Duration(d.int(int64(tasks.MaxWall))),
		StdoutBytes: d.int(tasks.MaxStdoutBytes),
		StderrBytes: d.int(tasks.MaxStderrBytes),
		OutputBytes: d.int(tasks.MaxOutputBytes),
		OutputFiles: int(d.int(tasks.MaxOutputFiles)),
	}
	s.ModuleBytes = d.int(tasks.MaxModuleBytes)
	s.Code = d.bool()
	s.Namespaces = d.string(maxSetupBytes)
	s.Probe = clone(d.bytes(maxSetupBytes))
	return s, d.err()
}

// hello is the child's report after it locked itself down.
type hello struct{ Layers []Layer }

const maxLayers = 32

func (h hello) append(b []byte) []byte {
	b = appendUint(b, protocolVersion)
	b = appendUint(b, uint64(len(h.Layers)))
	for _, l := range h.Layers {
		b = appendString(b, l.Name)
		b = appendBool(b, l.Active)
		b = appendBool(b, l.Required)
		b = appendString(b, l.Why)
	}
	return b
}

func parseHello(b []byte) (h hello, err error) {
	d := decoder{b: b}
	if d.int(protocolVersion) != protocolVersion {
		d.bad = true
	}
	for range d.int(maxLayers) {
		h.Layers = append(h.Layers, Layer{
			Name: d.string(maxHelloBytes), Active: d.bool(), Required: d.bool(), Why: d.string(maxHelloBytes),
		})
	}
	return h, d.err()
}

// ready says whether the module can run.
type ready struct {
	Fault  string // why the module cannot run; empty: it can
	Broken string // why the sandbox cannot be closed; empty: it is
	Engine string
}

func (r ready) append(b []byte) []byte {
	b = appendString(b, r.Fault)
	b = appendString(b, r.Broken)
	return appendString(b, r.Engine)
}

func parseReady(b []byte) (r ready, err error) {
	d := decoder{b: b}
	r = ready{Fault: d.string(maxReadyBytes), Broken: d.string(maxReadyBytes), Engine: d.string(maxReadyBytes)}
	return r, d.err()
}

// taskMessage asks for one run.
type taskMessage struct {
	Args      []string
	Inputs    []tasks.Input
	Stdin     tasks.ContentID
	StdinSize int64
	Seed      [32]byte
}

func (t taskMessage) append(b []byte) []byte {
	b = append(b, t.Seed[:]...)
	b = appendUint(b, uint64(len(t.Args)))
	for _, arg := range t.Args {
		b = appendString(b, arg)
	}
	b = appendUint(b, uint64(len(t.Inputs)))
	for _, in := range t.Inputs {
		b = appendString(b, in.Name)
		b = append(b, in.Content[:]...)
		b = appendUint(b, uint64(in.Size))
	}
	b = append(b, t.Stdin[:]...)
	return appendUint(b, uint64(t.StdinSize))
}

func parseTask(b []byte) (t taskMessage, err error) {
	d := decoder{b: b}
	d.array(t.Seed[:])
	if n := d.int(tasks.MaxArgs); n > 0 && !d.bad {
		t.Args = make([]string, n)
		for i := range t.Args {
			t.Args[i] = d.string(tasks.MaxArgBytes)
		}
	}
	for range d.int(tasks.MaxInputs) {
		in := tasks.Input{Name: d.string(tasks.MaxNameBytes)}
		d.array(in.Content[:])
		in.Size = d.int(1<<63 - 1)
		t.Inputs = append(t.Inputs, in)
	}
	d.array(t.Stdin[:])
	t.StdinSize = d.int(1<<63 - 1)
	return t, d.err()
}

// resultMessage says how one run ended.
type resultMessage struct {
	State    tasks.State
	Limit    tasks.Limit
	ExitCode int64 // -1: none
	Why      string
	Elapsed  time.Duration
	Stdout   []byte
	// LargeStdout is a spilled file without a name, in place of Stdout.
	LargeStdout File
	Stderr      []byte
	Files       []File
}

// The closed lists in the order of their numbers on the wire.
var (
	wireStates = []tasks.State{tasks.StateDone, tasks.StateFailed, tasks.StateLimit, tasks.StateLost}
	wireLimits = []tasks.Limit{
		tasks.LimitNone, tasks.LimitWall, tasks.LimitMemory, tasks.LimitStdout, tasks.LimitOutput, tasks.LimitCompile,
	}
)

func indexOf[T comparable](list []T, v T) uint64 {
	for i, item := range list {
		if item == v {
			return uint64(i)
		}
	}
	panic("sandbox: value outside its closed list")
}

const (
	fileInline = 0 // data follow
	fileNumber = 1 // the number of a spilled file follows
)

func (r resultMessage) append(b []byte) []byte {
	b = appendUint(b, indexOf(wireStates, r.State))
	b = appendUint(b, indexOf(wireLimits, r.Limit))
	b = appendUint(b, uint64(r.ExitCode+1))
	b = appendString(b, r.Why)
	b = appendUint(b, uint64(r.Elapsed))
	b = appendString(b, r.Stdout)
	b = appendUint(b, r.LargeStdout.number)
	b = appendUint(b, uint64(r.LargeStdout.Size))
	b = appendString(b, r.Stderr)
	b = appendUint(b, uint64(len(r.Files)))
	for _, f := range r.Files {
		b = appendString(b, f.Name)
		b = appendUint(b, uint64(f.Size))
		if f.number == 0 {
			b = append(appendUint(b, fileInline), f.Data...)
			continue
		}
		b = appendUint(b, fileNumber)
		b = appendUint(b, f.number)
	}
	return b
}

// parseResult parses what a possibly hostile child sent; it copies what it
// returns. Beyond the form it checks what the parent relies on: names that stay
// below /out, in order, and the limits of the texts.
func parseResult(b []byte, limits tasks.Limits) (r resultMessage, err error) {
	d := decoder{b: b}
	r.State = wireStates[d.int(int64(len(wireStates)-1))]
	r.Limit = wireLimits[d.int(int64(len(wireLimits)-1))]
	r.ExitCode = d.int(1<<32) - 1
	r.Why = d.string(tasks.MaxWhyBytes)
	r.Elapsed = time.Duration(d.int(1<<63 - 1))
	r.Stdout = clone(d.bytes(int(min(limits.StdoutBytes, tasks.InlineStdoutBytes))))
	r.LargeStdout.number, r.LargeStdout.Size = d.uint(), d.int(limits.StdoutBytes)
	r.Stderr = clone(d.bytes(int(limits.StderrBytes)))
	n := d.int(int64(limits.OutputFiles))
	last, total, names := "", int64(0), 0
	for i := range n {
		f := parseFile(&d, limits)
		total += f.Size
		names += len(f.Name) + nameCost
		if d.bad || !tasks.ValidName(f.Name) || (i > 0 && f.Name <= last) ||
			total > limits.OutputBytes || names > tasks.MaxOutputNames {
			return r, errFrame
		}
		last = f.Name
		r.Files = append(r.Files, f)
	}
	if (r.State == tasks.StateLimit) != (r.Limit != tasks.LimitNone) ||
		(r.State == tasks.StateDone) != (r.ExitCode == 0) || !r.validLargeStdout() {
		d.bad = true
	}
	return r, d.err()
}

func (r *resultMessage) validLargeStdout() bool {
	if f := r.LargeStdout; f.Spilled() {
		return len(r.Stdout) == 0 && r.ExitCode >= 0 && f.Size > tasks.InlineStdoutBytes
	}
	return r.LargeStdout.Size == 0
}

func parseFile(d *decoder, limits tasks.Limits) (f File) {
	f.Name = d.string(tasks.MaxNameBytes)
	f.Size = d.int(limits.OutputBytes)
	if d.int(fileNumber) == fileNumber {
		if f.number = d.uint(); f.number == 0 {
			d.bad = true
		}
		return f
	}
	if f.Size > tasks.InlineOutputBytes || f.Size > int64(len(d.b)) {
		d.bad = true
		return f
	}
	f.Data = make([]byte, f.Size)
	d.array(f.Data)
	return f
}

func clone(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return append([]byte(nil), b...)
}
