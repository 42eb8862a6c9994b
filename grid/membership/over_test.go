package membership_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/grid/gridtest/memnet"
	"gotong/grid/identity"
	"gotong/grid/membership"
	"gotong/grid/peernet"
	"gotong/grid/roster"
	gridv1 "gotong/proto/grid/v1"
)

// machine is a peer on real sessions: TLS and gRPC over a fabric in memory.
type machine struct {
	host *memnet.Host
	node identity.NodeKey
	*membership.Membership
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// members starts n machines of one grid; the record of the first is known to
// all. They stop with stop.
func members(t *testing.T, n int, change func(i int, h *memnet.Host)) (machines []*machine, stop func()) {
	fabric := memnet.New()
	ctx, cancel := context.WithCancel(t.Context())
	var stops []func()
	var first *roster.Roster
	var firstNode identity.NodeKey
	var firstRecord []byte
	for i := range n {
		node, owner := must(identity.NewNodeKey()), must(identity.NewPhrase()).OwnerKey()
		path := filepath.Join(t.TempDir(), "roster")
		var r *roster.Roster
		if i == 0 {
			r = must(roster.Create(path, roster.CreateParams{Name: "test", OwnerKey: owner, Node: node, Delegation: identity.Delegation{Capabilities: grid.CapAll}}))
			first, firstNode = r, node
		} else {
			g := first.View().Grid()
			if err := first.Admit(firstNode, roster.AdmitParams{
				PeerKey:    node.Public(),
				Delegation: identity.SignDelegation(owner, identity.Delegation{Grid: g, Peer: node.PeerID(), Capabilities: grid.CapAll}),
				Consent:    roster.SignConsent(node, roster.Consent{Grid: g, Owner: grid.OwnerIDOf(owner.Public().(ed25519.PublicKey)), Inviter: firstNode.PeerID()}),
			}); err != nil {
				t.Fatal(err)
			}
			r = must(roster.Import(path, g, first.All()))
		}
		records := must(roster.OpenRecords(path+".records", r.View().Grid()))
		if i > 0 {
			must(records.Put(firstRecord, r.View()))
		}
		m := &machine{host: fabric.Host(fmt.Sprint("host", i)), node: node}
		stops = append(stops, m.run(ctx, t, r, records))
		if i == 0 {
			_, firstRecord, _ = records.Get(node.PeerID())
		}
		if change != nil {
			change(i, m.host)
		}
		machines = append(machines, m)
	}
	return machines, func() {
		cancel()
		for _, stop := range stops {
			stop()
		}
		time.Sleep(time.Minute) // memberlist's probes outlive it
	}
}

func (m *machine) run(ctx context.Context, t *testing.T, r *roster.Roster, records *roster.Records) (stop func()) {
	logger := slog.New(slog.NewTextHandler(t.Output(), nil)).With("host", m.host.Name())
	directory := membership.NewDirectory(r, records)
	n := must(peernet.New(peernet.Config{Node: m.node, Directory: directory, Fabric: m.host, ListenAddr: ":7000", Logger: logger}))
	if err := n.Listen(); err != nil {
		t.Fatal(err)
	}
	clients := peernet.NewClients(n)
	m.Membership = must(membership.New(membership.Config{
		Node: m.node, Roster: r, Records: records, Directory: directory, Network: membership.Over(n), Logger: logger,
		Clients: func(peer grid.PeerID) (gridv1.GridClient, error) {
			conn, err := clients.Conn(peer)
			if err != nil {
				return nil, err
			}
			return gridv1.NewGridClient(conn), nil
		},
	}))
	if err := m.UpdateRecord(func(r *grid.Record) { r.Addresses = []string{net.JoinHostPort(m.host.IP().String(), "7000")} }); err != nil {
		t.Fatal(err)
	}
	rules := peernet.Rules{}
	for _, method := range gridv1.Grid_ServiceDesc.Methods {
		rules["/"+gridv1.Grid_ServiceDesc.ServiceName+"/"+method.MethodName] = peernet.AnyMember
	}
	var services peernet.Services
	gridv1.RegisterGridServer(&services, m.Service())
	server := must(peernet.NewServer(n, rules, &services))
	done := make(chan error, 3)
	go func() { done <- n.Run(ctx) }()
	go func() { done <- server.Run(ctx, time.Second) }()
	go func() { done <- m.Run(ctx) }()
	return func() {
		for range cap(done) {
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		}
		_ = clients.Close()
		_ = n.Close()
		_, _ = r.Close(), records.Close()
	}
}

func converge(t *testing.T, machines []*machine, limit time.Duration) {
	t.Helper()
	start := time.Now()
	for {
		alive := 0
		for _, m := range machines {
			for _, p := range m.Peers() {
				if p.State == grid.StateAlive && len(p.Record.Addresses) > 0 {
					alive++
				}
			}
		}
		if alive == len(machines)*len(machines) {
			t.Logf("converged after %v", time.Since(start))
			return
		}
		if time.Since(start) > limit {
			t.Fatalf("after %v %d of %d views are right", limit, alive, len(machines)*len(machines))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestOverRealSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machines, stop := members(t, 5, nil)
		defer stop()
		converge(t, machines, 20*time.Second)
		info, err := machines[1].Info(t.Context(), machines[2].node.PeerID())
		if err != nil {
			t.Error(info, err)
		}
		machines[3].host.Move()
		if err := machines[3].UpdateRecord(func(r *grid.Record) {
			r.Addresses = []string{net.JoinHostPort(machines[3].host.IP().String(), "7000")}
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		converge(t, machines, 2*time.Minute)
	})
}

func TestPeersThatCannotBeDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machines, stop := members(t, 5, func(i int, h *memnet.Host) { h.DropInbound(i >= 3) })
		defer stop()
		converge(t, machines, time.Minute)
		time.Sleep(3 * time.Minute)
		converge(t, machines, time.Second)
	})
}
