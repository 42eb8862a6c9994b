package membership

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/peernet"
	"gotong/grid/roster"
	gridv1 "gotong/proto/grid/v1"
)

// world is a grid of memberships on a network in memory. It belongs into a
// synctest bubble.
type world struct {
	t      *testing.T
	net    *memNet
	peers  []*testPeer
	timers Timers
}

// testPeer is one machine: what is on its disk, and the membership that runs.
type testPeer struct {
	w       *world
	dir     string
	node    identity.NodeKey
	owner   ed25519.PrivateKey
	roster  *roster.Roster
	records *roster.Records
	dirBook *Directory
	host    *memHost
	m       *Membership
	cancel  context.CancelFunc
	ended   chan error
}

func (p *testPeer) id() grid.PeerID { return p.node.PeerID() }

// newWorld makes n peers. The first founds the grid and admits the others;
// their rosters hold what an invite hands over. Nobody runs yet.
func newWorld(t *testing.T, n int) *world {
	w := &world{t: t, net: newMemNet(10 * time.Millisecond), timers: LAN()}
	for i := range n {
		p := &testPeer{w: w, dir: t.TempDir(), node: must(identity.NewNodeKey()), owner: must(identity.NewPhrase()).OwnerKey()}
		w.peers = append(w.peers, p)
		if i == 0 {
			p.roster = must(roster.Create(p.path("roster"), roster.CreateParams{
				Name: "test", OwnerKey: p.owner, Node: p.node, Delegation: identity.Delegation{Capabilities: grid.CapAll},
			}))
		} else {
			w.admit(p)
			p.roster = must(roster.Import(p.path("roster"), w.peers[0].roster.View().Grid(), w.peers[0].roster.All()))
		}
		p.records = must(roster.OpenRecords(p.path("records"), p.roster.View().Grid()))
		p.dirBook = NewDirectory(p.roster, p.records)
		p.moveTo(fmt.Sprintf("10.0.0.%d:7000", i+1))
	}
	t.Cleanup(w.close)
	return w
}

