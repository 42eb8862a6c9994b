package shardrpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"gotong/grid"
	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
	"gotong/storage/shardrpc"
	"gotong/storage/storagetest"
)

// shardBytes is more than one frame.
const shardBytes = 3*shardrpc.FrameBytes/2 + 7

func sample(t testing.TB) (storagetest.Device, storagetest.Segment) {
	device := storagetest.NewDevice("owner")
	return device, device.Segment(t, storagetest.Vault("v"), storage.Redundancy{K: 1, N: 2}, shardBytes, "a")
}

// TestServerRefusesWhatTheProtocolDoesNotAllow speaks to the server with
// gRPC's own codec, which shows too that any protobuf implementation can.
func TestServerRefusesWhatTheProtocolDoesNotAllow(t *testing.T) {
	device, segment := sample(t)
	data := segment.Shards[0]
	start := func() *shardsv1.PutRequest {
		return &shardsv1.PutRequest{Start: &shardsv1.PutStart{Header: segment.Header.Raw}}
	}
	part := func(from, to int) *shardsv1.PutRequest {
		return &shardsv1.PutRequest{Offset: uint64(from), Payload: data[from:to], Finished: to == len(data)}
	}
	const frame = shardrpc.FrameBytes
	long := part(0, frame)
	long.Payload = data[:frame+1]
	late := part(0, frame)
	late.Start = start().Start
	boast := part(0, frame)
	boast.Finished = true
	cases := []struct {
		name     string
		messages []*shardsv1.PutRequest
	}{
		{"nothing", nil},
		{"no name", []*shardsv1.PutRequest{part(0, frame)}},
		{"index beyond n", []*shardsv1.PutRequest{{Start: &shardsv1.PutStart{Header: segment.Header.Raw, Index: 2}}}},
		{"bad holders", []*shardsv1.PutRequest{{Start: &shardsv1.PutStart{Header: segment.Header.Raw, Holders: []*shardsv1.Holder{{Peer: []byte("x")}}}}}},
		{"ends early", []*shardsv1.PutRequest{start(), part(0, frame)}},
		{"gap", []*shardsv1.PutRequest{start(), part(frame, len(data))}},
		{"twice", []*shardsv1.PutRequest{start(), part(0, frame), part(0, frame)}},
		{"too long a frame", []*shardsv1.PutRequest{start(), long}},
		{"named twice", []*shardsv1.PutRequest{start(), late}},
		{"finished early", []*shardsv1.PutRequest{start(), boast}},
		{"empty frames", []*shardsv1.PutRequest{start(), {}}},
		{"more after the end", []*shardsv1.PutRequest{start(), part(0, frame), part(frame, len(data)), part(frame, len(data))}},
	}
	store := storagetest.NewMemory()
	w := serve(t, shardrpc.ServerConfig{Store: store, Members: members{device.Peer: device.Owner}})
	raw := shardsv1.NewShardsClient(w.dial(t, device.Peer))
	put := func(messages []*shardsv1.PutRequest) error {
		stream, err := raw.Put(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			if stream.Send(m) != nil {
				break // the status tells why
			}
		}
		_ = stream.CloseSend()
		for err == nil {
			_, err = stream.Recv()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	for _, c := range cases {
		if err := put(c.messages); reason(err) != "protocol" {
			t.Errorf("%s: %v", c.name, err)
		}
		if answers, err := store.Have(t.Context(), []storage.SegmentID{segment.Header.ID}); err != nil || len(answers[0].Shards) > 0 {
			t.Fatalf("%s: something was stored", c.name)
		}
	}
	if err := put([]*shardsv1.PutRequest{start(), part(0, frame), part(frame, len(data))}); err != nil {
		t.Error("a plain protobuf client cannot put:", err)
	}
}

// reason returns the word in the details of a status.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if f, ok := detail.(*shardsv1.Failure); ok {
			return f.Reason
		}
	}
	return ""
}

