package node

import (
	"context"
	"net"
	"slices"
	"time"

	"gotong/grid"
	"gotong/grid/invite"
	"gotong/grid/membership"
	"gotong/grid/peernet"
)

const (
	// joinTimeout bounds one exchange on a join connection, on both sides.
	joinTimeout = 30 * time.Second
	// joinPatience is how long a joiner whose answer was lost asks again, and
	// joinPause the wait before that, which doubles up to joinPauseMax.
	joinPatience = 2 * time.Minute
	joinPause    = 250 * time.Millisecond
	joinPauseMax = 5 * time.Second
	// addressInterval is how often the machine's addresses are looked at.
	addressInterval = 5 * time.Second
)

// openNetwork takes the one port.
func (p *Peer) openNetwork() (err error) {
	p.directory = membership.NewDirectory(p.roster, p.records)
	p.net, err = peernet.New(peernet.Config{
		Node: p.node, Directory: p.directory, Fabric: p.options.Fabric, ListenAddr: p.cfg().Listen,
		Introduce: p.introduce, Logger: p.logger,
	})
	if err != nil {
		return err
	}
	p.onClose(p.net.Close)
	if err := p.net.Listen(); err != nil {
		return listenFailure(p.cfg().Listen, err)
	}
	p.clients = peernet.NewClients(p.net)
	p.clients.OnConnect(p.forgive)
	p.onClose(p.closeClients)
	return nil
}

// closeClients ends the calls to other peers, and waits for the transfers that
// were given up before.
func (p *Peer) closeClients() error {
	err := p.clients.Close()
	if p.segments != nil {
		p.segments.Close()
	}
	return err
}

// openMembership makes this peer's view of the grid and its own record.
func (p *Peer) openMembership() error {
	timers, err := membership.Preset(p.cfg().Gossip.Preset)
	if err != nil {
		return err
	}
	p.membership, err = membership.New(membership.Config{
		Node: p.node, Roster: p.roster, Records: p.records, Directory: p.directory,
		Network: membership.Over(p.net), Clients: p.gridClient, Info: p.info, Version: Version(),
		SeenPath: p.home.state().seen(), LAN: p.lan(), Timers: timers, Logger: p.logger,
	})
	if err != nil {
		return err
	}
	return p.updateRecord()
}

// lan says whether addresses are offered on the local network. A peer that
// listens on the loopback interface only has none to offer.
func (p *Peer) lan() membership.LANConfig {
	tcp, ok := p.net.Addr().(*net.TCPAddr)
	return membership.LANConfig{Enabled: p.cfg().Discovery.MDNS && ok && !tcp.IP.IsLoopback(), Port: portOf(tcp)}
}

func portOf(a *net.TCPAddr) int {
	if a == nil {
		return 0
	}
	return a.Port
}

// updateRecord signs what this peer now says of itself, if that has changed.
func (p *Peer) updateRecord() error {
	addrs, err := addresses(p.cfg().Advertise, p.net.Addr())
	if err != nil {
		return err
	}
	p.pledging.Lock()
	defer p.pledging.Unlock()
	want := baseRecord(*p.cfg(), p.ID(), p.node.BoxKey().PublicKey().Bytes(), addrs, time.Now())
	want.PledgeBytes = uint64(p.gives())
	return p.membership.UpdateRecord(func(r *grid.Record) {
		want.Peer, want.Number, want.Created = r.Peer, r.Number, r.Created
		*r = want
	})
}

// watchAddresses signs a new record when the machine moves to another network.
func (p *Peer) watchAddresses(ctx context.Context) error {
	ticker := time.NewTicker(addressInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-p.live.changed():
		}
		addrs, err := addresses(p.cfg().Advertise, p.net.Addr())
		if err != nil {
			p.logger.Warn("cannot see this machine's addresses", "err", err)
			continue
		}
		if record, _, _ := p.records.Get(p.ID()); slices.Equal(record.Addresses, addrs) {
			continue
		}
		p.logger.Info("addresses changed", "addresses", addrs)
		if err := p.updateRecord(); err != nil {
			return err
		}
	}
}

// introduce shows another member, who does not know this peer yet, the
// statements that lead to it. Who counts it as removed is shown them if they
// include an owner's word that may undo the removal.
func (p *Peer) introduce(ctx context.Context, conn *peernet.Conn) error {
	if conn.Standing() == peernet.Removed && !p.roster.View().Disowned() {
		return grid.ErrRemoved
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	return invite.Introduce(ctx, conn, p.roster.PathTo(p.ID()))
}

// serveJoins answers strangers that bring an invite, and members that
// introduce themselves.
func (p *Peer) serveJoins(ctx context.Context) error {
	return p.joins.Run(ctx, p.net.Accept(peernet.ProtoJoin))
}

// info is the present load of this peer, for others.
func (p *Peer) info() membership.Info {
	i := membership.Info{PledgeBytes: uint64(p.cfg().Give), Slots: p.cfg().Slots, Version: Version()}
	if p.store != nil {
		i.UsedBytes, i.FreeBytes = p.heldBytes(), uint64(max(p.store.Free(), 0))
	}
	if p.work != nil {
		i.SlotsFree = p.work.slotsFree()
	}
	return i
}
