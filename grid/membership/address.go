package membership

import (
	"net"
	"strconv"

	"gotong/grid"
)

// syntheticPort stands for the port in every address that Serf sees.
const syntheticPort = 7946

// syntheticIP returns the address under which Serf knows a peer: an IPv6
// unique local address made of the PeerID. Serf refuses a known name at a new
// address and may shut itself down over it; a laptop that changes networks
// must not look like that. Nothing is ever dialled at this address.
func syntheticIP(peer grid.PeerID) net.IP {
	ip := make(net.IP, net.IPv6len)
	ip[0] = 0xfd
	copy(ip[1:], peer[:])
	return ip
}

// syntheticAddr is the same as a net.Addr.
func syntheticAddr(peer grid.PeerID) *net.TCPAddr {
	return &net.TCPAddr{IP: syntheticIP(peer), Port: syntheticPort}
}

// joinName is how Serf is told to join a peer: name, slash, address.
func joinName(peer grid.PeerID) string {
	return peer.String() + "/" + net.JoinHostPort(syntheticIP(peer).String(), strconv.Itoa(syntheticPort))
}
