package rules

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Bounds of speaking with an X server.
const (
	xWait      = 500 * time.Millisecond // for each answer
	xRetry     = time.Minute            // how long one that did not answer is left alone
	maxSetup   = 1 << 18                // bytes; the length field's most
	maxCookies = 1 << 20                // bytes of a file of cookies
	xSockets   = "/tmp/.X11-unix/X"
)

// x11 asks an X server of this machine when its last input was, by the extension
// MIT-SCREEN-SAVER. It reads, and changes nothing.
type x11 struct {
	display string // as in DISPLAY
	cookies string // file with the server's cookie, as in XAUTHORITY; it may be missing

	conn   net.Conn
	in     *bufio.Reader
	root   uint32 // a window
	opcode byte   // of the extension
	failed time.Time
	err    error
}

// localX11 is the server that the environment names.
func localX11() *x11 {
	home, _ := os.UserHomeDir() // without one there may be no cookie
	return &x11{display: os.Getenv("DISPLAY"), cookies: cmp.Or(os.Getenv("XAUTHORITY"), filepath.Join(home, ".Xauthority"))}
}

func (x *x11) close() {
	if x.conn != nil {
		x.conn.Close()
		x.conn = nil
	}
}

// ask is a source. After an error the server is left alone for a while.
func (x *x11) ask() (stamp, error) {
	s := stamp{source: "X display " + x.display}
	if x.display == "" {
		return s, errors.New("X: DISPLAY is not set")
	}
	if x.err != nil && time.Since(x.failed) < xRetry {
		return s, x.err
	}
	idle, err := x.idle()
	if err != nil {
		x.close()
		x.failed, x.err = time.Now(), fmt.Errorf("X display %s: %w", x.display, err)
		return s, x.err
	}
	x.err = nil
	s.at = time.Now().Round(0).Add(-idle)
	return s, nil
}

// idle returns the time since the last input.
func (x *x11) idle() (time.Duration, error) {
	if x.conn == nil {
		if err := x.connect(); err != nil {
			return 0, err
		}
	}
	r, err := x.call(x.opcode, 1, binary.LittleEndian.AppendUint32(nil, x.root)) // QueryInfo
	if err != nil {
		return 0, err
	}
	return time.Duration(binary.LittleEndian.Uint32(r[16:])) * time.Millisecond, nil
}

// connect opens a connection and finds the extension.
func (x *x11) connect() error {
	number, err := displayNumber(x.display)
	if err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: xWait}
	if x.conn, err = dialer.Dial("unix", "@"+xSockets+number); err != nil {
		if x.conn, err = dialer.Dial("unix", xSockets+number); err != nil {
			x.conn = nil
			return err
		}
	}
	x.in = bufio.NewReader(x.conn)
	if err := x.greet(number); err != nil {
		return err
	}
	x.opcode, err = x.extension("MIT-SCREEN-SAVER")
	return err
}

// extension returns the operation code of an extension.
func (x *x11) extension(name string) (byte, error) {
	body := binary.LittleEndian.AppendUint32(nil, uint32(len(name)))
	r, err := x.call(98, 0, append(body, padded([]byte(name))...))
	if err == nil && r[8] == 0 {
		err = fmt.Errorf("it has no extension %s", name)
	}
	return r[9], err
}

// displayNumber returns the number of a display of this machine.
func displayNumber(display string) (string, error) {
	host, rest, ok := strings.Cut(display, ":")
	number, _, _ := strings.Cut(rest, ".")
	if n, err := strconv.ParseUint(number, 10, 16); !ok || err != nil || (host != "" && host != "unix") {
		return "", fmt.Errorf("%q is no display of this machine", display)
	} else {
		return strconv.FormatUint(n, 10), nil // without leading zeros
	}
}

