package segments_test

import (
	"context"
	"net"
	"slices"
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
			Store: friend.store, Members: allMembers{f.device}, CallsPerSecond: 1e9,
			Caller: func(context.Context) (grid.PeerID, bool) { return f.device.Peer, true },
		})
		if err != nil {
			t.Fatal(err)
		}
		listener := bufconn.Listen(lineQueue)
		g := grpc.NewServer(grpc.ForceServerCodecV2(shardrpc.Codec()),
			grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(2*window))
		shardsv1.RegisterShardsServer(g, server)
		var done sync.WaitGroup
		done.Go(func() { _ = g.Serve(listener) })
		conn, err := grpc.NewClient("passthrough:///friend", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(2*window),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				conn, err := listener.DialContext(ctx)
				if err != nil || f.line == nil {
					return conn, err
				}
				return f.line.join(conn), nil
			}))
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

// TestMemoryIsNotReusedTooEarly: bytes that wait in a connection to a slow
// holder stay what they were while the next segments are sent, and those that
// were given up never count.
func TestMemoryIsNotReusedTooEarly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		for _, friend := range f.list {
			friend.store = friend.faults
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

// line is the internet access of the device: all connections share its bytes a
// second, each way.
type line struct {
	rate     int
	up, down chan struct{} // the token of whoever is on the line
}

func newLine(rate int) *line {
	l := &line{rate: rate, up: make(chan struct{}, 1), down: make(chan struct{}, 1)}
	return l
}

// pass takes as long as n bytes take.
func (l *line) pass(way chan struct{}, n int) {
	way <- struct{}{}
	time.Sleep(time.Duration(n) * time.Second / time.Duration(l.rate))
	<-way
}

// lineQueue is what a connection holds for the line: the kernel's send buffer,
// which grows with the speed, and the router's.
const lineQueue = 128 << 10

// join puts a connection behind the line. Writes return once the bytes are in
// the queue, as in the kernel.
func (l *line) join(conn net.Conn) net.Conn {
	c := &lineConn{Conn: conn, line: l, queue: make(chan []byte, lineQueue/linePacket), closed: make(chan struct{})}
	go c.drain()
	return c
}

const linePacket = 4 << 10

type lineConn struct {
	net.Conn
	line   *line
	queue  chan []byte
	closed chan struct{}
	once   sync.Once
}

func (c *lineConn) drain() {
	for {
		select {
		case p := <-c.queue:
			c.line.pass(c.line.up, len(p))
			if _, err := c.Conn.Write(p); err != nil {
				return
			}
		case <-c.closed:
			return
		}
	}
}

func (c *lineConn) Write(p []byte) (int, error) {
	for packet := range slices.Chunk(p, linePacket) {
		select {
		case c.queue <- slices.Clone(packet):
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	return len(p), nil
}

func (c *lineConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), linePacket)])
	c.line.pass(c.line.down, n)
	return n, err
}

func (c *lineConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestSlowLineIsNobodysFault: on a line of one megabit that several segments
// share, nothing is sent or fetched twice and nobody is blamed, however long it
// takes.
func TestSlowLineIsNobodysFault(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 12) // six to spare
		for _, friend := range f.list {
			friend.store = friend.memory
		}
		f.line = newLine(125_000)
		t.Cleanup(func() { time.Sleep(time.Minute) }) // until the queues have noticed the end
		f.overGRPC(t)
		s := f.open(fourOfSix)
		const size, parallel = 2 << 20, 3
		puts := make([]segments.Put, parallel)
		var all sync.WaitGroup
		d := took(func() {
			for i := range puts {
				all.Go(func() { puts[i] = f.mustPut(s, randomBytes(size+i)) })
			}
			all.Wait()
		})
		ideal := time.Duration(parallel*size*6/4) * time.Second / time.Duration(f.line.rate)
		if d > ideal*11/10 {
			t.Errorf("sending took %s where the line needs %s", d, ideal)
		}
		for _, put := range puts {
			if len(put.Causes) > 0 {
				t.Error(put.Causes)
			}
		}
		d = took(func() {
			for i, put := range puts {
				all.Go(func() { f.wantGet(s, put, randomBytes(size+i)) })
			}
			all.Wait()
		})
		if ideal = time.Duration(parallel*size) * time.Second / time.Duration(f.line.rate); d > ideal*11/10 {
			t.Errorf("fetching took %s where the line needs %s", d, ideal)
		}
	})
}
