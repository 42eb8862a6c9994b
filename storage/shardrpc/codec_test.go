package shardrpc

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	shardsv1 "gotong/proto/shards/v1"
)

// split cuts b into buffers of at most size bytes, the way a transport hands
// over a message.
func split(b []byte, size int) mem.BufferSlice {
	var out mem.BufferSlice
	for len(b) > 0 {
		n := min(max(size, 1), len(b))
		out = append(out, mem.SliceBuffer(b[:n:n]))
		b = b[n:]
	}
	return out
}

// sameAsProto checks that the codec reads wire, in buffers of the given size,
// exactly as protobuf does.
func sameAsProto(t interface{ Fatalf(string, ...any) }, wire []byte, size int, empty proto.Message) {
	want := proto.Clone(empty)
	wantErr := proto.Unmarshal(wire, want)
	f := &frame{msg: proto.Clone(empty)}
	err := Codec().Unmarshal(split(wire, size), f)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("codec says %v, protobuf says %v", err, wantErr)
	}
	if err != nil {
		return
	}
	field := want.ProtoReflect().Descriptor().Fields().ByNumber(payloadField)
	if got := want.ProtoReflect().Get(field).Bytes(); !bytes.Equal(got, f.payload.Materialize()) {
		t.Fatalf("payload of %d bytes, protobuf has %d", f.payload.Len(), len(got))
	}
	want.ProtoReflect().Clear(field)
	if !proto.Equal(want, f.msg) {
		t.Fatalf("codec reads %v, protobuf %v", f.msg, want)
	}
	f.free()
}

func TestPayloadFieldsHaveTheAgreedNumber(t *testing.T) {
	seen := 0
	messages := shardsv1.File_shards_v1_shards_proto.Messages()
	for i := range messages.Len() {
		if field := messages.Get(i).Fields().ByName("payload"); field != nil {
			seen++
			if field.Number() != payloadField || field.Kind() != protoreflect.BytesKind {
				t.Errorf("%s is number %d of kind %s", field.FullName(), field.Number(), field.Kind())
			}
		}
	}
	if seen != 2 {
		t.Errorf("saw %d messages with a payload, want 2", seen)
	}
}

func TestCodecEqualsProtobuf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		payload := rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(t, "payload")
		m := &shardsv1.PutRequest{Offset: rapid.Uint64().Draw(t, "offset"), Finished: rapid.Bool().Draw(t, "finished")}
		if rapid.Bool().Draw(t, "start") {
			m.Start = &shardsv1.PutStart{
				Header: rapid.SliceOfN(rapid.Byte(), 0, 1500).Draw(t, "header"),
				Index:  rapid.Uint32().Draw(t, "index"),
			}
		}
		out, err := Codec().Marshal(&frame{msg: m, payload: split(payload, rapid.IntRange(1, 700).Draw(t, "piece"))})
		if err != nil {
			t.Fatalf("marshal: %v", err)
		}
		wire := out.Materialize()
		whole := proto.Clone(m).(*shardsv1.PutRequest)
		whole.Payload = payload
		back := new(shardsv1.PutRequest)
		if err := proto.Unmarshal(wire, back); err != nil || !proto.Equal(whole, back) {
			t.Fatalf("protobuf reads %v (%v), want %v", back, err, whole)
		}
		size := rapid.IntRange(1, len(wire)+1).Draw(t, "buffer")
		sameAsProto(t, wire, size, new(shardsv1.PutRequest))
	})
}

func TestCodecDoesNotCopyThePayload(t *testing.T) {
	payload := make([]byte, FrameBytes)
	out, err := Codec().Marshal(&frame{msg: &shardsv1.PutRequest{Offset: 7}, payload: mem.BufferSlice{mem.SliceBuffer(payload)}})
	if err != nil {
		t.Fatal(err)
	}
	if last := out[len(out)-1].ReadOnlyData(); &last[0] != &payload[0] || len(last) != len(payload) {
		t.Error("sending copies the payload")
	}
	wire := out.Materialize()
	in := split(wire, 16<<10)
	f := &frame{msg: new(shardsv1.PutRequest)}
	if err := Codec().Unmarshal(in, f); err != nil {
		t.Fatal(err)
	}
	first := f.payload[0].ReadOnlyData()
	if &first[len(first)-1] != &wire[len(in[0].ReadOnlyData())-1] {
		t.Error("receiving copies the payload")
	}
}

func TestCodecGivesBuffersBack(t *testing.T) {
	pool := new(countingPool)
	data := make([]byte, FrameBytes)
	f := &frame{msg: new(shardsv1.PutRequest), payload: mem.BufferSlice{mem.NewBuffer(&data, pool)}}
	out, err := Codec().Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	f.free()
	if pool.put != 0 {
		t.Fatal("the buffer went back while gRPC refers to it")
	}
	in := &frame{msg: new(shardsv1.PutRequest)}
	if err := Codec().Unmarshal(out, in); err != nil {
		t.Fatal(err)
	}
	out.Free()
	if pool.put != 0 {
		t.Fatal("the buffer went back while the received frame refers to it")
	}
	in.free()
	if pool.put != 1 {
		t.Errorf("the buffer went back %d times, want once", pool.put)
	}
}

type countingPool struct{ put int }

func (p *countingPool) Get(n int) *[]byte { b := make([]byte, n); return &b }
func (p *countingPool) Put(*[]byte)       { p.put++ }

func FuzzCodec(f *testing.F) {
	start := &shardsv1.PutStart{Header: []byte("header"), Index: 3}
	seeds := []*shardsv1.PutRequest{
		{Start: start}, {Offset: 1, Payload: []byte("payload")}, {Finished: true}, {Start: start, Payload: make([]byte, 600)},
	}
	for _, seed := range seeds {
		wire, err := proto.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, 16)
		f.Add(append(wire, wire...), 1000)
	}
	f.Add(protowire.AppendTag(nil, payloadField, protowire.StartGroupType), 1)
	f.Add(protowire.AppendVarint(protowire.AppendTag(nil, payloadField, protowire.VarintType), 1), 1)
	f.Fuzz(func(t *testing.T, wire []byte, size int) {
		sameAsProto(t, wire, size, new(shardsv1.PutRequest))
		sameAsProto(t, wire, size, new(shardsv1.GetResponse))
	})
}
