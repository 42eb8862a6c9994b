package peernet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"gotong/grid"
	"gotong/grid/peernet"
)

func TestCallerComesFromTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "bob")
		ann, bob := all[0], all[1]
		fromAnn := serve(t, ann.Net, openRules(), &echoServer{})
		fromBob := serve(t, bob.Net, openRules(), &echoServer{})
		for _, way := range []struct {
			clients  *peernet.Clients
			from, to grid.PeerID
		}{{fromAnn, ann.Self(), bob.Self()}, {fromBob, bob.Self(), ann.Self()}} {
			got, err := call(t.Context(), way.clients, way.to, methodEcho, []byte("x"))
			if err != nil || string(got) != string(way.from[:])+"x" {
				t.Errorf("got %q, %v", got, err)
			}
		}
	})
}

// gRPC works in both directions with a peer that cannot be dialled.
func TestGRPCOverDialBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "nat")
		ann, nat := all[0], all[1]
		nat.host.DropInbound(true)
		fromAnn := serve(t, ann.Net, openRules(), &echoServer{})
		fromNat := serve(t, nat.Net, openRules(), &echoServer{})
		time.Sleep(settle)
		for _, way := range []struct {
			clients  *peernet.Clients
			from, to grid.PeerID
		}{{fromAnn, ann.Self(), nat.Self()}, {fromNat, nat.Self(), ann.Self()}} {
			got, err := call(t.Context(), way.clients, way.to, methodEcho, []byte("x"))
			if err != nil || string(got) != string(way.from[:])+"x" {
				t.Errorf("call: %q, %v", got, err)
			}
			stream := openPipe(t.Context(), t, way.clients, way.to)
			for range 100 {
				if err := stream.SendMsg(wrapperspb.Bytes(make([]byte, 64<<10))); err != nil {
					t.Fatal(err)
				}
				if err := stream.RecvMsg(new(bytesValue)); err != nil {
					t.Fatal(err)
				}
			}
			if err := stream.CloseSend(); err != nil {
				t.Error(err)
			}
			if err := stream.RecvMsg(new(bytesValue)); err != io.EOF {
				t.Errorf("end of stream: %v", err)
			}
		}
	})
}

func TestRulesAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "bob")
		ann, bob := all[0], all[1]
		var services peernet.Services
		services.RegisterService(&testDesc, &echoServer{})
		missing, extra := openRules(), openRules()
		delete(missing, methodPipe)
		extra["/test.Test/Gone"] = peernet.AnyMember
		for _, rules := range []peernet.Rules{missing, extra, nil} {
			if _, err := peernet.NewServer(bob.Net, rules, &services); !errors.Is(err, peernet.ErrRules) {
				t.Errorf("NewServer: %v", err)
			}
		}
		rules := openRules()
		rules[methodEcho] = func(_ context.Context, caller grid.PeerID) error {
			if caller == ann.Self() {
				return errors.New("ann may not")
			}
			return nil
		}
		rules[methodPipe] = rules[methodEcho]
		serve(t, bob.Net, rules, &echoServer{})
		clients := serve(t, ann.Net, openRules(), &echoServer{})
		if _, err := call(t.Context(), clients, bob.Self(), methodEcho, nil); status.Code(err) != codes.PermissionDenied {
			t.Errorf("call: %v", err)
		}
		stream := openPipe(t.Context(), t, clients, bob.Self())
		if err := stream.RecvMsg(new(bytesValue)); status.Code(err) != codes.PermissionDenied {
			t.Errorf("stream: %v", err)
		}
		if _, err := call(t.Context(), clients, bob.Self(), "/test.Test/Gone", nil); status.Code(err) != codes.Unimplemented {
			t.Errorf("no such method: %v", err)
		}
	})
}

func TestRemovedMemberIsCutWhileStreaming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "bob")
		ann, bob := all[0], all[1]
		onBob := &echoServer{callers: make(chan grid.PeerID, 1), ended: make(chan error, 1)}
		serve(t, bob.Net, openRules(), onBob)
		clients := serve(t, ann.Net, openRules(), &echoServer{})
		stream := openPipe(t.Context(), t, clients, bob.Self())
		if caller := <-onBob.callers; caller != ann.Self() {
			t.Errorf("caller %s", caller)
		}
		go func() {
			for stream.SendMsg(wrapperspb.Bytes(make([]byte, 64<<10))) == nil {
			}
		}()
		for range 100 {
			if err := stream.RecvMsg(new(bytesValue)); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		bob.book.set(ann.Self(), peernet.Removed)
		if err := <-onBob.ended; err == nil {
			t.Error("the stream of a removed member ended well")
		}
		var err error
		for err == nil {
			err = stream.RecvMsg(new(bytesValue))
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("cut after %v", took)
		}
		bob.Accept(peernet.ProtoJoin)
		if _, err = call(t.Context(), clients, bob.Self(), methodEcho, nil); !errors.Is(err, grid.ErrRemoved) || status.Code(err) != codes.Unavailable {
			t.Errorf("call after removal: %v", err)
		}
	})
}

func TestUnaryDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "bob")
		ann, bob := all[0], all[1]
		onBob := &echoServer{deadline: make(chan time.Duration, 1)}
		serve(t, bob.Net, openRules(), onBob)
		clients := serve(t, ann.Net, openRules(), &echoServer{})
		for _, limit := range []time.Duration{0, time.Second, time.Hour} {
			ctx, want := context.Background(), peernet.DefaultUnaryTimeout
			if limit > 0 {
				ctx, want = within(t, limit), min(limit, want)
			}
			begin := time.Now()
			_, err := call(ctx, clients, bob.Self(), methodWait, nil)
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("limit %v: %v", limit, err)
			}
			if took := time.Since(begin); took < want || took > want+time.Second {
				t.Errorf("limit %v: took %v", limit, took)
			}
			if got := <-onBob.deadline; got > want {
				t.Errorf("limit %v: the server has %v", limit, got)
			}
		}
	})
}

