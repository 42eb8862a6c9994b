package membership

import (
	"context"
	"net"

	"gotong/grid"
)

// Network carries gossip between members. Over makes one from a peernet.Net;
// tests bring their own. Every connection is authenticated: Peer is proved,
// and is a member as the network sees it.
type Network interface {
	// DialPackets opens a connection for gossip packets.
	DialPackets(ctx context.Context, peer grid.PeerID) (Conn, error)
	// DialStream opens a connection for one push/pull.
	DialStream(ctx context.Context, peer grid.PeerID) (Conn, error)
	// Packets returns the listener for connections that others opened with
	// DialPackets. Each connection from it must implement Conn. Membership
	// closes the listener when its Run ends.
	Packets() net.Listener
	// Streams is the same for DialStream.
	Streams() net.Listener
}

// Conn is a connection to a known peer.
type Conn interface {
	net.Conn
	Peer() grid.PeerID
}
