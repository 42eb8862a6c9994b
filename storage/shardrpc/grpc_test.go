package shardrpc_test

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"

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
