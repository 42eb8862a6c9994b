package peernet_test

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gotong/grid"
	"gotong/grid/gridtest/memnet"
	"gotong/grid/identity"
	"gotong/grid/peernet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const port = ":7000"

// book is a Directory that a test writes.
type book struct {
	mu        sync.Mutex
	standing  map[grid.PeerID]peernet.Standing
	addresses map[grid.PeerID][]string
	changed   chan struct{}
}

func newBook() *book {
	return &book{
		standing:  map[grid.PeerID]peernet.Standing{},
		addresses: map[grid.PeerID][]string{},
		changed:   make(chan struct{}),
	}
}

func (b *book) Status(id grid.PeerID) peernet.Standing {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.standing[id]
}

func (b *book) Addresses(id grid.PeerID) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.addresses[id]
}

func (b *book) Members() []grid.PeerID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Collect(maps.Keys(b.standing)), func(id grid.PeerID) bool {
		return b.standing[id] != peernet.Member
	})
}

func (b *book) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *book) change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *book) set(id grid.PeerID, s peernet.Standing, addresses ...string) {
	b.change(func() {
		b.standing[id] = s
		b.addresses[id] = addresses
	})
}

// machine is one peer of a test.
type machine struct {
	*peernet.Net
	key  identity.NodeKey
	book *book
	host *memnet.Host
}

func (m *machine) addr() string { return net.JoinHostPort(m.host.IP().String(), port[1:]) }

// world is a fabric with machines on it.
type world struct {
	t      *testing.T
	fabric *memnet.Fabric
}

func newWorld(t *testing.T) *world { return &world{t, memnet.New()} }

// machine starts a peer that knows only itself.
func (w *world) machine(name string, options ...func(*peernet.Config)) *machine {
	w.t.Helper()
	m := &machine{key: newKey(w.t), book: newBook(), host: w.fabric.Host(name)}
	m.book.set(m.key.PeerID(), peernet.Member, m.addr())
	cfg := peernet.Config{
		Node:       m.key,
		Directory:  m.book,
		Fabric:     m.host,
		ListenAddr: port,
		Logger:     logger(w.t).With("host", name),
	}
	for _, o := range options {
		o(&cfg)
	}
	m.Net = start(w.t, cfg)
	return m
}

// members starts peers that all know each other.
func (w *world) members(names ...string) []*machine {
	w.t.Helper()
	var all []*machine
	for _, name := range names {
		all = append(all, w.machine(name))
	}
	for _, a := range all {
		for _, b := range all {
			a.knows(b)
		}
	}
	return all
}

func (m *machine) knows(other *machine) {
	m.book.set(other.Self(), peernet.Member, other.addr())
}

func newKey(t testing.TB) identity.NodeKey {
	t.Helper()
	key, err := identity.NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// start runs a Net until the end of the test.
func start(t testing.TB, cfg peernet.Config) *peernet.Net {
	t.Helper()
	n, err := peernet.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return n
}

// within bounds one step of a test.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// accepted returns the next connection of a listener.
func accepted(t testing.TB, l net.Listener) *peernet.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*peernet.Conn)
}

// dial must succeed.
func dial(t testing.TB, from *machine, to grid.PeerID, proto peernet.Protocol) *peernet.Conn {
	t.Helper()
	c, err := from.Dial(within(t, time.Minute), to, proto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// talk shows that bytes pass both ways and that the ends agree on who they are.
func talk(t testing.TB, a, b *peernet.Conn, idA, idB grid.PeerID) {
	t.Helper()
	if a.Peer() != idB || b.Peer() != idA {
		t.Fatalf("ends see %s and %s, want %s and %s", a.Peer().Short(), b.Peer().Short(), idB.Short(), idA.Short())
	}
	if a.Protocol() != b.Protocol() {
		t.Fatalf("ends speak %s and %s", a.Protocol(), b.Protocol())
	}
	for _, way := range [][2]*peernet.Conn{{a, b}, {b, a}} {
		if _, err := way[0].Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(way[1], got); err != nil || string(got) != "hello" {
			t.Fatalf("read %q: %v", got, err)
		}
	}
	one, err1 := a.ExportKeyingMaterial("test", nil, 32)
	two, err2 := b.ExportKeyingMaterial("test", nil, 32)
	if err1 != nil || err2 != nil || !slices.Equal(one, two) {
		t.Fatalf("keying material differs: %v %v", err1, err2)
	}
}
