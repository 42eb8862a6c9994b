package membership

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A gossip connection carries frames: one byte kind, three bytes length
// (big-endian), then as many bytes. A packet frame is one gossip packet. An
// ask frame is empty and is answered with an empty answer frame: that tells a
// quiet connection from a dead one.
const (
	framePacket = 0
	frameAsk    = 1
	frameAnswer = 2

	frameHeaderBytes = 4
	maxPacketBytes   = 64 << 10
)

var errFrame = errors.New("malformed gossip frame")

// appendFrame appends a frame to dst. The payload has at most maxPacketBytes.
func appendFrame(dst []byte, kind byte, payload []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(kind)<<24|uint32(len(payload)))
	return append(dst, payload...)
}

// readFrame reads one frame. The payload is newly allocated, and only after
// its length was found within bounds. io.EOF means that the stream ended
// between two frames.
func readFrame(r io.Reader) (kind byte, payload []byte, err error) {
	var header [frameHeaderBytes]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	kind = header[0]
	length := binary.BigEndian.Uint32(header[:]) & 0xffffff
	switch {
	case kind > frameAnswer:
		return 0, nil, fmt.Errorf("%w: kind %d", errFrame, kind)
	case kind == framePacket && (length == 0 || length > maxPacketBytes):
		return 0, nil, fmt.Errorf("%w: packet of %d bytes", errFrame, length)
	case kind != framePacket && length != 0:
		return 0, nil, fmt.Errorf("%w: kind %d with %d bytes", errFrame, kind, length)
	case length == 0:
		return kind, nil, nil
	}
	payload = make([]byte, length)
	if _, err := io.ReadFull(r, payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return kind, payload, nil
}
