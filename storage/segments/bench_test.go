package segments_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"gotong/grid"
	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/shardrpc"
	"gotong/storage/storagetest"
)

// allMembers admits one device as every caller.
type allMembers struct{ device storagetest.Device }

func (m allMembers) OwnerOf(grid.PeerID) (grid.OwnerID, bool) { return m.device.Owner, true }
func (m allMembers) PeerIDs() []grid.PeerID                   { return []grid.PeerID{m.device.Peer} }

// overGRPC puts a gRPC connection between the device and each friend.
func (f *friends) overGRPC(t testing.TB) {
	const window = 4 << 20
	for _, friend := range f.list {
		server, err := shardrpc.NewServer(shardrpc.ServerConfig{
			Store: friend.memory, Members: allMembers{f.device}, CallsPerSecond: 1e9,
			Caller: func(context.Context) (grid.PeerID, bool) { return f.device.Peer, true },
		})
		if err != nil {
			t.Fatal(err)
		}
		listener := bufconn.Listen(1 << 20)
		g := grpc.NewServer(grpc.ForceServerCodecV2(shardrpc.Codec()),
			grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(2*window))
		shardsv1.RegisterShardsServer(g, server)
		var done sync.WaitGroup
		done.Go(func() { _ = g.Serve(listener) })
		conn, err := grpc.NewClient("passthrough:///friend", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(2*window),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		friend.store = shardrpc.NewClient(conn, friend.peer, shardrpc.ClientConfig{})
		t.Cleanup(func() {
			_ = conn.Close()
			g.Stop()
			done.Wait()
			server.Wait()
		})
	}
}

func TestOverGRPC(t *testing.T) {
	f := newFriends(t, 6)
	f.overGRPC(t)
	s := f.open(fourOfSix)
	for _, size := range []int{1, 100_000, storage.MaxSegmentBytes} {
		data := randomBytes(size)
		put := f.mustPut(s, data)
		f.wantGet(s, put, data)
		for i, h := range put.Holders {
			if i == 0 && !f.by(h.Peer).memory.Damage(storage.ShardID{Segment: put.ID, Index: h.Shard}) {
				t.Fatal("nothing to damage")
			}
		}
		f.wantGet(s, put, data)
		got, err := s.Range(t.Context(), put.ID, segments.Hint{Holders: put.Holders[3:]}, int64(size)-1, 1)
		if size > 1 && (err != nil || got[0] != data[size-1]) {
			t.Errorf("range: %v, %v", got, err)
		}
	}
	if len(s.Problems()) == 0 {
		t.Error("the damaged shards were not noted")
	}
	head := f.device.Heads(t, f.vault, 1)[0]
	if acks, err := s.PublishHead(t.Context(), head.Raw); err != nil || acks != 6 {
		t.Errorf("%d have the head, %v", acks, err)
	}
	wantHeads(t, s, f.device.Owner, head)
	s.Close()
}

func benchmarks(b *testing.B, run func(b *testing.B, f *friends)) {
	b.Run("memory", func(b *testing.B) { run(b, newFriends(b, 6)) })
	b.Run("grpc", func(b *testing.B) {
		f := newFriends(b, 6)
		f.overGRPC(b)
		run(b, f)
	})
}

func BenchmarkPut(b *testing.B) {
	benchmarks(b, func(b *testing.B, f *friends) {
		data := randomBytes(storage.MaxSegmentBytes)
		s := f.open(fourOfSix)
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			data[0], data[1] = byte(i), byte(i>>8) // else the holders have it already
			put := f.mustPut(s, data)
			for _, h := range put.Holders {
				_ = f.by(h.Peer).memory.DeleteShard(b.Context(), storage.ShardID{Segment: put.ID, Index: h.Shard})
			}
		}
	})
}

func benchmarkGet(b *testing.B, lost int) {
	benchmarks(b, func(b *testing.B, f *friends) {
		data := randomBytes(storage.MaxSegmentBytes)
		s := f.open(fourOfSix)
		put := f.mustPut(s, data)
		for _, h := range put.Holders[:lost] {
			f.absent[h.Peer] = true
		}
		buffer := make([]byte, segments.BufferBytes)
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Get(b.Context(), put.ID, segments.Hint{Header: put.Header, Holders: put.Holders, Buffer: buffer}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkGet(b *testing.B)         { benchmarkGet(b, 0) }
func BenchmarkGetDegraded(b *testing.B) { benchmarkGet(b, 2) }
