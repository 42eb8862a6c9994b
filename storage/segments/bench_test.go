package segments_test

import (
	"bytes"
	"context"
	"iter"
	"net"
	"sync"
	"testing"

	"github.com/zeebo/blake3"
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
			Store: friend.store.(shardrpc.Store), Members: allMembers{f.device}, CallsPerSecond: 1e9,
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
	for _, friend := range f.list {
		friend.store = friend.memory
	}
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
	if acks, err := s.PublishHeads(t.Context(), storagetest.Raw(head)); err != nil || acks != 6 {
		t.Errorf("%d have the head, %v", acks, err)
	}
	wantHeads(t, s, f.device.Owner, head)
	s.Close()
}

// lastShards keeps the latest shard only, in memory that it uses again, and
// verifies it as a holder does. What it costs beside that is one copy, so that
// a benchmark shows the way there.
type lastShards struct {
	storage.RemoteShards
	mu   sync.Mutex
	last lastShard
}

type lastShard struct {
	id     storage.ShardID
	header storage.SignedHeader
	data   []byte
}

func (l *lastShards) CreateShard(_ context.Context, header storage.SignedHeader, index int, _ []storage.Holder) (storage.ShardWriter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	shard := lastShard{storage.ShardID{Segment: header.ID, Index: index}, header, l.last.data[:0]}
	l.last = lastShard{}
	return &lastWriter{l, shard, blake3.New()}, nil
}

type lastWriter struct {
	store *lastShards
	shard lastShard
	hash  *blake3.Hasher
}

func (w *lastWriter) Write(p []byte) (int, error) {
	w.shard.data = append(w.shard.data, p...)
	return w.hash.Write(p)
}

func (w *lastWriter) Commit() error {
	if [32]byte(w.hash.Sum(nil)) != w.shard.header.Roots[w.shard.id.Index] {
		return storage.ErrCorrupt
	}
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	w.store.last = w.shard
	return nil
}

func (w *lastWriter) Abort() {}

func (l *lastShards) OpenShard(_ context.Context, id storage.ShardID, off, n int64) (storage.ShardReader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	shard := l.last
	if shard.id != id {
		return nil, storage.ErrNotFound
	}
	if n < 0 {
		n = int64(len(shard.data)) - off
	}
	return lastReader{bytes.NewReader(shard.data[off : off+n]), shard.header}, nil
}

type lastReader struct {
	*bytes.Reader
	header storage.SignedHeader
}

func (r lastReader) Header() storage.SignedHeader { return r.header }
func (lastReader) Holders() []storage.Holder      { return nil }
func (lastReader) Close() error                   { return nil }

func (l *lastShards) List(context.Context, storage.VaultID) iter.Seq2[storage.ShardID, error] {
	return func(func(storage.ShardID, error) bool) {}
}

// newBenchFriends returns six friends with lastShards as stores.
func newBenchFriends(b *testing.B) *friends {
	f := newFriends(b, 6)
	for _, friend := range f.list {
		friend.store = &lastShards{RemoteShards: friend.memory}
	}
	return f
}

func benchmarks(b *testing.B, run func(b *testing.B, f *friends)) {
	b.Run("memory", func(b *testing.B) { run(b, newBenchFriends(b)) })
	b.Run("grpc", func(b *testing.B) {
		f := newBenchFriends(b)
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
			f.mustPut(s, data)
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
