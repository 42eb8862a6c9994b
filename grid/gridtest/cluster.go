package gridtest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/grid/node"
	"gotong/storage"
	"gotong/tasks/rules"
	"gotong/tasks/taskrpc"
)

// ClusterConfig says what cluster New makes.
type ClusterConfig struct {
	Peers int // the founder included
	// Reconfigure may change the configuration of a peer before it is made.
	Reconfigure func(i int, c *node.Config)
	// Shards may make what others see of the store of a peer.
	Shards func(i int, s storage.RemoteShards) storage.RemoteShards
	// Runner may make what runs the tasks of others on a peer.
	Runner func(i int, r taskrpc.Runner) taskrpc.Runner
	// Facts says what the donor's rules find of the machine of a peer; nil: nobody
	// is there and nothing else runs.
	Facts  func(i int, now time.Time) rules.Facts
	Logs   bool // of the peers, into the test's output
	Admins bool // the founder invites the others as admins
	// WriteOnly makes the first peer a write-only device.
	WriteOnly bool
}

const (
	clusterPort = ":7000"
	clusterGive = 1 << 30
	// settle is how long WaitAlive and others wait at most.
	settle = time.Minute
	// poll is how often they look.
	poll = 100 * time.Millisecond
	// stopWait bounds the stop of one peer.
	stopWait = 30 * time.Second
)

// Cluster is a grid of whole peers in this process, on a Fabric and real disks.
// It works inside a testing/synctest bubble as long as no guest runs: a child
// process stops the bubble's clock. The peers have no control socket and no task
// slots unless the configuration gives some.
type Cluster struct {
	Fabric *Fabric
	Peers  []*ClusterPeer

	t      testing.TB
	dir    string
	config ClusterConfig
}

// ClusterPeer is one peer of a Cluster. Node is nil while it is stopped.
type ClusterPeer struct {
	*node.Peer
	Name string
	Home string
	ID   grid.PeerID
	Host *Host
	// Phrase is the recovery phrase of the owner that was made with the peer.
	Phrase string
	// Broken is what the peer finds when it reads its configuration again; nil: what
	// Reconfigure made of it.
	Broken error

	cluster *Cluster
	config  node.Config
	shards  func(storage.RemoteShards) storage.RemoteShards // nil: as they are
	runner  func(taskrpc.Runner) taskrpc.Runner             // nil: as it is
	facts   func(now time.Time) rules.Facts
	mu      sync.Mutex
	stop    context.CancelFunc
	done    chan error
}

// New makes a cluster whose peers are members of one grid and run. They stop
// with the test.
func New(t testing.TB, config ClusterConfig) *Cluster {
	t.Helper()
	c := &Cluster{Fabric: NewFabric(), t: t, dir: t.TempDir(), config: config} // the directory goes after the peers
	t.Cleanup(c.StopAll)
	for i := range config.Peers {
		c.add(i)
	}
	c.WaitAlive(config.Peers)
	return c
}

// afterlife is how long memberlist's probes go on after its shutdown.
const afterlife = time.Minute

// Run gives f a new cluster inside a testing/synctest bubble and stops it
// afterwards. Its minutes pass in milliseconds.
func Run(t *testing.T, config ClusterConfig, f func(t *testing.T, c *Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := New(t, config)
		f(t, c)
		c.StopAll()
		time.Sleep(afterlife)
	})
}

// add makes the i-th peer, the founder or one that the founder invites.
func (c *Cluster) add(i int) {
	c.t.Helper()
	p := c.fresh(i)
	saved := func(string, node.Config) error { return nil }
	var made node.Made
	var err error
	if i == 0 {
		made, err = node.Init(c.t.Context(), p.Home, node.InitParams{Config: p.config, Save: saved, WriteOnly: c.config.WriteOnly})
	} else {
		code, inviteErr := c.Peers[0].Invite(time.Hour, c.config.Admins)
		if inviteErr != nil {
			c.t.Fatal(inviteErr)
		}
		made, err = node.Join(c.t.Context(), p.Home, node.JoinParams{Config: p.config, Save: saved, Code: code.String(), Fabric: p.Host})
	}
	if err != nil {
		c.t.Fatalf("%s: %v", p.Name, err)
	}
	p.ID, p.Phrase = made.Peer, made.Phrase
	if c.config.Shards != nil {
		p.shards = func(s storage.RemoteShards) storage.RemoteShards { return c.config.Shards(i, s) }
	}
	c.Peers = append(c.Peers, p)
	p.Start()
}

// fresh returns a peer that has a name, a host and a configuration.
func (c *Cluster) fresh(i int) *ClusterPeer {
	name := fmt.Sprintf("peer-%d", i)
	p := &ClusterPeer{cluster: c, Name: name, Home: filepath.Join(c.dir, name), Host: c.Fabric.Host(name), config: node.DefaultConfig()}
	p.config.Name, p.config.Listen, p.config.Give = name, clusterPort, clusterGive
	p.config.Store.KeepFree = 0
	p.config.Gossip.Preset, p.config.Discovery.MDNS = "local", false
	if c.config.Reconfigure != nil {
		c.config.Reconfigure(i, &p.config)
	}
	if c.config.Runner != nil {
		p.runner = func(r taskrpc.Runner) taskrpc.Runner { return c.config.Runner(i, r) }
	}
	p.facts = func(now time.Time) rules.Facts {
		if c.config.Facts == nil {
			return QuietMachine()
		}
		return c.config.Facts(i, now)
	}
	return p
}

