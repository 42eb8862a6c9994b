package membership

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/roster"
	gridv1 "gotong/proto/grid/v1"
)

// Config is what New needs. The caller's value is copied.
type Config struct {
	// Node is the key of this peer; it signs the peer's own record.
	Node identity.NodeKey
	// Roster says who belongs. It stays open for as long as Run runs.
	Roster *roster.Roster
	// Records is the address book. It stays open for as long as Run runs.
	Records *roster.Records
	// Directory is told of changes, and of addresses found on the local
	// network; the same one that the network below dials by. Nil: none.
	Directory *Directory
	// Network carries gossip.
	Network Network
	// Clients returns the client for a peer's Grid service.
	Clients func(peer grid.PeerID) (gridv1.GridClient, error)
	// Info answers the present load of this peer; nil answers zeros.
	Info func() Info
	// Version of the program, in the gossip tags.
	Version string
	// SeenPath is a file in which the times at which peers were last seen
	// survive restarts; empty: they do not.
	SeenPath string
	// LAN says whether addresses are offered and looked for by mDNS.
	LAN LANConfig
	// Timers are the waits; zero fields are taken from the preset LAN.
	Timers Timers
	// Logger receives state changes; nil discards them.
	Logger *slog.Logger
}

// Info is the present load of a peer.
type Info struct {
	PledgeBytes uint64
	UsedBytes   uint64 // held for others, trash included
	FreeBytes   uint64 // that a put may still take
	Slots       int
	SlotsFree   int
	Version     string
	// Ahead is by how much the peer's clock is ahead of this one's, half of the round
	// trip taken off; what it says, nothing more. Of a peer that was asked.
	Ahead    time.Duration
	HasClock bool // it says what its clock shows
}

// Timers are the waits of membership. Presets: LAN, WAN, Local.
type Timers struct {
	Probe        time.Duration // between two probes of other peers
	ProbeTimeout time.Duration // for the answer to a probe; above the round trip
	Gossip       time.Duration // between two rounds of gossip
	PushPull     time.Duration // between two full exchanges of state
	Stream       time.Duration // for one full exchange
	Dial         time.Duration // for one dial to a peer
	Suspicion    int           // a suspect fails after about this × log10(peers) × Probe
	Sync         time.Duration // between two pulls of roster and records from a random member
	RejoinMin    time.Duration // first wait before a member who is away is tried again; doubles
	RejoinMax    time.Duration // longest such wait
	Reconnect    time.Duration // between Serf's own tries of failed peers
	Leave        time.Duration // for a leave to spread before connections end
}

// LAN returns the timers for friends on the internet or one local network: a
// dead peer is noticed within about 10 s.
func LAN() Timers {
	return Timers{
		Probe: time.Second, ProbeTimeout: 500 * time.Millisecond, Gossip: 200 * time.Millisecond,
		PushPull: 30 * time.Second, Stream: 10 * time.Second, Dial: 10 * time.Second, Suspicion: 4,
		Sync: time.Minute, RejoinMin: time.Second, RejoinMax: time.Minute, Reconnect: 30 * time.Second,
		Leave: 500 * time.Millisecond,
	}
}

// WAN returns the timers for long and slow paths.
func WAN() Timers {
	t := LAN()
	t.Probe, t.ProbeTimeout, t.Gossip = 5*time.Second, 3*time.Second, 500*time.Millisecond
	t.PushPull, t.Stream, t.Dial, t.Suspicion = time.Minute, 30*time.Second, 20*time.Second, 6
	t.RejoinMin, t.RejoinMax, t.Leave = 2*time.Second, 2*time.Minute, time.Second
	return t
}

// Local returns the timers for peers on one machine.
func Local() Timers {
	t := LAN()
	t.ProbeTimeout, t.Gossip, t.PushPull = 300*time.Millisecond, 100*time.Millisecond, 15*time.Second
	t.Stream, t.Dial, t.Suspicion = 3*time.Second, 3*time.Second, 3
	t.Sync, t.RejoinMin, t.RejoinMax, t.Reconnect = 20*time.Second, 250*time.Millisecond, 10*time.Second, 10*time.Second
	t.Leave = 200 * time.Millisecond
	return t
}

// ErrPreset says that a text names no preset. Test with errors.Is.
var ErrPreset = errors.New("not a gossip preset: want lan, wan or local")

// Preset returns the timers of that name: lan, wan or local.
func Preset(name string) (Timers, error) {
	switch name {
	case "lan":
		return LAN(), nil
	case "wan":
		return WAN(), nil
	case "local":
		return Local(), nil
	}
	return Timers{}, fmt.Errorf("%q: %w", name, ErrPreset)
}

// Validate returns all faults of c joined, or nil.
func (c Config) Validate() error {
	var faults []error
	for _, missing := range []struct {
		is   bool
		what string
	}{
		{c.Node.IsZero(), "node key"}, {c.Roster == nil, "roster"}, {c.Records == nil, "records"},
		{c.Network == nil, "network"}, {c.Clients == nil, "clients"},
	} {
		if missing.is {
			faults = append(faults, fmt.Errorf("membership: no %s", missing.what))
		}
	}
	for _, d := range c.Timers.durations() {
		if *d < 0 {
			faults = append(faults, errors.New("membership: a timer is negative"))
			break
		}
	}
	if c.LAN.Enabled && (c.LAN.Port < 1 || c.LAN.Port > 65535) {
		faults = append(faults, fmt.Errorf("membership: port %d cannot be offered on the local network", c.LAN.Port))
	}
	return errors.Join(faults...)
}

func (t *Timers) durations() []*time.Duration {
	return []*time.Duration{
		&t.Probe, &t.ProbeTimeout, &t.Gossip, &t.PushPull, &t.Stream, &t.Dial,
		&t.Sync, &t.RejoinMin, &t.RejoinMax, &t.Reconnect, &t.Leave,
	}
}

// withDefaults fills what the caller left zero.
func (c Config) withDefaults() Config {
	defaults := LAN()
	from := defaults.durations()
	for i, d := range c.Timers.durations() {
		if *d == 0 {
			*d = *from[i]
		}
	}
	if c.Timers.Suspicion <= 0 {
		c.Timers.Suspicion = defaults.Suspicion
	}
	if c.Info == nil {
		c.Info = func() Info { return Info{Version: c.Version} }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
