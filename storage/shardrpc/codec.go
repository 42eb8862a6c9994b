package shardrpc

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	// FrameBytes is how much of a shard one message carries at most.
	FrameBytes = 256 << 10

	// payloadField is the number of the payload in every message that carries
	// bytes of shards.
	payloadField protowire.Number = 15

	// frameHeadBytes is how much of a message is looked at to find its payload.
	// Messages with a payload have a few bytes before it; what needs more takes
	// the slow path.
	frameHeadBytes = 512
)

// frame is a message whose payload stays outside: in wire format the message
// msg followed by the payload as field 15. Marshalled and unmarshalled by
// Codec, the payload is never copied.
type frame struct {
	msg     proto.Message   // a PutRequest or GetResponse without its payload
	payload mem.BufferSlice // whoever holds the frame frees it
}

// free gives the payload back.
func (f *frame) free() {
	f.payload.Free()
	f.payload = nil
}

// Codec returns the codec that gRPC servers and clients of this package need
// (grpc.ForceServerCodecV2, grpc.ForceCodecV2). It is the protobuf codec, on
// the wire too, except that it passes the payloads of shards without copying
// them. It serves every other message like gRPC's own codec.
func Codec() encoding.CodecV2 {
	return codec{encoding.GetCodecV2(grpcproto.Name)}
}

type codec struct {
	encoding.CodecV2 // for all that is not a frame
}

// Marshal implements encoding.CodecV2. A frame keeps its own reference to the
// payload; the result has another one.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	head, err := proto.Marshal(f.msg)
	if err != nil {
		return nil, err
	}
	size := f.payload.Len()
	if size == 0 {
		return mem.BufferSlice{mem.SliceBuffer(head)}, nil
	}
	head = protowire.AppendTag(head, payloadField, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(size))
	f.payload.Ref()
	out := make(mem.BufferSlice, 0, 1+len(f.payload))
	out = append(out, mem.SliceBuffer(head))
	return append(out, f.payload...), nil
}

// Unmarshal implements encoding.CodecV2. The payload of a frame refers to data
// and has its own reference to it.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	f.free()
	head, total := messageHead(data), data.Len()
	rest, start := splitPayload(head, total)
	if start < 0 {
		return f.unmarshalCopy(data)
	}
	if err := proto.Unmarshal(head[:rest], f.msg); err != nil {
		return err
	}
	f.payload = slicePayload(data, start)
	return nil
}

// unmarshalCopy takes any valid encoding, also those that no peer of ours
// sends, by copying the message.
func (f *frame) unmarshalCopy(data mem.BufferSlice) error {
	if err := proto.Unmarshal(data.Materialize(), f.msg); err != nil {
		return err
	}
	m := f.msg.ProtoReflect()
	field := m.Descriptor().Fields().ByNumber(payloadField)
	if field == nil || field.Kind() != protoreflect.BytesKind {
		return fmt.Errorf("message %s has no payload", m.Descriptor().FullName())
	}
	if payload := m.Get(field).Bytes(); len(payload) > 0 {
		f.payload = mem.BufferSlice{mem.SliceBuffer(payload)}
	}
	m.Clear(field)
	return nil
}

// messageHead returns the first bytes of a message: all of its first buffer,
// or a copy when that is too short to be sure of holding what is before the
// payload.
func messageHead(data mem.BufferSlice) []byte {
	if len(data) == 0 {
		return nil
	}
	first := data[0].ReadOnlyData()
	if len(data) == 1 || len(first) >= frameHeadBytes {
		return first
	}
	head := make([]byte, frameHeadBytes)
	return head[:data.CopyTo(head)]
}

// splitPayload finds a payload that ends a message of total bytes, of which
// head is the beginning. It returns the length of what is before the payload
// and where the payload starts (total when there is none), or a negative start
// when the message must be looked at as a whole.
func splitPayload(head []byte, total int) (rest, start int) {
	for pos := 0; pos < len(head); {
		num, typ, n := protowire.ConsumeTag(head[pos:])
		if n < 0 {
			return 0, -1
		}
		if num == payloadField && typ == protowire.BytesType {
			size, m := protowire.ConsumeVarint(head[pos+n:])
			if m < 0 || size != uint64(total-(pos+n+m)) {
				return 0, -1
			}
			return pos, pos + n + m
		}
		m := protowire.ConsumeFieldValue(num, typ, head[pos+n:])
		if m < 0 {
			return 0, -1
		}
		pos += n + m
	}
	if len(head) < total {
		return 0, -1
	}
	return total, total
}

// slicePayload returns the bytes of data from start on with references of
// their own.
func slicePayload(data mem.BufferSlice, start int) mem.BufferSlice {
	payload := make(mem.BufferSlice, 0, len(data))
	for _, b := range data {
		n := b.Len()
		if start >= n {
			start -= n
			continue
		}
		payload = append(payload, b.Slice(start, n))
		start = 0
	}
	if len(payload) == 0 {
		return nil
	}
	return payload
}