// Silence ends a stream on both sides, heartbeats keep it for hours although
// the client pings.
func TestStreamIdleAndKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "bob")
		ann, bob := all[0], all[1]
		onBob := &echoServer{ended: make(chan error, 1)}
		serve(t, bob.Net, openRules(), onBob)
		clients := serve(t, ann.Net, openRules(), &echoServer{})
		stream := openPipe(t.Context(), t, clients, bob.Self())
		for range 120 {
			if err := stream.SendMsg(wrapperspb.Bytes([]byte("beat"))); err != nil {
				t.Fatal(err)
			}
			if err := stream.RecvMsg(new(bytesValue)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(peernet.StreamIdle - time.Second)
		}
		begin := time.Now()
		if err := stream.RecvMsg(new(bytesValue)); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("idle stream: %v", err)
		}
		if err := <-onBob.ended; err == nil {
			t.Error("the server's side of an idle stream ended well")
		}
		if took := time.Since(begin); took > peernet.StreamIdle+time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestMessageBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "bob")
		ann, bob := all[0], all[1]
		serve(t, bob.Net, openRules(), &echoServer{})
		clients := serve(t, ann.Net, openRules(), &echoServer{})
		if _, err := call(t.Context(), clients, bob.Self(), methodEcho, make([]byte, peernet.MaxMessageBytes)); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("got %v", err)
		}
	})
}

// A client tells why its peer is not reached, and is back soon after it is.
func TestClientsRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "bob")
		ann, bob := all[0], all[1]
		clients := serve(t, ann.Net, openRules(), &echoServer{})
		fromBob := serve(t, bob.Net, openRules(), &echoServer{})
		bob.host.SetDown(true)
		_, err := call(t.Context(), clients, bob.Self(), methodEcho, nil)
		if !errors.Is(err, grid.ErrUnreachable) || status.Code(err) != codes.Unavailable {
			t.Errorf("peer is down: %v", err)
		}
		bob.host.SetDown(false)
		bob.book.set(ann.Self(), peernet.Unknown, ann.addr())
		time.Sleep(time.Minute)
		for range 100 { // so often that the client waits long before it tries again
			_, err := call(t.Context(), clients, bob.Self(), methodEcho, nil)
			if !errors.Is(err, grid.ErrNotMember) || status.Code(err) != codes.Unavailable {
				t.Fatalf("not known there: %v", err)
			}
			time.Sleep(time.Second)
		}
		// bob calls, so ann's client does not wait out its back-off, and her very
		// first call waits for the connection.
		bob.knows(ann)
		if _, err := call(t.Context(), fromBob, ann.Self(), methodEcho, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := call(t.Context(), clients, bob.Self(), methodEcho, nil); err != nil {
			t.Errorf("known again: %v", err)
		}

		conn, err := clients.Conn(bob.Self())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * peernet.ConnIdle)
		if s := conn.GetState(); s != connectivity.Idle {
			t.Errorf("connection without calls is %v", s)
		}
		if again, err := clients.Conn(bob.Self()); err != nil || again != conn {
			t.Errorf("another connection for the same peer, or %v", err)
		}
		if _, err := clients.Conn(newKey(t).PeerID()); !errors.Is(err, grid.ErrUnknownPeer) {
			t.Errorf("unknown peer: %v", err)
		}
		_ = clients.Close()
		if _, err := clients.Conn(bob.Self()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed pool: %v", err)
		}
	})
}

// Calls to a peer that is said to be back and is not fail as fast as before:
// one finds out, the others do not wait.
func TestFalseHopeCostsOneDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "bob")
		ann, bob := all[0], all[1]
		clients := serve(t, ann.Net, openRules(), &echoServer{})
		bob.host.SetDown(true)
		for range 50 { // until the back-off is long
			_, _ = call(t.Context(), clients, bob.Self(), methodEcho, nil)
			time.Sleep(time.Second)
		}
		begin := time.Now()
		clients.Returned(bob.Self())
		for range 10 {
			if _, err := call(t.Context(), clients, bob.Self(), methodEcho, nil); !errors.Is(err, grid.ErrUnreachable) {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took > 25*time.Second {
			t.Errorf("ten calls took %v", took)
		}
	})
}

// A peer that comes back while it is dialled in vain is dialled once more.
func TestReturnDuringDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "bob")
		ann, bob := all[0], all[1]
		serve(t, bob.Net, openRules(), &echoServer{})
		clients := serve(t, ann.Net, openRules(), &echoServer{})
		bob.host.DropInbound(true)
		time.AfterFunc(time.Second, func() {
			bob.host.DropInbound(false)
			clients.Returned(bob.Self())
		})
		if _, err := call(t.Context(), clients, bob.Self(), methodEcho, nil); err != nil {
			t.Error(err)
		}
	})
}

// A server that stops lets running calls end, but not for ever.
func TestServerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t).members("ann", "bob")
		ann, bob := all[0], all[1]
		onBob := &echoServer{callers: make(chan grid.PeerID, 1)}
		var services peernet.Services
		services.RegisterService(&testDesc, onBob)
		server, err := peernet.NewServer(bob.Net, openRules(), &services)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- server.Run(ctx, 5*time.Second) }()
		clients := peernet.NewClients(ann.Net)
		defer clients.Close()
		openPipe(t.Context(), t, clients, bob.Self())
		<-onBob.callers
		begin := time.Now()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("stopped after %v", took)
		}
	})
}
