package taskrpc

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	tasksv1 "gotong/proto/tasks/v1"
	"gotong/storage"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

var states = map[tasks.State]tasksv1.State{
	tasks.StateDone:      tasksv1.State_STATE_DONE,
	tasks.StateFailed:    tasksv1.State_STATE_FAILED,
	tasks.StateLimit:     tasksv1.State_STATE_LIMIT,
	tasks.StateCancelled: tasksv1.State_STATE_CANCELLED,
	tasks.StateLost:      tasksv1.State_STATE_LOST,
}

var limits = map[tasks.Limit]tasksv1.Limit{
	tasks.LimitNone:    tasksv1.Limit_LIMIT_UNSPECIFIED,
	tasks.LimitWall:    tasksv1.Limit_LIMIT_WALL,
	tasks.LimitMemory:  tasksv1.Limit_LIMIT_MEMORY,
	tasks.LimitStdout:  tasksv1.Limit_LIMIT_STDOUT,
	tasks.LimitOutput:  tasksv1.Limit_LIMIT_OUTPUT,
	tasks.LimitCompile: tasksv1.Limit_LIMIT_COMPILE,
}

var (
	stateOf = inverse(states)
	limitOf = inverse(limits)
)

func inverse[A, B comparable](m map[A]B) map[B]A {
	out := make(map[B]A, len(m))
	for a, b := range m {
		out[b] = a
	}
	return out
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", tasks.ErrInvalid, fmt.Sprintf(format, args...))
}

func parseContentID(raw []byte) (id tasks.ContentID, ok bool) {
	return id, copy(id[:], raw) == len(id) && len(raw) == len(id)
}

func parseJobID(raw []byte) (id tasks.JobID, ok bool) {
	return id, copy(id[:], raw) == len(id) && len(raw) == len(id)
}

func parseIndex(raw uint64) (int, error) {
	if raw >= scheduler.MaxTasks {
		return 0, invalid("task number %d", raw)
	}
	return int(raw), nil
}

func headerToProto(h scheduler.Header) *tasksv1.Header {
	out := &tasksv1.Header{
		Job:     h.Job[:],
		Runtime: string(h.Runtime),
		Inputs:  inputsToProto(h.Inputs),
		Limits: &tasksv1.Limits{
			MemoryBytes: h.Limits.MemoryBytes,
			WallNanos:   int64(h.Limits.Wall),
			StdoutBytes: h.Limits.StdoutBytes,
			StderrBytes: h.Limits.StderrBytes,
			OutputBytes: h.Limits.OutputBytes,
			OutputFiles: int64(h.Limits.OutputFiles),
		},
		Grant:        h.Grant,
		Stored:       storedToProto(h.Stored),
		StoreOutputs: h.StoreOutputs,
		StoreStdout:  h.StoreStdout,
		Step:         uint32(h.Step),
		Priority:     int32(h.Priority),
		Command:      []byte(h.Command),
		Outlive:      h.Outlive,
	}
	if !h.Key.IsZero() {
		out.Key = h.Key[:]
	}
	if !h.Module.IsZero() {
		out.Module = h.Module[:]
	}
	return out
}

func inputsToProto(list []tasks.Input) []*tasksv1.Input {
	var out []*tasksv1.Input
	for i := range list {
		in := &list[i]
		out = append(out, &tasksv1.Input{Name: in.Name, Content: in.Content[:], Size: in.Size})
	}
	return out
}

func inputsFromProto(list []*tasksv1.Input) ([]tasks.Input, error) {
	if len(list) > tasks.MaxInputs {
		return nil, invalid("%d inputs", len(list))
	}
	var out []tasks.Input
	for _, in := range list {
		id, ok := parseContentID(in.GetContent())
		if !ok {
			return nil, invalid("bad content id of input %q", clip(in.GetName()))
		}
		out = append(out, tasks.Input{Name: in.Name, Content: id, Size: in.Size})
	}
	return out, nil
}

// parseOptionalID reads a content id that may be absent, which is zero.
func parseOptionalID(raw []byte) (id tasks.ContentID, ok bool) {
	if len(raw) == 0 {
		return id, true
	}
	return parseContentID(raw)
}

