package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/invite"
	"gotong/grid/localgrid"
	"gotong/grid/peernet"
	"gotong/grid/roster"
	tasksv1 "gotong/proto/tasks/v1"
)

// credulous is the directory of a hostile program: everybody is a member.
type credulous struct{ addresses []string }

func (credulous) Status(grid.PeerID) peernet.Standing { return peernet.Member }
func (c credulous) Addresses(grid.PeerID) []string    { return c.addresses }
func (credulous) Members() []grid.PeerID              { return nil }
func (credulous) Changed() <-chan struct{}            { return nil }

// hostileNet is a network of a program that obeys no rule but those of others.
func hostileNet(t *testing.T, node identity.NodeKey, addresses ...string) *peernet.Net {
	t.Helper()
	n, err := peernet.New(peernet.Config{Node: node, Directory: credulous{addresses}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func newKey(t *testing.T) identity.NodeKey {
	t.Helper()
	key, err := identity.NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestStrangerGetsNothing: who has a key of its own and is not in the roster
// gets not one byte on any protocol but join, and on that nothing but a greeting
// and a refusal.
func TestStrangerGetsNothing(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, _ := grow(ctx, t, g, 0)
	id, err := grid.ParsePeerID(you.ID)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	n := hostileNet(t, key, you.Listen)
	for _, proto := range []peernet.Protocol{peernet.ProtoGRPC, peernet.ProtoGossip, peernet.ProtoGossipStream} {
		if c, err := n.DialAddr(ctx, you.Listen, id, proto); !errors.Is(err, grid.ErrNotMember) {
			t.Errorf("%s: connection %v, error %v", proto, c, err)
		}
	}
	certificate, err := identity.Certificate(key.Private())
	if err != nil {
		t.Fatal(err)
	}
	closed := []string{"gotong-grpc/1", "gotong-gossip/1", "gotong-gossip-stream/1", "gotong-link/1", "gotong-back/1", "h2", "gotong-grpc/2", ""}
	for _, proto := range closed {
		if got := speak(t, you.Listen, proto, []tls.Certificate{certificate}, nil); len(got) != 0 {
			t.Errorf("%q: a stranger read %q", proto, got)
		}
	}
	for _, proto := range append(closed, "gotong-join/1") {
		if got := speak(t, you.Listen, proto, nil, nil); len(got) != 0 {
			t.Errorf("%q: who shows no key read %q", proto, got)
		}
	}
	junk := make([]byte, 4096)
	if _, err := rand.Read(junk); err != nil {
		t.Fatal(err)
	}
	for _, say := range [][]byte{junk, bytes.Repeat([]byte{0}, 64), {0, 0, 0, 1, 0xff}, {0xff, 0xff, 0xff, 0xff}} {
		if got := speak(t, you.Listen, "gotong-join/1", []tls.Certificate{certificate}, say); len(got) > maxRefusal {
			t.Errorf("join: a stranger that says nonsense read %d bytes: %q", len(got), got)
		}
	}
	if n := len(peersOf(ctx, t, you)); n != 1 {
		t.Errorf("%d peers", n)
	}
}

// maxRefusal is a greeting and a refusal with its reason.
const maxRefusal = 256

// speak opens a TLS session with an ALPN name, says something, and returns all
// that the other side says.
func speak(t *testing.T, address, proto string, certificates []tls.Certificate, say []byte) []byte {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{proto}, Certificates: certificates, MinVersion: tls.VersionTLS13,
	})
	if err != nil {
		return nil
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write(say) // it may be refused already
	_ = conn.CloseWrite()
	got, _ := io.ReadAll(conn) // how it ends is not the question
	return got
}

// TestJoinNeedsTheSecret: without the secret an invite gives nothing, whatever
// else is right; three wrong tries make it void, for its owner too.
func TestJoinNeedsTheSecret(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, _ := grow(ctx, t, g, 0)
	text := invitation(ctx, t, you)
	code, err := invite.ParseCode(text)
	if err != nil {
		t.Fatal(err)
	}
	wrong := code
	wrong.Secret[7] ^= 1
	for range invite.MaxWrong {
		if _, err := redeem(ctx, t, newKey(t), wrong); !errors.Is(err, invite.ErrWrongSecret) {
			t.Errorf("a wrong secret: %v", err)
		}
	}
	unknown := code
	unknown.ID[3] ^= 1
	if _, err := redeem(ctx, t, newKey(t), unknown); !errors.Is(err, invite.ErrUnknownInvite) {
		t.Errorf("an unknown invite: %v", err)
	}
	gotong(ctx, t, "", append([]string{"join", text}, newHome(t)...)...).want(t, 13, "void after too many wrong tries", "ask for a new invite")
	if n := len(peersOf(ctx, t, you)); n != 1 {
		t.Errorf("%d peers", n)
	}
}

// redeem uses an invite as the program does.
func redeem(ctx context.Context, t *testing.T, key identity.NodeKey, code invite.Code) (invite.JoinResult, error) {
	t.Helper()
	phrase, err := identity.NewPhrase()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := hostileNet(t, key).DialAny(ctx, code.Addresses, code.Inviter, peernet.ProtoJoin)
	if err != nil {
		return invite.JoinResult{}, err
	}
	defer conn.Close()
	return invite.Join(ctx, conn, code, invite.JoinParams{
		Node: key, OwnerKey: phrase.OwnerKey(),
		Delegation: identity.Delegation{Capabilities: grid.CapAll, Epoch: 1, Created: time.Now()},
	})
}

// TestRemovedMemberIsCut: a member that ignores its removal loses every live
// connection and stream to everybody within 5 s, and gets no new one.
func TestRemovedMemberIsCut(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 2)
	removed, other := friends[0], friends[1]
	if err := removed.Stop(); err != nil {
		t.Fatal(err)
	}
	// From here on the test is that member, and obeys nobody.
	key, err := identity.LoadNodeKey(filepath.Join(removed.Home, "peer", "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	victims := map[string]*localgrid.Peer{"you": you, "the other friend": other}
	ended := make(chan string, 3*len(victims))
	expected := 0
	for name, p := range victims {
		id, err := grid.ParsePeerID(p.ID)
		if err != nil {
			t.Fatal(err)
		}
		n := hostileNet(t, key, p.Listen)
		for _, proto := range []peernet.Protocol{peernet.ProtoGossip, peernet.ProtoGossipStream} {
			conn, err := n.DialAddr(ctx, p.Listen, id, proto)
			if err != nil {
				t.Fatalf("%s: %v", proto, err)
			}
			expected++
			go func() {
				_, _ = io.Copy(io.Discard, conn)
				ended <- name + " " + string(proto)
			}()
		}
		clients := peernet.NewClients(n)
		t.Cleanup(func() { clients.Close() })
		conn, err := clients.Conn(id)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := tasksv1.NewTasksClient(conn).PutContent(ctx)
		if err != nil {
			t.Fatal(err)
		}
		expected++
		go func() {
			_ = stream.RecvMsg(new(tasksv1.PutContentResponse))
			ended <- name + " gRPC stream"
		}()
	}
	peersOf(ctx, t, you) // takes a while, in which nothing may end
	select {
	case what := <-ended:
		t.Fatalf("%s ended before the removal", what)
	default:
	}
	if err := you.JSON(ctx, nil, "remove", removed.Name); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(time.Minute) // within 5 s, on a machine that does nothing else
	for range expected {
		select {
		case what := <-ended:
			t.Log("cut:", what)
		case <-deadline:
			t.Fatal("not everything was cut")
		}
	}
	for name, p := range victims {
		id, err := grid.ParsePeerID(p.ID)
		if err != nil {
			t.Fatal(err)
		}
		n := hostileNet(t, key, p.Listen)
		for _, proto := range []peernet.Protocol{peernet.ProtoGRPC, peernet.ProtoGossip, peernet.ProtoGossipStream} {
			if _, err := n.DialAddr(ctx, p.Listen, id, proto); err == nil {
				t.Errorf("%s accepts %s of a removed member", name, proto)
			}
		}
		if err := showItself(ctx, t, removed, n, id, p.Listen); err == nil {
			t.Errorf("%s took the removed member's introduction", name)
		}
	}
}

// showItself shows a peer the statements that once made a member of another.
func showItself(ctx context.Context, t *testing.T, p *localgrid.Peer, n *peernet.Net, to grid.PeerID, address string) error {
	t.Helper()
	r, err := roster.Open(filepath.Join(p.Home, "peer", "roster"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	self, err := grid.ParsePeerID(p.ID)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := n.DialAddr(ctx, address, to, peernet.ProtoJoin)
	if err != nil {
		return err
	}
	defer conn.Close()
	return invite.Introduce(ctx, conn, r.PathTo(self))
}

// TestRemovedPeerLearnsIt: a removed peer that starts again gets nothing, and
// its owner reads why.
func TestRemovedPeerLearnsIt(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 1)
	removed := friends[0]
	if err := removed.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := you.JSON(ctx, nil, "remove", removed.Name); err != nil {
		t.Fatal(err)
	}
	if err := removed.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if code, what := failure(t, removed.JSON(ctx, nil, "backup", shortTempDir(t))); code == 0 {
		t.Errorf("a removed peer backed up: %s", what)
	}
	eventually(ctx, t, time.Minute, "status says that the peer was removed", func() (bool, error) {
		var s struct{ Problems []struct{ What string } }
		err := removed.JSON(ctx, &s, "status")
		return len(s.Problems) == 1 && s.Problems[0].What == "this peer was removed from the grid; so says you", err
	})
}
