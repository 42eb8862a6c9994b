package peernet

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"

	"gotong/grid"
)

// sessionCredentials tells gRPC who is at the other end of a *Conn. The
// handshake is over by then; a connection of any other kind is refused.
type sessionCredentials struct {
	pace *pace
}

func (s sessionCredentials) auth(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*Conn)
	if !ok {
		return nil, nil, fmt.Errorf("peernet: gRPC on a %T instead of an authenticated connection", raw)
	}
	return newPacedConn(c, s.pace), AuthInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		Peer:           c.Peer(),
	}, nil
}

func (s sessionCredentials) ClientHandshake(_ context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return s.auth(raw)
}

func (s sessionCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return s.auth(raw)
}

func (sessionCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (s sessionCredentials) Clone() credentials.TransportCredentials { return s }

// OverrideServerName is part of the interface; there are no server names here.
func (sessionCredentials) OverrideServerName(string) error { return nil }

// authority is what gRPC puts into the :authority header.
func authority(peer grid.PeerID) string { return peer.String() }
