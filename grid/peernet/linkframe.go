package peernet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A link carries frames: type (1 byte), length of the payload (2 bytes,
// big-endian), payload.
type frameType byte

const (
	frameVerdict frameType = 1 // to the keeper: 1 byte, 1 if it can be dialled
	frameCheck   frameType = 2 // from the keeper: please check again; empty
	framePing    frameType = 3 // from the keeper; empty
	framePong    frameType = 4 // to the keeper; empty
	frameRequest frameType = 5 // to the keeper: nonce, protocol: dial back
	frameRefusal frameType = 6 // from the keeper: nonce: will not dial back
)

const (
	nonceBytes      = 16
	frameHeadBytes  = 3
	maxFramePayload = nonceBytes + maxProtocolLen
)

// nonce pairs a dial-back with its request.
type nonce [nonceBytes]byte

var errFrame = errors.New("malformed frame on a link")

// frame is one message on a link. Which fields count depends on the type.
type frame struct {
	kind     frameType
	dialable bool     // verdict
	nonce    nonce    // request, refusal
	protocol Protocol // request
}

func (f frame) encode() []byte {
	var payload []byte
	switch f.kind {
	case frameVerdict:
		payload = []byte{0}
		if f.dialable {
			payload[0] = 1
		}
	case frameRequest:
		payload = append(f.nonce[:], f.protocol...)
	case frameRefusal:
		payload = f.nonce[:]
	}
	out := make([]byte, 0, frameHeadBytes+len(payload))
	out = append(out, byte(f.kind))
	out = binary.BigEndian.AppendUint16(out, uint16(len(payload)))
	return append(out, payload...)
}

// readFrame reads one frame; a malformed one is errFrame, and the link is then
// of no further use.
func readFrame(r io.Reader) (frame, error) {
	var head [frameHeadBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	size := int(binary.BigEndian.Uint16(head[1:]))
	if size > maxFramePayload {
		return frame{}, fmt.Errorf("%w: %d bytes", errFrame, size)
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(r, payload); err != nil {
		return frame{}, err
	}
	return parseFrame(frameType(head[0]), payload)
}

func parseFrame(kind frameType, payload []byte) (frame, error) {
	f := frame{kind: kind}
	ok := false
	switch kind {
	case frameVerdict:
		ok = len(payload) == 1 && payload[0] <= 1
		f.dialable = ok && payload[0] == 1
	case frameCheck, framePing, framePong:
		ok = len(payload) == 0
	case frameRequest:
		ok = len(payload) > nonceBytes
		if ok {
			f.nonce = nonce(payload)
			f.protocol = Protocol(payload[nonceBytes:])
		}
	case frameRefusal:
		ok = len(payload) == nonceBytes
		if ok {
			f.nonce = nonce(payload)
		}
	}
	if !ok {
		return frame{}, fmt.Errorf("%w: type %d, %d bytes", errFrame, kind, len(payload))
	}
	return f, nil
}
