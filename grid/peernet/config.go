package peernet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"gotong/grid/identity"
)

// Config is what New needs. The caller's value is copied.
type Config struct {
	// Node is the key of this peer.
	Node identity.NodeKey
	// Directory is the roster and the address records.
	Directory Directory
	// Fabric makes raw connections; nil means TCP.
	Fabric Fabric
	// ListenAddr is HOST:PORT; port 0 takes a free one.
	ListenAddr string
	// Introduce is called when another member refused this peer as unknown, or
	// as removed (conn.Standing): conn is a join connection to that very peer, on
	// which the statements that lead to this peer are shown. When it returns nil the dial is repeated
	// once. Introduce does not close conn. Nil means that the refusal stands.
	Introduce func(ctx context.Context, conn *Conn) error
	// Limits bounds what others may use here; zero fields mean the defaults.
	Limits Limits
	// Timers are the waits; zero fields mean the defaults.
	Timers Timers
	// Logger receives state changes; nil discards them.
	Logger *slog.Logger
}

// Limits bounds what other peers and strangers can make this peer hold.
type Limits struct {
	// Handshakes that run at once; when there are more, the oldest is cut.
	Handshakes int
	// HandshakesPerAddress that run at once from one address (IPv6: one /64).
	HandshakesPerAddress int
	// ConnsPerPeer that one member may have open here, all protocols together.
	ConnsPerPeer int
	// GRPCPerPeer is how many of these may speak gRPC, each of which can have
	// a window full of bytes in memory.
	GRPCPerPeer int
	// Strangers connected at once on ProtoJoin.
	Strangers int
	// JoinsPerAddress is how many join connections of strangers one address may
	// open in a burst; they come back at JoinsPerMinute.
	JoinsPerAddress int
	// JoinsPerMinute is the lasting rate of join connections of one address.
	JoinsPerMinute int
	// Backlog of accepted connections that wait for their protocol's Accept.
	Backlog int
	// Links kept at once to or from other peers, each way.
	Links int
	// BackPerLink is how many dial-backs one peer may ask for at once.
	BackPerLink int
}

// DefaultLimits returns the limits for zero fields.
func DefaultLimits() Limits {
	return Limits{
		Handshakes:           256,
		HandshakesPerAddress: 64,
		ConnsPerPeer:         64,
		GRPCPerPeer:          4,
		Strangers:            128,
		JoinsPerAddress:      64,
		JoinsPerMinute:       60,
		Backlog:              64,
		Links:                512,
		BackPerLink:          16,
	}
}

// Timers are the waits of a Net.
type Timers struct {
	// Dial bounds a Dial whose context has no deadline.
	Dial time.Duration
	// Handshake bounds TLS and hello of one connection, on both sides.
	Handshake time.Duration
	// Stagger is the head start of one address before the next is tried too.
	Stagger time.Duration
	// Stranger is how long a stranger may stay connected on ProtoJoin.
	Stranger time.Duration
	// LinkCheck is how often a peer checks whether others can still dial it.
	LinkCheck time.Duration
	// LinkPing is how often the keeper of a link says that it is alive; three
	// missing pings end the link.
	LinkPing time.Duration
	// IntroduceAgain is the wait after an introduction that did not help.
	IntroduceAgain time.Duration
}

// DefaultTimers returns the waits for zero fields.
func DefaultTimers() Timers {
	return Timers{
		Dial:           20 * time.Second,
		Handshake:      10 * time.Second,
		Stagger:        250 * time.Millisecond,
		Stranger:       2 * time.Minute,
		LinkCheck:      10 * time.Minute,
		LinkPing:       20 * time.Second,
		IntroduceAgain: 30 * time.Second,
	}
}

// Validate returns all faults of c joined, or nil.
func (c Config) Validate() error {
	var faults []error
	if c.Node.IsZero() {
		faults = append(faults, errors.New("peernet: no node key"))
	}
	if c.Directory == nil {
		faults = append(faults, errors.New("peernet: no directory"))
	}
	for _, l := range c.Limits.fields() {
		if *l.value < 0 {
			faults = append(faults, fmt.Errorf("peernet: limit %s is negative", l.name))
		}
	}
	for _, t := range c.Timers.fields() {
		if *t.value < 0 {
			faults = append(faults, fmt.Errorf("peernet: timer %s is negative", t.name))
		}
	}
	return errors.Join(faults...)
}

// withDefaults fills what the caller left zero.
func (c Config) withDefaults() Config {
	if c.Fabric == nil {
		c.Fabric = TCP{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	limits, timers := DefaultLimits(), DefaultTimers()
	fillZero(c.Limits.fields(), limits.fields())
	fillZero(c.Timers.fields(), timers.fields())
	return c
}

type field[T int | time.Duration] struct {
	name  string
	value *T
}

func fillZero[T int | time.Duration](fields, defaults []field[T]) {
	for i, f := range fields {
		if *f.value == 0 {
			*f.value = *defaults[i].value
		}
	}
}

func (l *Limits) fields() []field[int] {
	return []field[int]{
		{"Handshakes", &l.Handshakes},
		{"HandshakesPerAddress", &l.HandshakesPerAddress},
		{"ConnsPerPeer", &l.ConnsPerPeer},
		{"GRPCPerPeer", &l.GRPCPerPeer},
		{"Strangers", &l.Strangers},
		{"JoinsPerAddress", &l.JoinsPerAddress},
		{"JoinsPerMinute", &l.JoinsPerMinute},
		{"Backlog", &l.Backlog},
		{"Links", &l.Links},
		{"BackPerLink", &l.BackPerLink},
	}
}

func (t *Timers) fields() []field[time.Duration] {
	return []field[time.Duration]{
		{"Dial", &t.Dial},
		{"Handshake", &t.Handshake},
		{"Stagger", &t.Stagger},
		{"Stranger", &t.Stranger},
		{"LinkCheck", &t.LinkCheck},
		{"LinkPing", &t.LinkPing},
		{"IntroduceAgain", &t.IntroduceAgain},
	}
}
