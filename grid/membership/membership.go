package membership

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"gotong/grid"

	"github.com/hashicorp/serf/serf"
)

// Bounds of the loops.
const (
	// serfEvents wait to be drained; the drainer never waits for anything.
	serfEvents = 64
	// compareInterval is how often the list of Serf is compared with what was
	// known even without an event.
	compareInterval = 5 * time.Second
)

// ErrRunning says that Run was called a second time, or that what was asked
// needs a Run that is not there. Test with errors.Is.
var ErrRunning = errors.New("membership: not in the right state of running")

// Membership is this peer's view of the grid. Its methods may be called from
// any goroutine. Before Run, all others are away.
type Membership struct {
	cfg     Config
	self    grid.PeerID
	started time.Time
	seen    *seenTimes
	changed *broadcast

	senders *recentSenders
	ran     atomic.Bool

	mu        sync.Mutex
	serf      *serf.Serf // nil before and after Run
	transport *transport
	state     string // of this peer, for the tags
	opinions  map[grid.PeerID]opinion

	dirty      chan struct{} // Serf's list may have changed
	rejoinKick chan struct{} // who to rejoin may have changed
	retag      chan struct{} // own record or state changed
	give       chan struct{} // the roster was changed here
	hints      *hints        // peers to pull the roster from
	wanted     *wanted       // records to fetch
	relays     *relays       // records to pass on

	merging sync.Mutex // held while statements of others are merged
	learnt  digest     // of the roster after the last such merge

	signing sync.Mutex  // held while the own record is signed
	own     grid.Record // as this process signed it last

	tagging turn // for what changes Serf's own entry; it is not safe
	joining turn // for Serf's Join
}

// New returns a membership that Run starts. It changes nothing on disk or
// network, but signs and stores this peer's first record if there is none.
func New(cfg Config) (*Membership, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	seen, err := openSeen(cfg.SeenPath)
	if err != nil {
		cfg.Logger.Warn("times at which peers were last seen are lost", "err", err)
	}
	m := &Membership{
		cfg: cfg, self: cfg.Node.PeerID(), started: time.Now(), seen: seen, changed: newBroadcast(),
		senders:    new(recentSenders),
		state:      stateUp,
		opinions:   make(map[grid.PeerID]opinion),
		dirty:      make(chan struct{}, 1),
		rejoinKick: make(chan struct{}, 1),
		retag:      make(chan struct{}, 1),
		give:       make(chan struct{}, 1),
		hints:      newHints(),
		wanted:     newWanted(),
		relays:     newRelays(),
		tagging:    newTurn(),
		joining:    newTurn(),
	}
	m.learnt = cfg.Roster.Digest()
	if err := m.UpdateRecord(func(*grid.Record) {}); err != nil {
		return nil, err
	}
	return m, nil
}

// Run is a member until ctx ends. It may be called once. It returns when every
// goroutine that it started has ended; some of memberlist's own timers run on
// for a few seconds without doing anything.
func (m *Membership) Run(ctx context.Context) error {
	events := make(chan serf.Event, serfEvents)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if err := m.start(events); err != nil {
		return err
	}
	var wg sync.WaitGroup
	drained := make(chan struct{})
	wg.Go(func() { m.drain(events, drained) })
	for _, loop := range []func(context.Context){
		m.compareLoop, m.rejoinLoop, m.followLoop, m.giveLoop, m.syncLoop, m.hintLoop, m.fetchLoop, m.relayLoop, m.tagLoop, m.seenLoop, m.lanLoop,
	} {
		wg.Go(func() { loop(ctx) })
	}
	<-ctx.Done()
	err := m.end()
	close(drained)
	wg.Wait()
	drainRest(events)
	return errors.Join(err, m.seen.save())
}

// start makes Serf and its transport. Serf changes the configuration that it
// gets, so each is built afresh.
func (m *Membership) start(events chan<- serf.Event) error {
	if m.ran.Swap(true) {
		return fmt.Errorf("%w: Run may be called once", ErrRunning)
	}
	t := newTransport(m.self, m.cfg.Network, m.isMember, m.cfg.Timers.Dial, m.senders, m.cfg.Logger)
	// Not under m.mu: Serf asks about members before Create returns.
	s, err := serf.Create(m.serfConfig(t, events))
	if err != nil {
		return errors.Join(fmt.Errorf("membership: start gossip: %w", err), t.Shutdown())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.transport, m.serf = t, s
	return nil
}

// end stops Serf; the transport ends with it.
func (m *Membership) end() error {
	m.tagging.take() // a leave under way must not meet a stopped Serf
	defer m.tagging.give()
	m.mu.Lock()
	s := m.serf
	m.serf = nil
	m.opinions = make(map[grid.PeerID]opinion)
	m.mu.Unlock()
	m.changed.fire()
	if err := s.Shutdown(); err != nil {
		return fmt.Errorf("membership: stop gossip: %w", err)
	}
	return m.transport.Shutdown()
}

// running returns Serf and its transport while Run runs.
func (m *Membership) running() (*serf.Serf, *transport, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.serf, m.transport, m.serf != nil
}

func (m *Membership) isMember(peer grid.PeerID) bool {
	_, ok := m.cfg.Roster.View().Member(peer)
	return ok
}

// Watch returns a channel that is closed at the next change of what Peers
// returns. It is a hint: take the channel, then look.
func (m *Membership) Watch() <-chan struct{} { return m.changed.wait() }

// kick wakes a loop that listens on c; a wake-up already waiting is enough.
func kick(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// broadcast wakes everyone who waits, by closing a channel and replacing it.
type broadcast struct {
	mu sync.Mutex
	c  chan struct{}
}

func newBroadcast() *broadcast { return &broadcast{c: make(chan struct{})} }

func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.c
}

func (b *broadcast) fire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.c)
	b.c = make(chan struct{})
}
