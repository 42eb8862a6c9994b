package membership

import (
	"context"
	"net"

	"gotong/grid"
	"gotong/grid/peernet"
)

// Over returns the gossip network on a peernet.Net.
func Over(n *peernet.Net) Network { return overNet{n} }

type overNet struct{ n *peernet.Net }

func (o overNet) DialPackets(ctx context.Context, peer grid.PeerID) (Conn, error) {
	return o.dial(ctx, peer, peernet.ProtoGossip)
}

func (o overNet) DialStream(ctx context.Context, peer grid.PeerID) (Conn, error) {
	return o.dial(ctx, peer, peernet.ProtoGossipStream)
}

func (o overNet) dial(ctx context.Context, peer grid.PeerID, proto peernet.Protocol) (Conn, error) {
	conn, err := o.n.Dial(ctx, peer, proto)
	if err != nil {
		return nil, err // not a nil *peernet.Conn in an interface
	}
	return conn, nil
}

func (o overNet) Packets() net.Listener { return o.n.Accept(peernet.ProtoGossip) }

func (o overNet) Streams() net.Listener { return o.n.Accept(peernet.ProtoGossipStream) }
