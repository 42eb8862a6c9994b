package native

import (
	"fmt"

	"gotong/tasks"
	"gotong/tasks/sandbox"
)

// cause says why a command was killed; the first stands.
type cause int

const (
	causeNone cause = iota
	causeWall
	causeMemory
	causeProcesses
	causeText
	causeFiles
	causeAbandoned
	causeClosed
)

// outcome describes a command that was killed for c.
func (c cause) outcome(limits tasks.Limits) sandbox.Outcome {
	o := sandbox.Outcome{State: tasks.StateLimit, ExitCode: tasks.NoExitCode}
	switch c {
	case causeWall:
		o.Limit, o.Why = tasks.LimitWall, fmt.Sprintf("stopped after %s", limits.Wall)
	case causeMemory:
		o.Limit, o.Why = tasks.LimitMemory, fmt.Sprintf("used more than %d bytes of memory, files in /tmp and /out included", limits.MemoryBytes)
	case causeProcesses:
		o.Limit, o.Why = tasks.LimitMemory, fmt.Sprintf("started more than %d processes", MaxProcesses)
	case causeText:
		o.Limit, o.Why = tasks.LimitStdout, fmt.Sprintf("wrote more than %d bytes to its output or %d to its standard error; %s", limits.StdoutBytes, limits.StderrBytes, tasks.LargeOutput)
	case causeFiles:
		o.Limit, o.Why = tasks.LimitOutput, fmt.Sprintf("made more than %d files below /out, or %d below /tmp", limits.OutputFiles, tasks.MaxOutputFiles)
	case causeAbandoned:
		o.State, o.Why = tasks.StateCancelled, "no longer wanted"
	default:
		o.State, o.Why = tasks.StateLost, "the worker stopped it"
	}
	return o
}
