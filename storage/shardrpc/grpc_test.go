package shardrpc_test

import (
	"bytes"
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"gotong/grid"
	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
	"gotong/storage/shardrpc"
	"gotong/storage/storagetest"
)

// members is a roster of fixed pairs.
type members map[grid.PeerID]grid.OwnerID

func (m members) OwnerOf(peer grid.PeerID) (grid.OwnerID, bool) {
	owner, ok := m[peer]
	return owner, ok
}

func (m members) PeerIDs() []grid.PeerID {
	return slices.SortedFunc(maps.Keys(m), grid.PeerID.Compare)
}

// callerKey carries who calls. Over a real connection that is proved by TLS.
const callerKey = "caller"

func callerFrom(ctx context.Context) (grid.PeerID, bool) {
	md, _ := metadata.FromIncomingContext(ctx)
	if values := md.Get(callerKey); len(values) == 1 {
		id, err := grid.ParsePeerID(values[0])
		return id, err == nil
	}
	return grid.PeerID{}, false
}

// wire is one server on an in-memory connection.
type wire struct {
	server   *shardrpc.Server
	listener *bufconn.Listener
}

const bufconnBytes = 1 << 20

// serve starts a server; it stops with the test.
func serve(t testing.TB, cfg shardrpc.ServerConfig) *wire {
	t.Helper()
	cfg.Caller = callerFrom
	server, err := shardrpc.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{server: server, listener: bufconn.Listen(bufconnBytes)}
	g := grpc.NewServer(grpc.ForceServerCodecV2(shardrpc.Codec()),
		grpc.InitialWindowSize(windowBytes), grpc.InitialConnWindowSize(windowBytes))
	shardsv1.RegisterShardsServer(g, server)
	var done sync.WaitGroup
	done.Go(func() { _ = g.Serve(w.listener) })
	t.Cleanup(func() {
		g.Stop()
		done.Wait()
		server.Wait()
	})
	return w
}

const windowBytes = 4 << 20

// dial connects as a peer.
func (w *wire) dial(t testing.TB, as grid.PeerID) *grpc.ClientConn {
	t.Helper()
	identify := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, callerKey, as.String())
	}
	conn, err := grpc.NewClient("passthrough:///peer",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return w.listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(windowBytes), grpc.WithInitialConnWindowSize(windowBytes),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, s grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return s(identify(ctx), desc, cc, method, opts...)
		}),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(identify(ctx), method, req, reply, cc, opts...)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (w *wire) client(t testing.TB, as grid.PeerID) *shardrpc.Client {
	return shardrpc.NewClient(w.dial(t, as), storagetest.Peer("server"), shardrpc.ClientConfig{})
}

func TestConformance(t *testing.T) {
	device := storagetest.NewDevice("conformance")
	storagetest.Run(t, func(t *testing.T) storage.RemoteShards {
		w := serve(t, shardrpc.ServerConfig{
			Store:   storagetest.NewMemory(),
			Members: members{device.Peer: device.Owner},
		})
		return w.client(t, device.Peer)
	})
}

// TestSharedMemoryComesBack: WriteShared releases what it was given, once, for
// every length, and what arrives is right.
func TestSharedMemoryComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := storagetest.NewDevice("owner")
		store := storagetest.NewMemory()
		w := serve(t, shardrpc.ServerConfig{Store: store, Members: members{device.Peer: device.Owner}})
		c := w.client(t, device.Peer)
		const piece = 16 << 10
		for _, size := range []int{1, 1024, 1025, piece, piece + 1, piece + 1025, shardrpc.FrameBytes - 1, shardrpc.FrameBytes, shardrpc.FrameBytes + 1, 5*shardrpc.FrameBytes + piece + 7} {
			segment := device.Segment(t, storagetest.Vault("v"), storage.Redundancy{K: 1, N: 1}, size, "a")
			writer, err := c.CreateShard(t.Context(), segment.Header, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			var released, moved atomic.Int32
			writer.(interface{ OnProgress(func()) }).OnProgress(func() { moved.Add(1) })
			shared := writer.(interface {
				WriteShared([]byte, func()) (int, error)
			})
			if n, err := shared.WriteShared(slices.Clip(segment.Shards[0]), func() { released.Add(1) }); n != size || err != nil {
				t.Fatalf("%d of %d bytes, %v", n, size, err)
			}
			if err := writer.Commit(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if released.Load() != 1 || (size > 1024 && int(moved.Load()) < size/piece) {
				t.Errorf("%d bytes: released %d times, moved %d times", size, released.Load(), moved.Load())
			}
			if data, err := storagetest.Get(t.Context(), store, segment.ID(0), 0, -1); err != nil || !bytes.Equal(data, segment.Shards[0]) {
				t.Errorf("%d bytes: %d arrived, %v", size, len(data), err)
			}
		}
	})
}
