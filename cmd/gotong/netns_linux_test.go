package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gotong/grid/localgrid"
)

// requireNamespaces in the environment makes a missing namespace a failure.
const requireNamespaces = "REQUIRE_NETNS"

// labs counts the labs of this process, to name their namespaces apart.
var labs atomic.Int64

// lab is a few machines on one wire: network namespaces of this test's own, each
// joined to a bridge by a pair of virtual interfaces. The bridge lives in a
// namespace too, so nothing of this machine's network is touched.
type lab struct {
	t      *testing.T
	prefix string
	hosts  map[string]int // name → number
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Getenv(requireNamespaces) == "" {
		t.Skipf("makes network namespaces as root, for a minute: set %s=1", requireNamespaces)
	}
	l := &lab{t: t, prefix: fmt.Sprintf("gt%d-%d-", os.Getpid(), labs.Add(1)), hosts: map[string]int{}}
	if why := l.missing(); why != nil {
		t.Fatalf("needs root, ip, nft and network namespaces: %v", why)
	}
	t.Parallel() // they mostly wait
	l.addNamespace("hub")
	for _, bridge := range []string{"left", "right"} {
		l.in("hub", "ip", "link", "add", bridge, "type", "bridge")
		l.in("hub", "ip", "link", "set", bridge, "up")
	}
	return l
}

// missing returns why there can be no lab here.
func (l *lab) missing() error {
	if _, err := exec.LookPath("nft"); err != nil {
		return err
	}
	for _, step := range [][]string{
		{"netns", "add", l.prefix + "try"},
		{"-n", l.prefix + "try", "link", "add", "try0", "type", "veth", "peer", "name", "try1"},
		{"-n", l.prefix + "try", "link", "add", "try2", "type", "bridge"},
		{"netns", "del", l.prefix + "try"},
	} {
		if out, err := exec.Command("ip", step...).CombinedOutput(); err != nil {
			_ = exec.Command("ip", "netns", "del", l.prefix+"try").Run() // if it was made
			return fmt.Errorf("ip %s: %w: %s", strings.Join(step, " "), err, out)
		}
	}
	return nil
}

func (l *lab) addNamespace(name string) {
	l.t.Helper()
	l.run("ip", "netns", "add", l.prefix+name)
	l.t.Cleanup(func() { l.run("ip", "netns", "del", l.prefix+name) })
	l.in(name, "ip", "link", "set", "lo", "up")
}