// greet sends the cookie and reads what the server says of itself.
func (x *x11) greet(number string) error {
	const method = "MIT-MAGIC-COOKIE-1"
	var cookie []byte
	if f, err := os.Open(x.cookies); err == nil {
		cookie = findCookie(io.LimitReader(f, maxCookies), number, method)
		f.Close()
	}
	b := []byte{'l', 0, 11, 0, 0, 0} // little-endian, version 11.0
	if len(cookie) == 0 {
		b = append(b, 0, 0, 0, 0, 0, 0)
	} else {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(method)))
		b = binary.LittleEndian.AppendUint16(b, uint16(len(cookie)))
		b = append(b, 0, 0)
		b = append(b, padded([]byte(method))...)
		b = append(b, padded(cookie)...)
	}
	if err := x.send(b); err != nil {
		return err
	}
	head := make([]byte, 8)
	if _, err := io.ReadFull(x.in, head); err != nil {
		return err
	}
	rest := make([]byte, 4*int(binary.LittleEndian.Uint16(head[6:])))
	if _, err := io.ReadFull(x.in, rest); err != nil {
		return err
	}
	if head[0] != 1 {
		return fmt.Errorf("refused: %.200q", rest[:min(len(rest), int(head[1]))])
	}
	var err error
	x.root, err = rootWindow(rest)
	return err
}

// rootWindow finds the first screen's root window in what a server says of itself.
func rootWindow(b []byte) (uint32, error) {
	const fixed, format = 32, 8
	if len(b) < fixed {
		return 0, errors.New("its greeting is short")
	}
	at := fixed + (int(binary.LittleEndian.Uint16(b[16:]))+3)&^3 + format*int(b[21])
	if b[20] == 0 || len(b) < at+4 {
		return 0, errors.New("it has no screen")
	}
	return binary.LittleEndian.Uint32(b[at:]), nil
}

// findCookie returns a server's cookie from a file of them; nil: none.
func findCookie(from io.Reader, number, method string) []byte {
	const local, wild = 256, 65535
	in := bufio.NewReader(from)
	for {
		var family uint16
		if binary.Read(in, binary.BigEndian, &family) != nil {
			return nil
		}
		var fields [4][]byte // address, number, method, cookie
		for i := range fields {
			var n uint16
			if binary.Read(in, binary.BigEndian, &n) != nil {
				return nil
			}
			fields[i] = make([]byte, n)
			if _, err := io.ReadFull(in, fields[i]); err != nil {
				return nil
			}
		}
		if (family == local || family == wild) && (len(fields[1]) == 0 || string(fields[1]) == number) && string(fields[2]) == method {
			return fields[3]
		}
	}
}

func padded(b []byte) []byte { return append(bytes.Clone(b), make([]byte, -len(b)&3)...) }

func (x *x11) send(b []byte) error {
	if err := x.conn.SetDeadline(time.Now().Add(xWait)); err != nil {
		return err
	}
	_, err := x.conn.Write(b)
	return err
}

// request sends one; body is a multiple of 4 bytes.
func (x *x11) request(opcode, minor byte, body []byte) error {
	b := binary.LittleEndian.AppendUint16([]byte{opcode, minor}, uint16(1+len(body)/4))
	return x.send(append(b, body...))
}

// call sends a request and returns the fixed part of its answer.
func (x *x11) call(opcode, minor byte, body []byte) (answer [32]byte, err error) {
	if err := x.request(opcode, minor, body); err != nil {
		return answer, err
	}
	return readAnswer(x.in)
}

// maxEvents is how many events may come before an answer. None was asked for, but a
// server tells everybody when the keyboard's layout changes.
const maxEvents = 256

// readAnswer reads up to the next answer and skips its variable part.
func readAnswer(in *bufio.Reader) (answer [32]byte, err error) {
	for range maxEvents {
		if _, err := io.ReadFull(in, answer[:]); err != nil {
			return answer, err
		}
		switch answer[0] {
		case 0:
			return answer, fmt.Errorf("it answers with error %d", answer[1])
		case 1:
			more := 4 * int64(binary.LittleEndian.Uint32(answer[4:]))
			if more > maxSetup {
				return answer, fmt.Errorf("an answer of %d bytes", more)
			}
			_, err := io.CopyN(io.Discard, in, more)
			return answer, err
		}
	}
	return answer, errors.New("it sends events and no answer")
}
