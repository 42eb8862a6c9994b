package peernet

import "gotong/grid"

// Protocol says what is spoken on a connection. It is the ALPN name of the TLS
// handshake and carries a major version.
type Protocol string

// The protocols of the grid. Only ProtoJoin accepts strangers.
const (
	ProtoGRPC         Protocol = "gotong-grpc/1"
	ProtoGossip       Protocol = "gotong-gossip/1"        // packets, one connection per pair
	ProtoGossipStream Protocol = "gotong-gossip-stream/1" // one push/pull each
	ProtoJoin         Protocol = "gotong-join/1"          // redeem an invite, or introduce oneself
)

// Protocols of this package itself.
const (
	protoLink  Protocol = "gotong-link/1"  // kept by a peer that cannot be dialled
	protoBack  Protocol = "gotong-back/1"  // the connection that was asked for over a link
	protoProbe Protocol = "gotong-probe/1" // opened and closed to see whether a peer can be dialled
)

// maxProtocolLen bounds the name of a protocol on a link.
const maxProtocolLen = 64

// internal reports whether p belongs to this package, so that callers can
// neither dial nor accept it.
func (p Protocol) internal() bool {
	return p == protoLink || p == protoBack || p == protoProbe
}

// Standing is what the roster says about a peer.
type Standing int

// The standings of a peer.
const (
	Unknown Standing = iota // the roster does not list it
	Member                  // active
	Removed                 // it was a member and was removed
)

// String returns the standing in lower case.
func (s Standing) String() string {
	switch s {
	case Member:
		return "member"
	case Removed:
		return "removed"
	default:
		return "unknown"
	}
}

// err returns nil for a member, else the reason why it is none.
func (s Standing) err() error {
	switch s {
	case Member:
		return nil
	case Removed:
		return grid.ErrRemoved
	default:
		return grid.ErrNotMember
	}
}

// Directory is what peernet needs to know of the roster and of the address
// records. Its methods are called often and from many goroutines: they must
// not block.
type Directory interface {
	// Status returns what the roster says of the peer now.
	Status(id grid.PeerID) Standing
	// Addresses returns HOST:PORT texts at which the peer may be dialled, most
	// useful first; none when nothing is known. The caller does not change them.
	Addresses(id grid.PeerID) []string
	// Members returns the active members in any order; this peer may be among
	// them. The caller does not change the slice.
	Members() []grid.PeerID
	// Changed returns a channel that is closed at the next change of anything
	// above. Take the channel before looking, so that no change is missed.
	Changed() <-chan struct{}
}
