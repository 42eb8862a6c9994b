// Package grid is the vocabulary of the grid: who a peer and an owner are,
// what a peer says of itself and offers, and the errors that every layer tells
// apart. It imports the standard library only, and every other package may
// import it.
package grid

import (
	"errors"
	"time"
)

// Errors that cross layers. Test with errors.Is.
var (
	// ErrNotMember: the roster of the side that answered does not list the peer.
	ErrNotMember = errors.New("not a member here")
	// ErrRemoved: the roster says that the peer was removed.
	ErrRemoved = errors.New("removed from the grid")
	// ErrUnknownPeer: this side has never heard of the peer.
	ErrUnknownPeer = errors.New("unknown peer")
	// ErrUnreachable: no address of the peer answered and it keeps no
	// connection here over which it could be asked to dial back.
	ErrUnreachable = errors.New("peer unreachable")
)

// State says what is known of a peer now.
type State string

// The states of a peer. Away is an opinion of gossip, never a fact on which
// anything destructive may hang; removed is what the roster says.
const (
	StateAlive   State = "alive"
	StateAway    State = "away"
	StateLeft    State = "left"
	StateRemoved State = "removed"
)

// Capability is one right that an owner delegates to a peer.
type Capability uint32

// Capabilities of a delegation. A bit that this version does not know makes
// the delegation invalid: unknown rights are refused, not ignored.
const (
	CapWrite  Capability = 1 << iota // sign segment headers and heads for the owner
	CapRead                          // hold the owner's read key
	CapExpire                        // sign deletions
	CapAdmin                         // remove members, where the owner is an admin

	CapAll = CapWrite | CapRead | CapExpire | CapAdmin
)

// Has reports whether c includes all of want.
func (c Capability) Has(want Capability) bool { return c&want == want }

// Record is what a peer says of itself. It is signed by its subject and
// numbered; the highest number stands.
type Record struct {
	Peer        PeerID
	Number      uint64   // grows with every change
	Name        string   // for people; not unique, not trusted
	Site        string   // the --site label; empty: the owner is the site
	Addresses   []string // HOST:PORT, most useful first, at most MaxAddresses
	PledgeBytes uint64   // raw bytes given to others
	Slots       int      // tasks run at once for others
	Version     string   // of the program
	OS, Arch    string   // GOOS, GOARCH
	BoxKey      []byte   // X25519 public key to which job keys are wrapped, 32 bytes
	MemoryBytes uint64   // of the machine; 0: unknown
	Created     time.Time
}

// Bounds of a Record, enforced when one is parsed.
const (
	MaxAddresses  = 16
	MaxAddressLen = 262 // longest DNS name, a colon and a port
	MaxNameLen    = 64  // bytes, of Name and of Site
)

// Peer is one line of the list of peers: roster, record and gossip together.
type Peer struct {
	ID     PeerID
	Owner  OwnerID
	State  State
	Record Record // zero when none was seen yet
	Forked bool   // its statements contradict each other; see grid/roster
	Admin  bool
	RTT    time.Duration // 0 when unknown
	Since  time.Time     // when State was entered, by this machine's clock
	Seen   time.Time     // when this machine saw it alive last; zero: never
}

// Site returns the failure domain of the peer: its label, else its owner.
// Labels of different owners are one site on purpose: two friends in one house
// say so with the label.
func (p Peer) Site() string {
	if p.Record.Site != "" {
		return p.Record.Site
	}
	return p.Owner.String()
}

// DisplayName returns the name that the peer gave itself, else its short id.
func (p Peer) DisplayName() string {
	if p.Record.Name != "" {
		return p.Record.Name
	}
	return p.ID.Short()
}
