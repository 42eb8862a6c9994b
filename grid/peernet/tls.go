package peernet

import (
	"crypto/tls"
	"fmt"
	"slices"

	"gotong/grid"
	"gotong/grid/identity"
)

// baseTLS is what both sides share. There is no certificate authority, so the
// usual verification is off and VerifyConnection decides by the key.
func (n *Net) baseTLS(protocols []string, verify func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		Certificates:                []tls.Certificate{n.cert},
		NextProtos:                  protocols,
		VerifyConnection:            verify,
		ClientAuth:                  tls.RequireAnyClientCert,
		InsecureSkipVerify:          true,
		SessionTicketsDisabled:      true, // a resumed session would outlive a removal
		DynamicRecordSizingDisabled: true, // full records from the start: shards are long
	}
}

// serverTLS is rebuilt when the set of accepted protocols changes.
func (n *Net) serverTLS(protocols []Protocol) *tls.Config {
	names := make([]string, 0, len(protocols)+3)
	for _, p := range protocols {
		names = append(names, string(p))
	}
	names = append(names, string(protoLink), string(protoBack), string(protoProbe))
	return n.baseTLS(names, n.verifyDialler)
}

// verifyDialler runs on the accepting side. The dialler has not yet proved that
// it holds the key, so nothing may be counted against that key here.
func (n *Net) verifyDialler(cs tls.ConnectionState) error {
	key, err := identity.PeerKey(cs)
	if err != nil {
		return err
	}
	id := grid.PeerIDOf(key)
	switch {
	case id == n.self:
		return ErrSelf
	case cs.NegotiatedProtocol == "":
		return ErrProtocol
	case Protocol(cs.NegotiatedProtocol) == ProtoJoin:
		return nil
	default:
		return n.cfg.Directory.Status(id).err()
	}
}

// clientTLS expects want at the other end, and proto.
func (n *Net) clientTLS(want grid.PeerID, proto Protocol) *tls.Config {
	return n.baseTLS([]string{string(proto)}, func(cs tls.ConnectionState) error {
		key, err := identity.PeerKey(cs)
		if err != nil {
			return err
		}
		if id := grid.PeerIDOf(key); id != want {
			return fmt.Errorf("%w: %s", ErrWrongPeer, id.Short())
		}
		if cs.NegotiatedProtocol != string(proto) {
			return ErrProtocol
		}
		if proto == ProtoJoin {
			return nil
		}
		return n.cfg.Directory.Status(want).err()
	})
}

// protocols is the table of accepted protocols.
func (n *Net) updateProtocolsLocked() {
	names := make([]Protocol, 0, len(n.listeners))
	for p := range n.listeners {
		names = append(names, p)
	}
	slices.Sort(names)
	n.server.Store(n.serverTLS(names))
}
