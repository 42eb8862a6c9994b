package invite

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/roster"
	invitev1 "gotong/proto/invite/v1"
)

func TestStatusesCrossTheWire(t *testing.T) {
	for _, s := range statuses {
		if got := errorOf(&invitev1.Response{Status: statusOf(fmt.Errorf("wrapped: %w", s.err))}); !errors.Is(got, s.err) {
			t.Errorf("%v arrives as %v", s.err, got)
		}
	}
	for status := range invitev1.Status_name {
		if err := errorOf(&invitev1.Response{Status: invitev1.Status(status)}); (err == nil) != (status == int32(invitev1.Status_STATUS_OK)) {
			t.Errorf("status %d is %v", status, err)
		}
	}
	if got := errorOf(&invitev1.Response{Status: statusOf(io.EOF)}); !errors.Is(got, ErrFailed) {
		t.Errorf("any other error arrives as %v", got)
	}
	if text := errorOf(&invitev1.Response{Message: "\x1b[2J"}).Error(); bytes.ContainsRune([]byte(text), 0x1b) {
		t.Errorf("control characters come through: %q", text)
	}
}

// pipeConn is a JoinConn in memory, without TLS.
type pipeConn struct {
	net.Conn
	key ed25519.PublicKey
}

func (c pipeConn) PeerKey() ed25519.PublicKey { return c.key }

func (c pipeConn) ExportKeyingMaterial(label string, context []byte, n int) ([]byte, error) {
	return bytes.Repeat([]byte{7}, n), nil
}

// TestSilentStrangerIsCut: a connection on which nothing comes does not stay.
func TestSilentStrangerIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		start := time.Now()
		NewServer(Config{}).Serve(t.Context(), pipeConn{ours, nil})
		if waited := time.Since(start); waited != RequestTimeout {
			t.Errorf("served for %s", waited)
		}
		if _, err := theirs.Write([]byte("x")); err == nil {
			t.Error("the connection is open")
		}
	})
}

func TestServeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, _ := net.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		NewServer(Config{}).Serve(ctx, pipeConn{ours, nil})
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("served for %s", waited)
		}
	})
}

func TestJoinEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go io.Copy(io.Discard, theirs) // takes everything, answers nothing
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := Introduce(ctx, pipeConn{ours, nil}, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
		theirs.Close()
	})
}

func TestLargeRosterCrosses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		var statements, records [][]byte
		for i := range 100 {
			statements = append(statements, bytes.Repeat([]byte{byte(i)}, roster.MaxStatementBytes))
			records = append(records, bytes.Repeat([]byte{byte(i)}, roster.MaxRecordBytes))
		}
		at := time.Unix(1_700_000_000, 0)
		learnt := map[roster.Hash]time.Time{roster.HashOf(statements[1]): at, roster.HashOf(statements[99]): at.Add(time.Hour)}
		sent := make(chan error, 1)
		go func() { sent <- sendBatches(t.Context(), pipeConn{ours, nil}, statements, records, learnt) }()
		got, err := receiveBatches(t.Context(), pipeConn{theirs, nil})
		if err := errors.Join(err, <-sent); err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got.statements, statements, bytes.Equal) || !slices.EqualFunc(got.records, records, bytes.Equal) || !maps.Equal(got.learnt, learnt) {
			t.Error("it changed on the way")
		}
	})
}

// TestEndlessAnswerIsCut: a hostile inviter cannot fill the joiner's memory.
func TestEndlessAnswerIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go func() {
			for writeFrame(ours, &invitev1.Batch{}) == nil {
			}
		}()
		if _, err := receiveBatches(t.Context(), pipeConn{theirs, nil}); err == nil {
			t.Error("it came to an end")
		}
		ours.Close()
	})
}

// FuzzServe sends any bytes as a request of a stranger: it must not become a
// member and the server must not panic.
func FuzzServe(f *testing.F) {
	dir := f.TempDir()
	phrase, err := identity.NewPhrase()
	if err != nil {
		f.Fatal(err)
	}
	node, stranger := newPerson(f).node, newPerson(f)
	r, err := roster.Create(filepath.Join(dir, "roster"), roster.CreateParams{Name: "g", OwnerKey: phrase.OwnerKey(), Node: node})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { r.Close() })
	records, err := roster.OpenRecords(filepath.Join(dir, "records"), r.View().Grid())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { records.Close() })
	book, err := OpenBook(filepath.Join(dir, "invites"))
	if err != nil {
		f.Fatal(err)
	}
	code, err := book.Create(CreateParams{Grid: r.View().Grid(), Inviter: node.PeerID(), Valid: time.Hour})
	if err != nil {
		f.Fatal(err)
	}
	for _, request := range seedRequests(f, code, stranger) {
		frame, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 4), request)
		if err != nil {
			f.Fatal(err)
		}
		binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
		f.Add(frame)
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	server := NewServer(Config{Node: node, Roster: r, Records: records, Book: book})
	f.Fuzz(func(t *testing.T, data []byte) {
		conn := pipeConn{&scripted{in: bytes.NewReader(data)}, stranger.node.Public()}
		server.Serve(t.Context(), conn)
		if r.View().Status(stranger.node.PeerID()) != roster.StatusUnknown {
			t.Fatal("a stranger got in")
		}
	})
}

// seedRequests are well-formed requests of a stranger without the secret.
func seedRequests(f *testing.F, code Code, stranger person) []*invitev1.Request {
	redeem := &invitev1.Redeem{Invite: code.ID[:], Proof: make([]byte, 32)}
	if err := stranger.params().fill(redeem, code); err != nil {
		f.Fatal(err)
	}
	return []*invitev1.Request{
		{},
		{Ask: &invitev1.Request_Redeem{Redeem: redeem}},
		{Ask: &invitev1.Request_Introduce{Introduce: &invitev1.Introduce{Statements: [][]byte{redeem.Device}, WantRoster: true}}},
	}
}

// scripted is a connection that has said everything already.
type scripted struct {
	net.Conn
	in io.Reader
}

func (s *scripted) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *scripted) Write(p []byte) (int, error) { return len(p), nil }
func (s *scripted) Close() error                { return nil }
func (s *scripted) SetDeadline(time.Time) error { return nil }

// FuzzReceive answers a joiner with any bytes.
func FuzzReceive(f *testing.F) {
	var answer bytes.Buffer
	if err := sendBatches(context.Background(), pipeConn{&scriptedOut{out: &answer}, nil}, [][]byte{[]byte("statement")}, [][]byte{[]byte("record")}, nil); err != nil {
		f.Fatal(err)
	}
	f.Add(answer.Bytes())
	f.Add([]byte{})
	self := newPerson(f).node.PeerID()
	f.Fuzz(func(t *testing.T, data []byte) {
		conn := pipeConn{&scripted{in: bytes.NewReader(data)}, nil}
		if _, err := receive(t.Context(), conn, grid.GridID{1}, self); err == nil {
			t.Fatal("became a member of a grid that cannot exist")
		}
		conn = pipeConn{&scripted{in: bytes.NewReader(data)}, nil}
		_, _ = request(t.Context(), conn, &invitev1.Request{}) // must not panic
	})
}

type scriptedOut struct {
	scripted
	out io.Writer
}

func (s *scriptedOut) Write(p []byte) (int, error) { return s.out.Write(p) }
