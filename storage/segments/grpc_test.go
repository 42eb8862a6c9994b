package segments_test

import (
	"context"
	"iter"
	"net"
	"sync"
	"testing"
	"time"

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

// listless makes a shardrpc.Store of a store without a list.
type listless struct{ storage.RemoteShards }

func (listless) List(context.Context, storage.VaultID) iter.Seq2[storage.ShardID, error] {
	return func(func(storage.ShardID, error) bool) {}
}

// TestMemoryIsNotReusedTooEarly: bytes that wait in a connection to a slow
// holder stay what they were while the next segments are sent, and those that
// were given up never count.
func TestMemoryIsNotReusedTooEarly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		for _, friend := range f.list {
			friend.store = listless{friend.faults}
		}
		f.overGRPC(t)
		f.list[2].faults.Set(storagetest.Faults{Delay: 200 * time.Millisecond}) // for each 16 KiB
		s := f.open(fourOfSix, func(c *segments.Config) { c.StragglerMin = time.Second })
		var puts []segments.Put
		for i := range 6 {
			put, err := s.Put(t.Context(), randomBytes(1<<20+i))
			if err != nil || !put.Committed {
				t.Fatalf("%+v, %v", put, err)
			}
			puts = append(puts, put)
		}
		time.Sleep(time.Minute)
		f.list[2].faults.Set(storagetest.Faults{})
		for i, put := range puts {
			f.wantGet(s, put, randomBytes(1<<20+i))
		}
		if p := s.Problems(); len(p) > 0 {
			t.Errorf("%+v", p)
		}
	})
}