// headerFromProto checks all that Header.Validate checks.
func headerFromProto(p *tasksv1.Header) (h scheduler.Header, err error) {
	var okJob, okModule bool
	h.Job, okJob = parseJobID(p.GetJob())
	h.Module, okModule = parseOptionalID(p.GetModule())
	if !okJob || !okModule || p.Limits == nil {
		return h, invalid("incomplete job")
	}
	h.Runtime = tasks.Runtime(p.Runtime)
	if h.Inputs, err = inputsFromProto(p.Inputs); err != nil {
		return h, err
	}
	l := p.Limits
	if l.OutputFiles > tasks.MaxOutputFiles {
		return h, invalid("%d output files", l.OutputFiles)
	}
	h.Limits = tasks.Limits{
		MemoryBytes: l.MemoryBytes,
		Wall:        time.Duration(l.WallNanos),
		StdoutBytes: l.StdoutBytes,
		StderrBytes: l.StderrBytes,
		OutputBytes: l.OutputBytes,
		OutputFiles: int(l.OutputFiles),
	}
	if len(p.Grant) > storage.MaxGrantBytes || (len(p.Key) != 0 && len(p.Key) != len(h.Key)) {
		return h, invalid("grant or key of a job")
	}
	h.Grant, h.StoreOutputs, h.Step, h.Priority = p.Grant, p.StoreOutputs, int(p.Step), int(p.Priority)
	h.Command, h.StoreStdout, h.Outlive = string(p.Command), p.StoreStdout, p.Outlive
	copy(h.Key[:], p.Key)
	if h.Stored, err = storedFromProto(p.Stored); err != nil {
		return h, err
	}
	if h.Key.IsZero() && (h.StoreOutputs || h.StoreStdout || len(h.Stored) > 0) {
		return h, invalid("a job with stored contents and no key")
	}
	return h, h.Validate()
}

func ordersToProto(o scheduler.Orders) *tasksv1.WorkRequest {
	out := &tasksv1.WorkRequest{Cancel: indicesToProto(o.Cancel), Release: indicesToProto(o.Release)}
	for _, order := range o.Tasks {
		t := &tasksv1.Task{Index: uint64(order.Index), Inputs: inputsToProto(order.Part.Inputs), StdinSize: order.Part.StdinSize, Stored: storedToProto(order.Part.Stored)}
		for _, arg := range order.Part.Args {
			t.Args = append(t.Args, []byte(arg))
		}
		if !order.Part.Stdin.IsZero() {
			t.Stdin = order.Part.Stdin[:]
		}
		out.Tasks = append(out.Tasks, t)
	}
	return out
}

func indicesToProto(list []int) []uint64 {
	var out []uint64
	for _, i := range list {
		out = append(out, uint64(i))
	}
	return out
}

// ordersFromProto parses the orders of a job whose header was checked.
func ordersFromProto(p *tasksv1.WorkRequest, h scheduler.Header) (o scheduler.Orders, err error) {
	if len(p.Tasks) > maxTasks || len(p.Cancel) > claimTasks || len(p.Release) > claimTasks {
		return o, invalid("too many orders at once")
	}
	for _, t := range p.Tasks {
		index, err := parseIndex(t.GetIndex())
		if err != nil {
			return o, err
		}
		part, err := partFromProto(t)
		if err != nil {
			return o, err
		}
		if err := h.Check(part); err != nil {
			return o, err
		}
		if h.Key.IsZero() && len(part.Stored) > 0 {
			return o, invalid("a job with stored contents and no key")
		}
		o.Tasks = append(o.Tasks, h.Order(index, part))
	}
	if o.Cancel, err = indicesFromProto(p.Cancel); err != nil {
		return o, err
	}
	o.Release, err = indicesFromProto(p.Release)
	return o, err
}

func partFromProto(t *tasksv1.Task) (p scheduler.Part, err error) {
	p.Args = make([]string, len(t.Args))
	for i, arg := range t.Args {
		p.Args[i] = string(arg)
	}
	if p.Inputs, err = inputsFromProto(t.Inputs); err != nil {
		return p, err
	}
	var ok bool
	if p.Stdin, ok = parseOptionalID(t.Stdin); !ok {
		return p, invalid("bad content id of standard input")
	}
	p.StdinSize = t.StdinSize
	p.Stored, err = storedFromProto(t.Stored)
	return p, err
}

