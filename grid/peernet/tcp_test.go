package peernet_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"gotong/grid"
	"gotong/grid/peernet"
)

// onLoopback starts two members on real sockets.
func onLoopback(t testing.TB) (ann, bob *machine) {
	t.Helper()
	one := func() *machine {
		m := &machine{key: newKey(t), book: newBook()}
		m.book.set(m.key.PeerID(), peernet.Member)
		m.Net = start(t, peernet.Config{Node: m.key, Directory: m.book, ListenAddr: "127.0.0.1:0"})
		return m
	}
	ann, bob = one(), one()
	for _, way := range [][2]*machine{{ann, bob}, {bob, ann}} {
		way[0].book.set(way[1].Self(), peernet.Member, way[1].Addr().String())
	}
	return ann, bob
}

func TestLoopback(t *testing.T) {
	ann, bob := onLoopback(t)
	l := bob.Accept(peernet.ProtoGossip)
	c := dial(t, ann, bob.Self(), peernet.ProtoGossip)
	onBob := accepted(t, l)
	talk(t, c, onBob, ann.Self(), bob.Self())

	// The refusal of a stranger arrives, whatever was still in flight.
	for range 20 {
		mallory := start(t, peernet.Config{Node: newKey(t), Directory: ann.book, ListenAddr: "127.0.0.1:0"})
		ann.book.set(mallory.Self(), peernet.Member)
		_, err := mallory.Dial(within(t, time.Minute), bob.Self(), peernet.ProtoGossip)
		if !errors.Is(err, grid.ErrNotMember) {
			t.Errorf("stranger: %v", err)
		}
	}
}

func TestLoopbackRemovedMemberIsCutWhileStreaming(t *testing.T) {
	ann, bob := onLoopback(t)
	l := bob.Accept(peernet.ProtoGossip)
	c := dial(t, ann, bob.Self(), peernet.ProtoGossip)
	onBob := accepted(t, l)
	wrote := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		_, err := onBob.Write(make([]byte, 64<<10))
		close(started)
		for err == nil { // nobody reads, so this gets stuck
			_, err = onBob.Write(make([]byte, 64<<10))
		}
		wrote <- err
	}()
	<-started
	begin := time.Now()
	bob.book.set(ann.Self(), peernet.Removed)
	<-wrote
	if _, err := io.Copy(io.Discard, c); err == nil {
		t.Error("the removed member saw a clean end")
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("cut after %v", took)
	}
}

// Close does not wait for an other side that does not read.
func TestCloseOfStuckConnection(t *testing.T) {
	ann, bob := onLoopback(t)
	l := bob.Accept(peernet.ProtoGossip)
	c := dial(t, ann, bob.Self(), peernet.ProtoGossip)
	accepted(t, l)
	if err := c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var err error
	for err == nil {
		_, err = c.Write(make([]byte, 1<<20))
	}
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		t.Fatalf("write: %v", err)
	}
	begin := time.Now()
	_ = c.Close()
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("Close took %v", took)
	}
}

// rawCodec passes *mem.BufferSlice without copying, as shards go.
type rawCodec struct{ encoding.CodecV2 }

func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(*mem.BufferSlice); ok {
		return *b, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if b, ok := v.(*mem.BufferSlice); ok {
		data.Ref()
		*b = data
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

const benchMessageBytes = 256 << 10

// BenchmarkStream sends messages one way through one gRPC stream.
func BenchmarkStream(b *testing.B) {
	payload := make([]byte, benchMessageBytes)
	b.Run("protobuf", func(b *testing.B) {
		benchStream(b, encoding.GetCodecV2(proto.Name),
			func() any { return wrapperspb.Bytes(payload) },
			func(s grpc.ServerStream) error { return s.RecvMsg(new(bytesValue)) })
	})
	b.Run("raw", func(b *testing.B) {
		benchStream(b, rawCodec{encoding.GetCodecV2(proto.Name)},
			func() any { return &mem.BufferSlice{mem.SliceBuffer(payload)} },
			func(s grpc.ServerStream) error {
				var got mem.BufferSlice
				err := s.RecvMsg(&got)
				got.Free()
				return err
			})
	})
	b.Run("tls-only", func(b *testing.B) { benchTLS(b, payload) })
}

// sink reads to the end of a stream.
type sink struct {
	echoServer
	receive func(grpc.ServerStream) error
}

func (s *sink) pipe(stream grpc.ServerStream) error {
	for {
		if err := s.receive(stream); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func benchStream(b *testing.B, codec encoding.CodecV2, message func() any, receive func(grpc.ServerStream) error) {
	ann, bob := onLoopback(b)
	var services peernet.Services
	services.RegisterService(&testDesc, &sink{receive: receive})
	server, err := peernet.NewServer(bob.Net, openRules(), &services, grpc.ForceServerCodecV2(codec))
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Run(b.Context(), time.Second) }()
	b.Cleanup(func() {
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	clients := peernet.NewClients(ann.Net, grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec)))
	defer clients.Close()
	stream := openPipe(b.Context(), b, clients, bob.Self())
	b.SetBytes(benchMessageBytes)
	b.ReportAllocs()
	for b.Loop() {
		if err := stream.SendMsg(message()); err != nil {
			b.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		b.Fatal(err)
	}
	if err := stream.RecvMsg(new(bytesValue)); err != io.EOF {
		b.Fatal(err)
	}
}

func benchTLS(b *testing.B, payload []byte) {
	ann, bob := onLoopback(b)
	l := bob.Accept(peernet.ProtoGossip)
	c := dial(b, ann, bob.Self(), peernet.ProtoGossip)
	onBob := accepted(b, l)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, onBob, make([]byte, 64<<10))
	}()
	b.SetBytes(benchMessageBytes)
	for b.Loop() {
		if _, err := c.Write(payload); err != nil {
			b.Fatal(err)
		}
	}
	_ = c.Close()
	<-done
}
