package sandbox

import (
	"fmt"

	"gotong/tasks"
)

// stopped ends a guest at one of its limits. It travels as a panic from the
// host function in which the limit was met, and out of the engine as an error.
type stopped struct {
	limit tasks.Limit
	why   string
}

// Error says which limit was met, in words.
func (s *stopped) Error() string { return s.why }

func stop(limit tasks.Limit, format string, args ...any) {
	panic(&stopped{limit, fmt.Sprintf(format, args...)})
}

// capture keeps what a guest writes to one of its output streams and stops the
// guest when that exceeds max.
type capture struct {
	stream string // for the message
	max    int
	buf    []byte
}

// Write keeps p; what fits under the limit is kept even when the guest is
// stopped.
func (c *capture) Write(p []byte) (int, error) {
	room := c.max - len(c.buf)
	if len(p) <= room {
		c.buf = append(c.buf, p...)
		return len(p), nil
	}
	c.buf = append(c.buf, p[:room]...)
	stop(tasks.LimitStdout, "wrote more than %d bytes to %s; %s", c.max, c.stream, tasks.LargeOutput)
	return 0, nil // not reached
}

// reset forgets what was written, and gives back a large buffer.
func (c *capture) reset() {
	if cap(c.buf) > keepBufferBytes {
		c.buf = nil
	}
	c.buf = c.buf[:0]
}
