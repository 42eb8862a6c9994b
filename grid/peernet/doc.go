// Package peernet carries every byte between peers. It owns the one listening
// TCP port, authenticates both sides of each connection by their node keys
// (TLS 1.3), dials by PeerID, and prepares gRPC servers and clients.
//
// A connection speaks one Protocol, named in the TLS handshake (ALPN). All but
// ProtoJoin are for active members of the roster only; a stranger gets nothing
// past the handshake. The accepting side sends a short hello after TLS, and Dial
// returns only after it came: in TLS 1.3 the dialling side finishes its
// handshake before the accepting side could refuse.
//
// A peer that cannot be dialled keeps a link to each member that it can dial.
// Over the link those members ask it to dial back, and Dial returns that
// connection: the TLS roles are swapped, the identity is the same.
//
// When the roster removes a peer, its live connections are closed at once.
//
// The order of use is New, Listen, Accept for each protocol, then Run, which
// blocks until its context ends. Dial needs no Run, but being dialled, dial-back
// and the cutting of removed members do.
package peernet