// admit lets the first peer admit p.
func (w *world) admit(p *testPeer) {
	first := w.peers[0]
	g := first.roster.View().Grid()
	if err := first.roster.Admit(first.node, roster.AdmitParams{
		PeerKey:    p.node.Public(),
		Delegation: identity.SignDelegation(p.owner, identity.Delegation{Grid: g, Peer: p.id(), Capabilities: grid.CapAll}),
		Consent:    roster.SignConsent(p.node, roster.Consent{Grid: g, Owner: grid.OwnerIDOf(p.owner.Public().(ed25519.PublicKey)), Inviter: first.id()}),
	}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) close() {
	for _, p := range w.peers {
		p.stop()
		_ = p.roster.Close()
		_ = p.records.Close()
	}
	time.Sleep(time.Minute) // memberlist's probes outlive it
}

func (p *testPeer) path(name string) string { return filepath.Join(p.dir, name) }

// moveTo gives the machine another address. It does not run then.
func (p *testPeer) moveTo(address string) {
	p.host = p.w.net.host(p.id(), address, p.dirBook.Addresses)
}

// meets tells p where other is, as an invite does.
func (p *testPeer) meets(other *testPeer) {
	p.w.t.Helper()
	_, encoded, ok := other.records.Get(other.id())
	if !ok {
		p.w.t.Fatal("the other has no record")
	}
	if _, err := p.records.Put(encoded, p.roster.View()); err != nil {
		p.w.t.Fatal(err)
	}
}

// start runs the peer at its present address.
func (p *testPeer) start() {
	p.w.t.Helper()
	if p.m != nil {
		p.w.t.Fatal("runs already")
	}
	p.prepare()
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.ended = cancel, make(chan error, 1)
	go func() { p.ended <- p.m.Run(ctx) }()
}

// prepare makes the membership without running it.
func (p *testPeer) prepare() {
	p.w.t.Helper()
	var err error
	p.m, err = New(Config{
		Node: p.node, Roster: p.roster, Records: p.records, Directory: p.dirBook,
		Network: p.host, Clients: p.client, Version: "test", SeenPath: p.path("seen"),
		Timers: p.w.timers, Logger: slog.New(slog.NewTextHandler(p.w.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.host.service = p.m.Service()
	p.host.refuses = func(caller grid.PeerID) bool { return p.dirBook.Status(caller) != peernet.Member }
	address := p.host.address
	if err := p.m.UpdateRecord(func(r *grid.Record) { r.Addresses = []string{address} }); err != nil {
		p.w.t.Fatal(err)
	}
}

// stop ends the peer without a word; its connections end.
func (p *testPeer) stop() {
	if p.m == nil {
		return
	}
	p.host.die(true)
	if p.cancel != nil {
		p.cancel()
		if err := <-p.ended; err != nil {
			p.w.t.Errorf("run: %v", err)
		}
	}
	p.m, p.cancel = nil, nil
}

// restart starts a stopped peer at an address, from what is on its disk.
func (p *testPeer) restart(address string) {
	p.w.t.Helper()
	_ = p.roster.Close()
	_ = p.records.Close()
	p.roster = must(roster.Open(p.path("roster")))
	p.records = must(roster.OpenRecords(p.path("records"), p.roster.View().Grid()))
	p.dirBook = NewDirectory(p.roster, p.records)
	p.moveTo(address)
	p.start()
}

// startAll starts all peers; each but the first knows the address of the first.
func (w *world) startAll() {
	w.peers[0].start()
	for _, p := range w.peers[1:] {
		p.meets(w.peers[0])
		p.start()
	}
}

// states returns how a peer sees the given ones.
func (p *testPeer) states(of []*testPeer) map[grid.State]int {
	count := make(map[grid.State]int)
	for _, q := range of {
		peer, _ := p.m.Peer(q.id())
		count[peer.State]++
	}
	return count
}

// allSee reports whether every one of viewers sees all of seen in a state.
func allSee(viewers, seen []*testPeer, state grid.State) bool {
	for _, p := range viewers {
		if p.states(seen)[state] != len(seen) {
			return false
		}
	}
	return true
}

// within waits, in the bubble's time, until ok, and fails after the limit.
func (w *world) within(limit time.Duration, what string, ok func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			w.t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
	}
	took := time.Since(start)
	w.t.Logf("%s: after %v", what, took)
	return took
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// client calls the Grid service of another peer over the network in memory.
func (p *testPeer) client(peer grid.PeerID) (gridv1.GridClient, error) {
	return memClient{p.host, peer}, nil
}

type memClient struct {
	host *memHost
	peer grid.PeerID
}

// reach returns the other side's service, as far as the network lets it.
func (c memClient) reach(ctx context.Context) (gridv1.GridServer, error) {
	to := c.host.find(c.peer)
	if to == nil || to.service == nil {
		return nil, grid.ErrUnreachable
	}
	if c.host.net.cut(c.host.peer, c.peer) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if to.refuses != nil && to.refuses(c.host.peer) {
		return nil, grid.ErrNotMember
	}
	time.Sleep(2 * c.host.net.latency)
	return to.service, nil
}

func call[Q, A any](ctx context.Context, c memClient, q Q, f func(gridv1.GridServer, context.Context, Q) (A, error)) (a A, err error) {
	s, err := c.reach(ctx)
	if err != nil {
		return a, err
	}
	return f(s, ctx, q)
}

func (c memClient) SyncRoster(ctx context.Context, q *gridv1.SyncRosterRequest, _ ...grpc.CallOption) (*gridv1.SyncRosterResponse, error) {
	return call(ctx, c, q, gridv1.GridServer.SyncRoster)
}

func (c memClient) Offer(ctx context.Context, q *gridv1.OfferRequest, _ ...grpc.CallOption) (*gridv1.OfferResponse, error) {
	return call(ctx, c, q, gridv1.GridServer.Offer)
}

func (c memClient) Records(ctx context.Context, q *gridv1.RecordsRequest, _ ...grpc.CallOption) (*gridv1.RecordsResponse, error) {
	return call(ctx, c, q, gridv1.GridServer.Records)
}

func (c memClient) OfferRecords(ctx context.Context, q *gridv1.OfferRecordsRequest, _ ...grpc.CallOption) (*gridv1.OfferRecordsResponse, error) {
	return call(ctx, c, q, gridv1.GridServer.OfferRecords)
}

func (c memClient) Info(ctx context.Context, q *gridv1.InfoRequest, _ ...grpc.CallOption) (*gridv1.InfoResponse, error) {
	return call(ctx, c, q, gridv1.GridServer.Info)
}