func (l *lab) run(args ...string) {
	l.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		l.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (l *lab) in(host string, args ...string) {
	l.t.Helper()
	l.run(append([]string{"ip", "netns", "exec", l.prefix + host}, args...)...)
}

// place gives each peer a machine of its own on first use.
func (l *lab) place(name string) (command []string, listen string) {
	if _, ok := l.hosts[name]; !ok {
		l.hosts[name] = len(l.hosts) + 1
		l.addNamespace(name)
		port := fmt.Sprintf("port%d", l.hosts[name])
		l.in("hub", "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", l.prefix+name)
		l.in("hub", "ip", "link", "set", port, "master", "left", "up")
		l.in(name, "ip", "link", "set", "eth0", "up")
		l.address(name, l.hosts[name])
	}
	return []string{"ip", "netns", "exec", l.prefix + name}, ":7000"
}

// address gives a machine the n-th address and takes its others away.
func (l *lab) address(name string, n int) {
	l.t.Helper()
	l.in(name, "ip", "addr", "flush", "dev", "eth0", "scope", "global")
	l.in(name, "ip", "addr", "add", fmt.Sprintf("10.77.0.%d/24", n), "dev", "eth0")
}

// dropInbound makes a machine one that nobody can dial.
func (l *lab) dropInbound(name string) {
	l.t.Helper()
	l.in(name, "nft", "add", "table", "inet", "lab")
	l.in(name, "nft", "add", "chain", "inet", "lab", "in", "{ type filter hook input priority 0; }")
	l.in(name, "nft", "add", "rule", "inet", "lab", "in", "iif != lo tcp flags & (syn|ack) == syn drop")
}

// plug puts a machine on one of the two wires.
func (l *lab) plug(name, wire string) {
	l.t.Helper()
	l.in("hub", "ip", "link", "set", fmt.Sprintf("port%d", l.hosts[name]), "master", wire)
}

// grid returns an empty grid whose peers each run on a machine of the lab.
func (l *lab) grid(args ...string) *localgrid.Grid {
	l.t.Helper()
	g := localgrid.New(localgrid.Config{
		Executable: os.Args[0], Dir: shortTempDir(l.t), Place: l.place,
		Env:  []string{asProgram + "=1", "GOTONG_GOSSIP_PRESET=local", "GOTONG_DISCOVERY_MDNS=false"},
		Args: append([]string{"--give", "5GB", "--slots", "1"}, args...),
	})
	l.t.Cleanup(func() {
		if err := g.Close(); err != nil {
			l.t.Error(err)
		}
	})
	return g
}

// TestNetnsMovingPeer: a peer whose machine gets another address is found again
// without help, and serves what it held.
func TestNetnsMovingPeer(t *testing.T) {
	l, ctx := newLab(t), testContext(t)
	g := l.grid("--redundancy", "1+1")
	you, friends := grow(ctx, t, g, 2)
	source := shortTempDir(t)
	writeTree(t, source, 3, 10, 100_000)
	backup(ctx, t, you, source)
	l.address(friends[0].Name, 100)
	waitAddress(ctx, t, you, friends[0].ID, "10.77.0.100:7000")
	if err := friends[1].Kill(); err != nil {
		t.Fatal(err)
	}
	sameTree(t, source, restore(ctx, t, you, "latest", source))
}

// waitAddress returns when p sees the peer id alive at an address.
func waitAddress(ctx context.Context, t *testing.T, p *localgrid.Peer, id, address string) {
	t.Helper()
	eventually(ctx, t, time.Minute, fmt.Sprintf("%s at %s", id, address), func() (bool, error) {
		var list struct {
			Peers []struct{ ID, State, Address string }
		}
		err := p.JSON(ctx, &list, "peers")
		for _, other := range list.Peers {
			if other.ID == id && other.State == "alive" && other.Address == address {
				return true, nil
			}
		}
		return false, err
	})
}

// TestNetnsPartition: seven peers fall into 4 | 3, each side sees the other as
// away, and when the wire is back all are alive and nothing was deleted.
func TestNetnsPartition(t *testing.T) {
	l, ctx := newLab(t), testContext(t)
	g := l.grid("--redundancy", "4+2")
	you, friends := grow(ctx, t, g, 6)
	source := shortTempDir(t)
	writeTree(t, source, 4, 20, 200_000)
	backup(ctx, t, you, source)
	before := storedShards(t, g)
	for _, p := range friends[3:] {
		l.plug(p.Name, "right")
	}
	if err := g.WaitAlive(ctx, you, 4); err != nil {
		t.Fatal(err)
	}
	if err := g.WaitAlive(ctx, friends[5], 3); err != nil {
		t.Fatal(err)
	}
	for _, p := range friends[3:] {
		l.plug(p.Name, "left")
	}
	for _, p := range g.Peers() {
		if err := g.WaitAlive(ctx, p, 7); err != nil {
			t.Fatal(err)
		}
	}
	if after := storedShards(t, g); after != before {
		t.Errorf("%d shards before the partition, %d after", before, after)
	}
	sameTree(t, source, restore(ctx, t, you, "latest", source))
}

// TestNetnsUndialable: a peer that drops every inbound connection joins, holds
// shards, gives them back, and runs tasks.
func TestNetnsUndialable(t *testing.T) {
	l, ctx := newLab(t), testContext(t)
	g := l.grid("--redundancy", "1+1")
	l.place("friend-1")
	l.dropInbound("friend-1")
	you, friends := grow(ctx, t, g, 2)
	// A backup made in the first seconds may do without a peer whose links are
	// still being opened, and says so: it then survives the loss of no site.
	spread := func(p *localgrid.Peer, seed uint64) (source string) {
		for last := seed + 10; ; seed++ {
			source = shortTempDir(t)
			writeTree(t, source, seed, 20, 200_000)
			var s backupSummary
			err := p.JSON(ctx, &s, "backup", source)
			if err == nil && s.Complete && s.SurvivesSites == 1 {
				return source
			}
			if seed == last {
				t.Fatalf("a backup of %s never got a shard to both others: %+v, %v", p.Name, s, err)
			}
		}
	}
	spread(friends[0], 50) // by the peer behind the firewall
	source := spread(you, 5)
	if err := friends[1].Kill(); err != nil { // now only the one behind the firewall has the data
		t.Fatal(err)
	}
	sameTree(t, source, restore(ctx, t, you, "latest", source))
	seen := runOn(ctx, t, you, 20)
	if seen[friends[0].ID] == 0 {
		t.Errorf("the peer behind the firewall ran nothing: %v", seen)
	}
}
