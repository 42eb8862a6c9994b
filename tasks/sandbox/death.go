package sandbox

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"time"

	"gotong/tasks"
)

// This file explains why a child ended.

// complaintBytes is how much of the child's standard error is kept.
const complaintBytes = 4 << 10

func (c *Child) timedOut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause == causeStart
}

// outOfMemory reports whether the Go runtime of the child died for want of
// memory.
func (c *Child) outOfMemory() bool {
	text := c.stderr.String()
	return strings.Contains(text, "out of memory") || strings.Contains(text, "cannot allocate memory")
}

// complaint is the first line that the child wrote to its standard error.
func (c *Child) complaint() string { return firstLine(c.stderr.String()) }

// death explains the end of the request that was running when the child died.
func (c *Child) death(run *Run, elapsed time.Duration) Outcome {
	c.mu.Lock() // whoever asked for it may still give it up
	why, abandoned := c.cause, !run.abandoned.IsZero()
	c.mu.Unlock()
	o := Outcome{State: tasks.StateFailed, ExitCode: tasks.NoExitCode, Elapsed: elapsed}
	switch why {
	case causeWall:
		o.State, o.Limit = tasks.StateLimit, tasks.LimitWall
		o.Why = fmt.Sprintf("stopped after %s", c.limits.Wall)
	case causeAbandoned:
		o.State, o.Why = tasks.StateCancelled, "no longer wanted"
	case causeClosed:
		o.State, o.Why = tasks.StateLost, "the worker stopped its sandbox"
	case causeProtocol:
		o.Why = "the sandbox answered nonsense and was killed"
	default:
		o = c.crash(o)
	}
	if abandoned {
		o.State, o.Limit, o.Why = tasks.StateCancelled, tasks.LimitNone, "no longer wanted"
	}
	return o
}

// crash explains an end that the parent did not cause.
func (c *Child) crash(o Outcome) Outcome {
	switch {
	case c.outOfMemory():
		o.State, o.Limit = tasks.StateLimit, tasks.LimitMemory
		o.Why = "the sandbox ran out of memory (tables, deep recursion or files too large)"
	case killedFromOutside(c.cmd.ProcessState):
		o.State, o.Why = tasks.StateLost, "the sandbox process was killed from outside"
	default:
		o.Why = cut(fmt.Sprintf("the sandbox process crashed (%s) %s", c.cmd.ProcessState, c.complaint()), tasks.MaxWhyBytes)
	}
	return o
}

// headBuffer keeps the first complaintBytes written to it.
type headBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write never fails.
func (b *headBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Write(p[:min(len(p), complaintBytes-b.buf.Len())])
	return len(p), nil
}

// String returns what was kept.
func (b *headBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *headBuffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Reset()
}