// Recover makes a new peer for the owner of a phrase, through one member, and
// starts it. adjust may change what is asked for; after an error there is no
// peer.
func (c *Cluster) Recover(phrase string, through *ClusterPeer, adjust func(*node.RecoverParams)) (*ClusterPeer, node.Recovered, error) {
	c.t.Helper()
	p := c.fresh(len(c.Peers))
	params := node.RecoverParams{
		Config: p.config, Save: func(string, node.Config) error { return nil }, Phrase: phrase, Fabric: p.Host,
		Contacts: []node.Contact{{Peer: through.ID, Addresses: []string{net.JoinHostPort(through.Host.IP().String(), clusterPort[1:])}}},
	}
	if adjust != nil {
		adjust(&params)
	}
	found, err := node.Recover(c.t.Context(), p.Home, params)
	if err != nil {
		return nil, found, err
	}
	p.ID = found.Peer
	c.Peers = append(c.Peers, p)
	p.Start()
	return p, found, nil
}

// QuietMachine is what is found of a machine that nobody else uses.
func QuietMachine() rules.Facts {
	return rules.Facts{
		Input: rules.Input{NoUser: true, Known: true, Source: "test"},
		Load:  rules.Load{Known: true}, Power: rules.Power{Known: true, Detail: "test"},
	}
}

// Start runs the peer on the disk that it left.
func (p *ClusterPeer) Start() {
	p.cluster.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	logger := slog.New(slog.DiscardHandler)
	if p.cluster.config.Logs {
		logger = slog.New(slog.NewTextHandler(p.cluster.t.Output(), nil)).With("at", p.Name)
	}
	opened, err := node.Open(p.Home, node.Options{Config: p.config, Fabric: p.Host, NoControl: true, Logger: logger, Shards: p.shards, Runner: p.runner, Facts: p.facts,
		Reload: func() (node.Config, error) { return p.config, p.Broken }})
	if err != nil {
		p.cluster.t.Fatalf("%s: %v", p.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	p.Peer, p.stop, p.done = opened, cancel, make(chan error, 1)
	go func(done chan<- error) {
		done <- opened.Run(ctx, func(node.Ready) { close(ready) })
	}(p.done)
	select {
	case <-ready:
	case err := <-p.done:
		p.cluster.t.Fatalf("%s: %v", p.Name, err)
	}
}

// AwaitMembership lets a stopped peer that was removed wait until it is a member
// again, as gotong up does.
func (p *ClusterPeer) AwaitMembership() {
	p.cluster.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	if err := node.AwaitMembership(ctx, p.Home, node.Options{Config: p.config, Fabric: p.Host}, func() {}); err != nil {
		p.cluster.t.Fatalf("%s: %v", p.Name, err)
	}
}

// Reconfigure changes the configuration of a peer; a running one has to read it
// again.
func (p *ClusterPeer) Reconfigure(change func(*node.Config)) { change(&p.config) }

// Stop stops the peer in good order; nothing happens when it is stopped.
func (p *ClusterPeer) Stop() {
	p.cluster.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop == nil {
		return
	}
	p.stop()
	select {
	case err := <-p.done:
		if err != nil {
			p.cluster.t.Errorf("stop %s: %v", p.Name, err)
		}
	case <-time.After(stopWait):
		p.cluster.t.Errorf("%s did not stop within %s", p.Name, stopWait)
	}
	p.Peer, p.stop = nil, nil
}

// Running reports whether the peer runs.
func (p *ClusterPeer) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stop != nil
}

// StopAll stops every peer.
func (c *Cluster) StopAll() {
	var wait sync.WaitGroup
	for _, p := range c.Peers {
		wait.Go(p.Stop)
	}
	wait.Wait()
}

// WaitAlive returns when every running peer sees n peers alive.
func (c *Cluster) WaitAlive(n int) {
	c.t.Helper()
	c.Wait(fmt.Sprintf("%d peers alive everywhere", n), func() bool {
		for _, p := range c.Peers {
			if p.Running() && p.Alive() != n {
				return false
			}
		}
		return true
	})
}

// Alive counts the peers that this one sees alive, itself included.
func (p *ClusterPeer) Alive() int { return p.count(grid.StateAlive) }

func (p *ClusterPeer) count(state grid.State) int {
	n := 0
	for _, other := range p.Peers(context.Background(), false) {
		if other.State == string(state) {
			n++
		}
	}
	return n
}

// StateOf returns how this peer sees another one; empty when it knows nothing.
func (p *ClusterPeer) StateOf(other grid.PeerID) grid.State {
	for _, o := range p.Peers(context.Background(), false) {
		if o.Id == other.String() {
			return grid.State(o.State)
		}
	}
	return ""
}

// Wait returns when condition holds; the test fails when it does not in time.
func (c *Cluster) Wait(what string, condition func() bool) {
	c.t.Helper()
	deadline := time.After(settle)
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline:
			c.t.Fatalf("not within %s: %s", settle, what)
		}
	}
}
