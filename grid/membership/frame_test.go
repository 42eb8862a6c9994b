package membership

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestFrameRoundTrip(t *testing.T) {
	stream := appendFrame(nil, framePacket, []byte("packet"))
	stream = appendFrame(stream, frameAsk, nil)
	stream = appendFrame(stream, framePacket, make([]byte, maxPacketBytes))
	r := bytes.NewReader(stream)
	for _, want := range []struct {
		kind  byte
		bytes int
	}{{framePacket, 6}, {frameAsk, 0}, {framePacket, maxPacketBytes}} {
		kind, payload, err := readFrame(r)
		if err != nil || kind != want.kind || len(payload) != want.bytes {
			t.Fatalf("kind %d, %d bytes, %v; want %+v", kind, len(payload), err, want)
		}
	}
	if _, _, err := readFrame(r); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(appendFrame(nil, framePacket, []byte("packet")))
	f.Add(appendFrame(appendFrame(nil, frameAsk, nil), frameAnswer, nil))
	f.Add([]byte{framePacket, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{framePacket, 0, 0, 0})
	f.Add([]byte{9, 0, 0, 0})
	f.Add([]byte{frameAsk, 0, 0, 1, 7})
	f.Add([]byte{framePacket, 0, 0, 9, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		var again []byte
		for {
			kind, payload, err := readFrame(r)
			if err != nil {
				break
			}
			if len(payload) > maxPacketBytes {
				t.Fatalf("packet of %d bytes", len(payload))
			}
			again = appendFrame(again, kind, payload)
		}
		if !bytes.HasPrefix(data, again) {
			t.Fatal("frames do not write back to the same bytes")
		}
	})
}