func indicesFromProto(list []uint64) ([]int, error) {
	var out []int
	for _, raw := range list {
		index, err := parseIndex(raw)
		if err != nil {
			return nil, err
		}
		out = append(out, index)
	}
	return out, nil
}

// encodeResult returns the bytes that the worker signs.
func encodeResult(r tasks.Result, seed [32]byte) ([]byte, error) {
	out := &tasksv1.Result{
		Job:          r.Task.Job[:],
		Index:        uint64(r.Task.Index),
		Seed:         seed[:],
		State:        states[r.State],
		Limit:        limits[r.Limit],
		ExitCode:     int64(r.ExitCode),
		Why:          strings.ToValidUTF8(r.Why, "\uFFFD"),
		Stdout:       r.Stdout,
		Stderr:       r.Stderr,
		ElapsedNanos: int64(r.Elapsed),
		Engine:       r.Engine,
	}
	if r.LargeStdout != nil {
		out.LargeStdout = outputToProto(r.LargeStdout)
	}
	for i := range r.Outputs {
		out.Outputs = append(out.Outputs, outputToProto(&r.Outputs[i]))
	}
	return proto.Marshal(out)
}

func outputToProto(o *tasks.Output) *tasksv1.Output {
	out := &tasksv1.Output{Name: o.Name, Size: o.Size, Content: o.Content[:], Data: o.Data}
	if o.Stored != nil {
		out.Stored = oneStoredToProto(nil, *o.Stored)
	}
	return out
}

// decodeResult parses and validates what encodeResult wrote. Peer is not set.
func decodeResult(raw []byte) (r tasks.Result, seed [32]byte, err error) {
	var p tasksv1.Result
	if err := proto.Unmarshal(raw, &p); err != nil {
		return r, seed, invalid("result does not parse")
	}
	job, ok := parseJobID(p.Job)
	if !ok || copy(seed[:], p.Seed) != len(seed) || len(p.Seed) != len(seed) || len(p.Engine) > maxEngineBytes {
		return r, seed, invalid("incomplete result")
	}
	index, err := parseIndex(p.Index)
	if err != nil {
		return r, seed, err
	}
	if p.ElapsedNanos < 0 || p.ExitCode < tasks.NoExitCode || p.ExitCode > 1<<32-1 {
		return r, seed, invalid("numbers of a result out of bounds")
	}
	limit, known := limitOf[p.Limit]
	if !known {
		return r, seed, invalid("unknown limit %d", p.Limit)
	}
	r = tasks.Result{
		Task:     tasks.TaskID{Job: job, Index: index},
		State:    stateOf[p.State],
		Limit:    limit,
		ExitCode: int(p.ExitCode),
		Why:      p.Why,
		Stdout:   p.Stdout,
		Stderr:   p.Stderr,
		Elapsed:  time.Duration(p.ElapsedNanos),
		Engine:   p.Engine,
	}
	if r.Outputs, err = outputsFromProto(p.Outputs); err != nil {
		return r, seed, err
	}
	if p.LargeStdout != nil {
		out, err := outputFromProto(p.LargeStdout)
		if err != nil {
			return r, seed, err
		}
		r.LargeStdout = &out
	}
	return r, seed, r.Validate()
}

func outputsFromProto(list []*tasksv1.Output) ([]tasks.Output, error) {
	if len(list) > tasks.MaxOutputFiles {
		return nil, invalid("%d outputs", len(list))
	}
	var out []tasks.Output
	for _, o := range list {
		output, err := outputFromProto(o)
		if err != nil {
			return nil, err
		}
		out = append(out, output)
	}
	return out, nil
}

func outputFromProto(o *tasksv1.Output) (tasks.Output, error) {
	id, ok := parseContentID(o.GetContent())
	if !ok {
		return tasks.Output{}, invalid("bad content id of output %q", clip(o.GetName()))
	}
	out := tasks.Output{Name: o.Name, Size: o.Size, Content: id, Data: o.Data}
	if o.Stored != nil {
		_, stored, err := oneStoredFromProto(o.Stored)
		if err != nil {
			return out, err
		}
		out.Stored = &stored
	}
	return out, nil
}
