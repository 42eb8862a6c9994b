package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"os"

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

// capture keeps what a guest writes to one of its output streams in memory and stops
// the guest when that exceeds max.
type capture struct {
	stream string // for the message
	max    int64
	buf    []byte
}

// Write keeps p; what fits under the limit is kept even when the guest is
// stopped.
func (c *capture) Write(p []byte) (int, error) {
	room := c.max - int64(len(c.buf))
	c.buf = append(c.buf, p[:min(int64(len(p)), room)]...)
	if int64(len(p)) > room {
		c.stop()
	}
	return len(p), nil
}

func (c *capture) stop() {
	stop(tasks.LimitStdout, "wrote more than %d bytes to %s; %s", c.max, c.stream, tasks.LargeOutput)
}

// reset forgets what was written, and gives back a large buffer.
func (c *capture) reset() {
	if cap(c.buf) > keepBufferBytes {
		c.buf = nil
	}
	c.buf = c.buf[:0]
}

// stdout is a capture that moves to a numbered file when it no longer fits a result.
type stdout struct {
	capture // its buf is the beginning
	store   *fileStore

	size   int64
	number uint64 // of the file; 0: there is none
	host   *os.File
	out    *bufio.Writer // to host
	err    error         // why it could not be kept
}

// spillBufferBytes spares a system call for each small write.
const spillBufferBytes = 64 << 10

// Write keeps p; what fits under the limit is kept even when the guest is stopped.
func (o *stdout) Write(p []byte) (int, error) {
	whole := int64(len(p)) <= o.max-o.size
	if !whole {
		p = p[:o.max-o.size]
	}
	o.size += int64(len(p))
	if o.number == 0 && o.size > tasks.InlineStdoutBytes {
		o.spill()
	}
	if o.number != 0 {
		o.check(o.out.Write(p))
	}
	o.buf = append(o.buf, p[:min(len(p), tasks.InlineStdoutBytes-len(o.buf))]...)
	if !whole {
		o.stop()
	}
	return len(p), nil
}

// spill begins the file with what came before.
func (o *stdout) spill() {
	number := o.store.number + 1
	host, err := o.store.out.OpenFile(spillName(number), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	o.check(0, err)
	o.store.number = number
	o.number, o.host, o.out = number, host, bufio.NewWriterSize(host, spillBufferBytes)
	o.check(o.out.Write(o.buf))
}

// check ends the run when the file cannot be written: many a guest would not look at
// an error.
func (o *stdout) check(_ int, err error) {
	if err != nil {
		o.err = err
		stop(tasks.LimitStdout, "its standard output could not be kept")
	}
}

// take returns what was written: in memory, or as a file. Without whole it is the
// beginning, and there is no file. The error says why it could not be kept.
func (o *stdout) take(whole bool) (text []byte, file File, err error) {
	if o.number == 0 {
		return o.buf, File{}, o.err
	}
	err = errors.Join(o.out.Flush(), o.host.Close())
	o.host, o.out = nil, nil
	if whole && err == nil {
		return nil, File{Size: o.size, number: o.number}, nil
	}
	o.store.out.Remove(spillName(o.number))
	return o.buf, File{}, err
}

// reset forgets what was written.
func (o *stdout) reset() {
	o.capture.reset()
	o.size, o.number, o.err = 0, 0, nil
}