// liar is a server that answers whatever a test wants.
type liar struct {
	shardsv1.UnimplementedShardsServer
	get   func(grpc.ServerStreamingServer[shardsv1.GetResponse]) error
	have  func(*shardsv1.HaveRequest, grpc.ServerStreamingServer[shardsv1.HaveResponse]) error
	heads []*shardsv1.HeadsResponse
	put   func(shardsv1.Shards_PutServer) error
	lists [][][]byte // answers of HeadHistory, Deletions and Prove
}

func (l *liar) HeadHistory(_ *shardsv1.HeadHistoryRequest, s grpc.ServerStreamingServer[shardsv1.HeadHistoryResponse]) error {
	for _, list := range l.lists {
		if err := s.Send(&shardsv1.HeadHistoryResponse{Heads: list}); err != nil {
			return err
		}
	}
	return nil
}

func (l *liar) Deletions(_ *shardsv1.DeletionsRequest, s grpc.ServerStreamingServer[shardsv1.DeletionsResponse]) error {
	for _, list := range l.lists {
		if err := s.Send(&shardsv1.DeletionsResponse{Deletions: list}); err != nil {
			return err
		}
	}
	return nil
}

func (l *liar) Prove(_ *shardsv1.ProveRequest, s grpc.ServerStreamingServer[shardsv1.ProveResponse]) error {
	for _, list := range l.lists {
		if err := s.Send(&shardsv1.ProveResponse{Proofs: list}); err != nil {
			return err
		}
	}
	return nil
}

func (l *liar) Get(_ *shardsv1.GetRequest, s grpc.ServerStreamingServer[shardsv1.GetResponse]) error {
	return l.get(s)
}

func (l *liar) Have(req *shardsv1.HaveRequest, s grpc.ServerStreamingServer[shardsv1.HaveResponse]) error {
	return l.have(req, s)
}

