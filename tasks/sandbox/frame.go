package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"gotong/tasks"
)

// frameKind says what a frame between parent and child holds.
type frameKind byte

const (
	frameSetup    frameKind = 1 + iota // parent: setup
	frameModule                        // parent: the module's bytes
	frameTask                          // parent: taskMessage
	frameHello                         // child: layers, after lock-down
	frameReady                         // child: the module is compiled, or why not
	frameResult                        // child: resultMessage
	frameAttempts                      // child: what came of a probe
)

// Bounds of the frames. A frame above its bound ends the conversation.
const (
	maxSetupBytes  = 64 << 10
	maxTaskBytes   = tasks.MaxInputNames + tasks.MaxArgBytes + 64<<10
	maxHelloBytes  = 16 << 10
	maxReadyBytes  = 8 << 10
	frameHeadBytes = 5 // length of the body in 4 bytes, little endian; kind
)

var errFrame = errors.New("malformed frame")

// appendFrame appends a frame whose body is what body appends.
func appendFrame(dst []byte, kind frameKind, body func([]byte) []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, byte(kind))
	dst = body(dst)
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(dst)-start-frameHeadBytes))
	return dst
}

// frameReader reads frames and reuses one buffer for them.
type frameReader struct {
	r   io.Reader
	buf []byte
}

// next returns the body of the next frame, which must be of the given kind and
// at most bound bytes. The body is valid until the next call. io.EOF means that
// the other side closed between two frames.
func (f *frameReader) next(kind frameKind, bound int) ([]byte, error) {
	var head [frameHeadBytes]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return nil, err
	}
	size := int64(binary.LittleEndian.Uint32(head[:]))
	if got := frameKind(head[4]); got != kind {
		return nil, fmt.Errorf("%w: kind %d, want %d", errFrame, got, kind)
	}
	if size > int64(bound) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errFrame, size, bound)
	}
	if int64(cap(f.buf)) < size {
		f.buf = make([]byte, size)
	}
	body := f.buf[:size]
	if _, err := io.ReadFull(f.r, body); err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	if cap(f.buf) > keepBufferBytes {
		f.buf = nil // one large frame must not hold its memory for good
	}
	return body, nil
}

// keepBufferBytes is the largest buffer that is kept between frames.
const keepBufferBytes = 256 << 10

// decoder takes fields off a frame's body. The first fault sticks; every later
// field is then zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// int takes a number that must be at most bound.
func (d *decoder) int(bound int64) int64 {
	v := d.uint()
	if v > uint64(bound) {
		d.bad = true
		return 0
	}
	return int64(v)
}

// bytes takes a length and as many bytes; the result points into the frame.
func (d *decoder) bytes(bound int) []byte {
	n := d.int(int64(bound))
	if int64(len(d.b)) < n {
		d.bad, d.b = true, nil
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) string(bound int) string { return string(d.bytes(bound)) }

// array fills dst.
func (d *decoder) array(dst []byte) {
	if len(d.b) < len(dst) {
		d.bad, d.b = true, nil
		return
	}
	d.b = d.b[copy(dst, d.b):]
}

func (d *decoder) bool() bool { return d.int(1) == 1 }

// err reports a fault, bytes left over included.
func (d *decoder) err() error {
	if d.bad || len(d.b) != 0 {
		return errFrame
	}
	return nil
}

func appendUint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

func appendString[S ~string | ~[]byte](b []byte, s S) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}
