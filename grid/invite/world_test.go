package invite

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/roster"
)

// tlsConn is a JoinConn over a real TLS session.
type tlsConn struct {
	*tls.Conn
	key ed25519.PublicKey
}

func (c *tlsConn) PeerKey() ed25519.PublicKey { return c.key }

func (c *tlsConn) ExportKeyingMaterial(label string, context []byte, n int) ([]byte, error) {
	cs := c.ConnectionState()
	return cs.ExportKeyingMaterial(label, context, n)
}

func tlsConfig(t testing.TB, node identity.NodeKey) *tls.Config {
	t.Helper()
	certificate, err := identity.Certificate(node.Private())
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate},
		ClientAuth: tls.RequireAnyClientCert, InsecureSkipVerify: true, SessionTicketsDisabled: true,
	}
}

func handshake(c *tls.Conn) (*tlsConn, error) {
	if err := c.Handshake(); err != nil {
		return nil, err
	}
	key, err := identity.PeerKey(c.ConnectionState())
	return &tlsConn{c, key}, err
}

// tlsListener hands out tlsConns after their handshake.
type tlsListener struct {
	net.Listener
	config *tls.Config
}

func (l *tlsListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c, err := handshake(tls.Server(conn, l.config))
	if err != nil {
		return conn, nil // not a JoinConn: the server closes it
	}
	return c, nil
}

// person is one peer with its owner's key.
type person struct {
	node  identity.NodeKey
	owner ed25519.PrivateKey
}

func newPerson(t testing.TB) person {
	t.Helper()
	node, err := identity.NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	phrase, err := identity.NewPhrase()
	if err != nil {
		t.Fatal(err)
	}
	return person{node, phrase.OwnerKey()}
}

func (p person) ownerID() grid.OwnerID { return grid.OwnerIDOf(p.owner.Public().(ed25519.PublicKey)) }

func (p person) params() JoinParams {
	return JoinParams{
		Node: p.node, OwnerKey: p.owner, Delegation: identity.Delegation{Capabilities: grid.CapAll},
		Record: grid.Record{Number: 1, Name: "peer", Addresses: []string{"192.0.2.9:4114"}},
	}
}

// member is a peer that serves join connections.
type member struct {
	person
	dir     string
	roster  *roster.Roster
	records *roster.Records
	book    *Book
	addr    string
	stop    func()
}

// newMember founds a grid.
func newMember(t testing.TB) *member {
	t.Helper()
	m := &member{person: newPerson(t), dir: t.TempDir()}
	r, err := roster.Create(filepath.Join(m.dir, "roster"), roster.CreateParams{
		Name: "Rose Street", OwnerKey: m.owner, Node: m.node, Delegation: identity.Delegation{Capabilities: grid.CapAll},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	m.start(t)
	return m
}

// joined is a peer that starts from what Join handed it.
func (p person) joined(t testing.TB, code Code, result JoinResult) *member {
	t.Helper()
	m := &member{person: p, dir: t.TempDir()}
	r, err := roster.Import(filepath.Join(m.dir, "roster"), code.Grid, result.Statements)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	m.start(t)
	return m
}

// start opens what is on the disk and serves.
func (m *member) start(t testing.TB) {
	t.Helper()
	var err error
	if m.roster, err = roster.Open(filepath.Join(m.dir, "roster")); err != nil {
		t.Fatal(err)
	}
	if m.records, err = roster.OpenRecords(filepath.Join(m.dir, "records"), m.roster.View().Grid()); err != nil {
		t.Fatal(err)
	}
	if m.book, err = OpenBook(filepath.Join(m.dir, "invites")); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.addr = listener.Addr().String()
	server := NewServer(Config{Node: m.node, Roster: m.roster, Records: m.records, Book: m.book})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, &tlsListener{listener, tlsConfig(t, m.node)}) }()
	stopped := false
	m.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		_ = m.roster.Close() // a test may have closed it
		if err := errors.Join(<-done, m.records.Close()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(m.stop)
}

func (m *member) restart(t testing.TB) {
	t.Helper()
	m.stop()
	m.start(t)
}

func (m *member) invite(t testing.TB) Code {
	t.Helper()
	code, err := m.book.Create(CreateParams{
		Grid: m.roster.View().Grid(), GridName: m.roster.View().Name(), Inviter: m.node.PeerID(),
		Addresses: []string{m.addr}, Valid: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// dial opens a join connection of the person to the member.
func (p person) dial(t testing.TB, to *member) *tlsConn {
	t.Helper()
	conn, err := net.Dial("tcp", to.addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := handshake(tls.Client(conn, tlsConfig(t, p.node)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (p person) join(t testing.TB, to *member, code Code) (JoinResult, error) {
	t.Helper()
	return Join(t.Context(), p.dial(t, to), code, p.params())
}

func (p person) mustJoin(t testing.TB, to *member) *member {
	t.Helper()
	code := to.invite(t)
	result, err := p.join(t, to, code)
	if err != nil {
		t.Fatal(err)
	}
	return p.joined(t, code, result)
}

func wantMember(t testing.TB, at *member, who person, want roster.Status) {
	t.Helper()
	if got := at.roster.View().Status(who.node.PeerID()); got != want {
		t.Errorf("peer is %s, want %s", got, want)
	}
}
