package peernet

import (
	"bytes"
	"fmt"
	"io"
)

// The hello is what the accepting side sends first: 6 bytes "gotong", version,
// code.
const (
	helloMagic   = "gotong"
	helloVersion = 1
	helloBytes   = len(helloMagic) + 2
)

// helloCode tells the dialler how it was received.
type helloCode byte

const (
	helloMember   helloCode = 1 // welcome, known as a member
	helloStranger helloCode = 2 // welcome on ProtoJoin, not known
	helloRemoved  helloCode = 3 // welcome on ProtoJoin, known as removed
	helloBusy     helloCode = 4 // no room; the connection ends here
)

func helloFor(s Standing) helloCode {
	switch s {
	case Member:
		return helloMember
	case Removed:
		return helloRemoved
	default:
		return helloStranger
	}
}

func writeHello(w io.Writer, code helloCode) error {
	frame := append([]byte(helloMagic), helloVersion, byte(code))
	_, err := w.Write(frame)
	return err
}

// readHello returns how the accepting side sees this peer, or ErrBusy.
func readHello(r io.Reader) (Standing, error) {
	var frame [helloBytes]byte
	if _, err := io.ReadFull(r, frame[:]); err != nil {
		return Unknown, err
	}
	return parseHello(frame)
}

func parseHello(frame [helloBytes]byte) (Standing, error) {
	version := frame[len(helloMagic)]
	if !bytes.HasPrefix(frame[:], []byte(helloMagic)) || version != helloVersion {
		return Unknown, errNoHello
	}
	switch code := helloCode(frame[helloBytes-1]); code {
	case helloMember:
		return Member, nil
	case helloStranger:
		return Unknown, nil
	case helloRemoved:
		return Removed, nil
	case helloBusy:
		return Unknown, ErrBusy
	default:
		return Unknown, fmt.Errorf("%w: code %d", errNoHello, code)
	}
}