func (l *liar) Heads(_ *shardsv1.HeadsRequest, s grpc.ServerStreamingServer[shardsv1.HeadsResponse]) error {
	for _, m := range l.heads {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func (l *liar) Put(s shardsv1.Shards_PutServer) error { return l.put(s) }

// face returns a client of the liar.
func face(t *testing.T, l *liar, cfg shardrpc.ClientConfig) *shardrpc.Client {
	listener := bufconn.Listen(bufconnBytes)
	g := grpc.NewServer()
	shardsv1.RegisterShardsServer(g, l)
	var done sync.WaitGroup
	done.Go(func() { _ = g.Serve(listener) })
	t.Cleanup(func() {
		g.Stop()
		done.Wait()
	})
	conn, err := grpc.NewClient("passthrough:///peer", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return shardrpc.NewClient(conn, storagetest.Peer("liar"), cfg)
}

func TestClientBelievesNothing(t *testing.T) {
	device, segment := sample(t)
	_ = device
	other := storagetest.NewDevice("other").Segment(t, storagetest.Vault("v"), storage.Redundancy{K: 1, N: 2}, shardBytes, "b")
	data := segment.Shards[0]
	start := func(s storagetest.Segment, n int) *shardsv1.GetResponse {
		return &shardsv1.GetResponse{Start: &shardsv1.GetStart{Header: s.Header.Raw, Length: uint64(n)}}
	}
	part := func(from, to int) *shardsv1.GetResponse {
		return &shardsv1.GetResponse{Offset: uint64(from), Payload: data[from:to], Finished: to == len(data)}
	}
	const frame = shardrpc.FrameBytes
	boast := part(0, frame)
	boast.Finished = true
	renamed := part(0, frame)
	renamed.Start = start(segment, len(data)).Start
	for _, c := range []struct {
		name     string
		messages []*shardsv1.GetResponse
		want     error
	}{
		{"nothing", nil, shardrpc.ErrProtocol},
		{"no name", []*shardsv1.GetResponse{part(0, frame)}, shardrpc.ErrProtocol},
		{"another segment", []*shardsv1.GetResponse{start(other, shardBytes)}, storage.ErrCorrupt},
		{"no header", []*shardsv1.GetResponse{{Start: &shardsv1.GetStart{Length: 1}}}, storage.ErrCorrupt},
		{"another length", []*shardsv1.GetResponse{start(segment, 5)}, shardrpc.ErrProtocol},
		{"cut off", []*shardsv1.GetResponse{start(segment, len(data)), part(0, frame)}, shardrpc.ErrProtocol},
		{"gap", []*shardsv1.GetResponse{start(segment, len(data)), part(frame, len(data))}, shardrpc.ErrProtocol},
		{"finished early", []*shardsv1.GetResponse{start(segment, len(data)), boast}, shardrpc.ErrProtocol},
		{"named twice", []*shardsv1.GetResponse{start(segment, len(data)), renamed}, shardrpc.ErrProtocol},
		{"empty frames", []*shardsv1.GetResponse{start(segment, len(data)), {}}, shardrpc.ErrProtocol},
		{"more after the end", []*shardsv1.GetResponse{start(segment, len(data)), part(0, frame), part(frame, len(data)), {}}, shardrpc.ErrProtocol},
	} {
		c := c
		l := &liar{get: func(s grpc.ServerStreamingServer[shardsv1.GetResponse]) error {
			for _, m := range c.messages {
				if err := s.Send(m); err != nil {
					return err
				}
			}
			return nil
		}}
		_, err := storagetest.Get(t.Context(), face(t, l, shardrpc.ClientConfig{}), segment.ID(0), 0, -1)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestClientBoundsAnswers(t *testing.T) {
	_, segment := sample(t)
	id := segment.Header.ID
	answer := func(segments ...*shardsv1.SegmentAnswer) *liar {
		return &liar{have: func(_ *shardsv1.HaveRequest, s grpc.ServerStreamingServer[shardsv1.HaveResponse]) error {
			return s.Send(&shardsv1.HaveResponse{Segments: segments})
		}}
	}
	good := &shardsv1.SegmentAnswer{Segment: id[:]}
	many := &shardsv1.SegmentAnswer{Segment: id[:], Shards: make([]*shardsv1.ShardAnswer, storage.MaxShards+1)}
	for name, l := range map[string]*liar{
		"none":             answer(),
		"two":              answer(good, good),
		"another segment":  answer(&shardsv1.SegmentAnswer{Segment: make([]byte, 32)}),
		"too many shards":  answer(many),
		"no state":         answer(&shardsv1.SegmentAnswer{Segment: id[:], Shards: []*shardsv1.ShardAnswer{{Index: 1}}}),
		"impossible shard": answer(&shardsv1.SegmentAnswer{Segment: id[:], Shards: []*shardsv1.ShardAnswer{{Index: 99, State: shardsv1.ShardState_SHARD_STATE_STORED}}}),
	} {
		if _, err := face(t, l, shardrpc.ClientConfig{}).Have(t.Context(), []storage.SegmentID{id}); !errors.Is(err, shardrpc.ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	long, some := make([]byte, storage.MaxHeadBytes), make([][]byte, 50)
	for name, lists := range map[string][][][]byte{
		"empty messages": {{}, {}},
		"giant item":     {{make([]byte, storage.MaxHeadBytes+1)}},
		"endless list":   {some, some, some, some, some, some},
		"endless bytes":  slices.Repeat([][][]byte{{long}}, 20),
	} {
		c := face(t, &liar{lists: lists}, shardrpc.ClientConfig{})
		for what, err := range map[string]error{
			"history":   second(c.HeadHistory(t.Context(), grid.OwnerID{}, storage.VaultID{}, storage.HeadCursor{})),
			"deletions": second(c.Deletions(t.Context(), grid.OwnerID{}, storage.VaultID{}, 0)),
			"proofs":    second(c.Prove(t.Context(), segment.ID(0), []int{0, 1})),
		} {
			if !errors.Is(err, shardrpc.ErrProtocol) {
				t.Errorf("%s, %s: %v", what, name, err)
			}
		}
	}
	if _, err := face(t, &liar{lists: [][][]byte{{{1}}}}, shardrpc.ClientConfig{}).Prove(t.Context(), segment.ID(0), []int{0, 1}); !errors.Is(err, shardrpc.ErrProtocol) {
		t.Errorf("one proof of two: %v", err)
	}
	head := make([]byte, storage.MaxHeadBytes+1)
	vault := make([]byte, 32)
	for name, messages := range map[string][]*shardsv1.HeadsResponse{
		"no vault":     {{}},
		"giant head":   {{Vault: vault, Heads: [][]byte{head}}},
		"endless list": {{Vault: vault, Heads: make([][]byte, storage.MaxHeadLinks)}, {Vault: vault, Heads: [][]byte{{1}}}},
		"forks":        {{Vault: vault, Forks: make([][]byte, storage.MaxHeadForks+1)}},
	} {
		if _, err := face(t, &liar{heads: messages}, shardrpc.ClientConfig{}).Heads(t.Context(), grid.OwnerID{}); !errors.Is(err, shardrpc.ErrProtocol) {
			t.Errorf("heads, %s: %v", name, err)
		}
	}
}

// TestClientGivesUpOnSilence: a peer that takes a call and then does nothing
// costs one idle limit at each step, in a bubble where time is free.
func TestClientGivesUpOnSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, segment := sample(t)
		silent := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		l := &liar{
			get: func(s grpc.ServerStreamingServer[shardsv1.GetResponse]) error { return silent(s.Context()) },
			have: func(_ *shardsv1.HaveRequest, s grpc.ServerStreamingServer[shardsv1.HaveResponse]) error {
				return silent(s.Context())
			},
			put: func(s shardsv1.Shards_PutServer) error { return silent(s.Context()) },
		}
		c := face(t, l, shardrpc.ClientConfig{IdleTimeout: time.Minute, CallTimeout: time.Minute})
		began := time.Now()
		_, getErr := c.OpenShard(t.Context(), segment.ID(0), 0, -1)
		_, haveErr := c.Have(t.Context(), []storage.SegmentID{segment.Header.ID})
		_, putErr := c.CreateShard(t.Context(), segment.Header, 0, nil)
		for _, err := range []error{getErr, haveErr, putErr} {
			if !errors.Is(err, shardrpc.ErrStalled) {
				t.Error(err)
			}
		}
		if took := time.Since(began); took != 3*time.Minute {
			t.Errorf("took %s", took)
		}
	})
}

// TestServerGivesUpOnSilence: a caller that opens a transfer and then does
// nothing does not hold a writer for ever.
func TestServerGivesUpOnSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device, segment := sample(t)
		store := storagetest.NewMemory()
		store.Capacity = shardBytes // room for one writer
		w := serve(t, shardrpc.ServerConfig{Store: store, Members: members{device.Peer: device.Owner}})
		c := w.client(t, device.Peer)
		if _, err := c.CreateShard(t.Context(), segment.Header, 0, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := c.CreateShard(t.Context(), segment.Header, 1, nil); !errors.Is(err, storage.ErrFull) {
			t.Fatal("there is room for two:", err)
		}
		time.Sleep(shardrpc.DefaultServerIdle)
		synctest.Wait()
		if err := storagetest.Put(t.Context(), c, segment, 1, nil); err != nil {
			t.Error("the silent caller still holds the room:", err)
		}
	})
}

// TestSlowIsNotDead: a transfer may take far longer than its limits as long as
// something moves, even where all bytes wait in the buffers of a slow receiver.
func TestSlowIsNotDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device, segment := sample(t)
		slow := storagetest.NewFaulty(storagetest.NewMemory())
		w := serve(t, shardrpc.ServerConfig{Store: slow, Members: members{device.Peer: device.Owner}})
		limits := shardrpc.ClientConfig{IdleTimeout: time.Minute, CommitTimeout: time.Minute}
		c := shardrpc.NewClient(w.dial(t, device.Peer), storagetest.Peer("slow"), limits)
		slow.Set(storagetest.Faults{Delay: 3 * time.Second}) // for each 16 KiB
		began := time.Now()
		if err := storagetest.Put(t.Context(), c, segment, 0, nil); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < limits.CommitTimeout {
			t.Errorf("took %s only", took)
		}
		if _, err := storagetest.Get(t.Context(), c, segment.ID(0), 0, -1); err != nil {
			t.Error(err)
		}
	})
}
