package membership

import (
	"context"
	"log"
	"net"
	"strconv"
	"strings"
	"time"

	"gotong/grid"

	"github.com/hashicorp/mdns"
	"github.com/miekg/dns"
)

const (
	lanService = "_gotong._tcp"
	lanDomain  = "local."
	// lanInterval is how often others are looked for on the local network.
	lanInterval = time.Minute
	// lanLook is how long answers are waited for.
	lanLook = 2 * time.Second
	// lanAnswers are read from one look at most.
	lanAnswers = 128
)

// LANConfig says whether addresses are offered and looked for by mDNS. What is
// found there is only ever an address to try: anyone on the network can say
// anything, and who answers at an address has to prove who it is.
type LANConfig struct {
	Enabled bool
	Port    int // on which this peer listens
}

// lanLoop offers this peer's addresses on the local network and looks for
// those of members, most of all of those who are away.
func (m *Membership) lanLoop(ctx context.Context) {
	if !m.cfg.LAN.Enabled || m.cfg.Directory == nil {
		return
	}
	logger := newSerfLog(m.cfg.Logger)
	server, err := mdns.NewServer(&mdns.Config{Zone: lanZone{m.self, m.cfg.LAN.Port}, Logger: logger})
	if err != nil {
		m.cfg.Logger.Info("addresses are not offered on the local network", "err", err)
	} else {
		defer server.Shutdown()
	}
	ticker := time.NewTicker(lanInterval)
	defer ticker.Stop()
	for {
		m.lookOnLAN(ctx, logger)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m *Membership) lookOnLAN(ctx context.Context, logger *log.Logger) {
	entries := make(chan *mdns.ServiceEntry, lanAnswers) // sends to it do not block
	err := mdns.QueryContext(ctx, &mdns.QueryParam{
		Service: lanService, Domain: strings.TrimSuffix(lanDomain, "."),
		Timeout: lanLook, Entries: entries, Logger: logger,
	})
	if err != nil {
		m.cfg.Logger.Debug("local network not asked", "err", err)
		return
	}
	near := localNets()
	for range len(entries) {
		m.offeredOnLAN(<-entries, near)
	}
}

func (m *Membership) offeredOnLAN(entry *mdns.ServiceEntry, near []*net.IPNet) {
	peer, addresses := readEntry(entry, near)
	if peer == m.self {
		return
	}
	for _, address := range addresses {
		if m.cfg.Directory.Offer(peer, address) {
			m.cfg.Logger.Debug("address found on the local network", "peer", peer, "address", address)
			if _, t, ok := m.running(); ok {
				t.retry(peer)
			}
			kick(m.rejoinKick)
		}
	}
}

// readEntry returns the peer that an answer names and its addresses on the
// local network; a zero PeerID for one that is not ours. Addresses elsewhere are
// dropped: an answer must not make this peer dial strangers on the internet.
func readEntry(entry *mdns.ServiceEntry, near []*net.IPNet) (grid.PeerID, []string) {
	instance, found := strings.CutSuffix(entry.Name, "."+lanService+"."+lanDomain)
	peer, err := grid.ParsePeerID(instance)
	if !found || err != nil || entry.Port < 1 || entry.Port > 65535 {
		return grid.PeerID{}, nil
	}
	var addresses []string
	for _, ip := range []net.IP{entry.AddrV4, entry.AddrV6} { // never one with a zone
		if ip != nil && isNear(ip, near) {
			addresses = append(addresses, net.JoinHostPort(ip.String(), strconv.Itoa(entry.Port)))
		}
	}
	return peer, addresses
}

func isNear(ip net.IP, near []*net.IPNet) bool {
	if !ip.IsGlobalUnicast() {
		return false
	}
	for _, n := range near {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

// localNets returns the networks of this machine's interfaces.
func localNets() []*net.IPNet {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var nets []*net.IPNet
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			nets = append(nets, n)
		}
	}
	return nets
}

// lanZone answers questions for this peer with the addresses that the machine
// has at that moment.
type lanZone struct {
	self grid.PeerID
	port int
}

// Records implements mdns.Zone.
func (z lanZone) Records(q dns.Question) []dns.RR {
	var ips []net.IP
	for _, n := range localNets() {
		ips = append(ips, n.IP)
	}
	if len(ips) == 0 {
		return nil
	}
	host := z.self.Short() + "." + lanDomain
	service, err := mdns.NewMDNSService(z.self.String(), lanService, lanDomain, host, z.port, ips, []string{"v=1"})
	if err != nil {
		return nil
	}
	return service.Records(q)
}
