package membership

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/mdns"
	"github.com/hashicorp/serf/serf"
	"github.com/miekg/dns"

	"gotong/grid"
)

func member(peer grid.PeerID) *serf.Member {
	core := serf.ProtocolVersionMap[serfProtocol]
	return &serf.Member{
		Name: peer.String(), Addr: syntheticIP(peer), Port: syntheticPort,
		ProtocolMin: 1, ProtocolMax: 5, ProtocolCur: core,
		DelegateMin: 2, DelegateMax: serfProtocol, DelegateCur: serfProtocol,
	}
}

func TestGate(t *testing.T) {
	self, known, stranger := grid.PeerID{1}, grid.PeerID{2}, grid.PeerID{3}
	var asked []grid.PeerID
	g := &gate{self: self, allowed: func(p grid.PeerID) bool { return p == known }, unknown: func(p grid.PeerID) { asked = append(asked, p) }}
	one := func(m *serf.Member) error { return g.NotifyMerge([]*serf.Member{m}) }

	if err := errors.Join(one(member(self)), one(member(known))); err != nil {
		t.Error(err)
	}
	if err := one(member(stranger)); !errors.Is(err, grid.ErrNotMember) || len(asked) != 1 || asked[0] != stranger {
		t.Errorf("stranger: %v, asked about %v", err, asked)
	}
	if err := g.NotifyMerge([]*serf.Member{member(known), member(stranger)}); err != nil {
		t.Errorf("one stranger aborts a whole exchange: %v", err)
	}
	moved := member(known)
	moved.Addr = net.IPv4(10, 0, 0, 1)
	if err := one(moved); !errors.Is(err, errSyntheticAddress) {
		t.Errorf("foreign address: %v", err)
	}
	poison := member(known)
	poison.ProtocolMin, poison.ProtocolMax, poison.ProtocolCur = 5, 5, 5
	if err := one(poison); !errors.Is(err, errGossipVersion) {
		t.Errorf("versions that others cannot speak: %v", err)
	}
	if err := one(&serf.Member{Name: "somebody"}); err == nil {
		t.Error("a name that is no PeerID")
	}
}

func TestSerfLogLevels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := newSerfLog(slog.New(slog.NewTextHandler(&out, nil))) // info and above
		for range 100 {
			log.Printf("[ERR] memberlist: Failed to send gossip to [fd00::%d]:1: broken", time.Now().Nanosecond())
			log.Printf("[ERR] memberlist: Failed to send UDP ping: %v", dialError(grid.PeerID{}, errBackOff))
			log.Printf("[DEBUG] memberlist: chatter")
			log.Printf("no level at all")
		}
		if n := strings.Count(out.String(), "\n"); n != 1 || !strings.Contains(out.String(), "level=WARN") {
			t.Errorf("%d lines: %s", n, out.String())
		}
		time.Sleep(2 * repeatAfter)
		log.Printf("[ERR] memberlist: Failed to send gossip to [fd00::1]:1: broken")
		if n := strings.Count(out.String(), "\n"); n != 2 {
			t.Errorf("%d lines after a while", n)
		}
	})
}

func TestSeenTimesSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seen")
	s, err := openSeen(path)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1234567890, 0)
	s.note(grid.PeerID{1}, at)
	s.note(grid.PeerID{2}, at)
	s.keep(func(p grid.PeerID) bool { return p == grid.PeerID{1} })
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	s, err = openSeen(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := s.last(grid.PeerID{1}); !ok || !got.Equal(at) {
		t.Errorf("%v, %v", got, ok)
	}
	if _, ok := s.last(grid.PeerID{2}); ok {
		t.Error("a peer that is no member is still kept")
	}
	if err := os.WriteFile(path, []byte("{nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = openSeen(path); err == nil || s == nil {
		t.Error("a broken file must be noticed and must not stop anything")
	}
}

func TestReadEntry(t *testing.T) {
	_, lan, _ := net.ParseCIDR("192.168.1.0/24")
	peer := grid.PeerID{5}
	name := peer.String() + "." + lanService + "." + lanDomain
	for _, c := range []struct {
		what  string
		entry mdns.ServiceEntry
		want  int
	}{
		{"near", mdns.ServiceEntry{Name: name, AddrV4: net.IPv4(192, 168, 1, 7), Port: 7000}, 1},
		{"on the internet", mdns.ServiceEntry{Name: name, AddrV4: net.IPv4(8, 8, 8, 8), Port: 7000}, 0},
		{"no port", mdns.ServiceEntry{Name: name, AddrV4: net.IPv4(192, 168, 1, 7)}, 0},
		{"other service", mdns.ServiceEntry{Name: peer.String() + "._http._tcp.local.", AddrV4: net.IPv4(192, 168, 1, 7), Port: 7000}, 0},
		{"no PeerID", mdns.ServiceEntry{Name: "printer." + lanService + "." + lanDomain, AddrV4: net.IPv4(192, 168, 1, 7), Port: 7000}, 0},
	} {
		if got, addresses := readEntry(&c.entry, []*net.IPNet{lan}); len(addresses) != c.want || (c.want > 0 && got != peer) {
			t.Errorf("%s: %v %v", c.what, got, addresses)
		}
	}
}

func TestLANZoneAnswersForThisPeer(t *testing.T) {
	if len(localNets()) == 0 {
		t.Skip("the machine has no network interface besides loopback")
	}
	z := lanZone{grid.PeerID{5}, 7000}
	records := z.Records(dns.Question{Name: lanService + "." + lanDomain, Qtype: dns.TypePTR})
	for _, rr := range records {
		if srv, ok := rr.(*dns.SRV); ok && srv.Port == 7000 && strings.HasPrefix(srv.Hdr.Name, z.self.String()) {
			return
		}
	}
	t.Errorf("no service record for this peer in %v", records)
}

func TestDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := quiet(t, 2)
		a, b := w.peers[0], w.peers[1]
		d := a.dirBook
		changed := d.Changed()
		if d.Offer(grid.PeerID{9}, "192.168.1.7:1") {
			t.Error("an address of a stranger was taken")
		}
		if d.Offer(b.id(), "no address") {
			t.Error("nonsense was taken")
		}
		for _, address := range []string{"192.168.1.1:1", "192.168.1.2:1", "192.168.1.3:1", "192.168.1.4:1", "192.168.1.5:1"} {
			if !d.Offer(b.id(), address) {
				t.Error("news is not news")
			}
		}
		if d.Offer(b.id(), "192.168.1.5:1") {
			t.Error("the same again is news")
		}
		select {
		case <-changed:
		default:
			t.Error("no one was told")
		}
		if got := d.Addresses(b.id()); len(got) != maxOffered || got[0] != "192.168.1.5:1" {
			t.Errorf("addresses %v", got)
		}
		a.meets(b)
		if got := d.Addresses(b.id()); got[0] != b.host.address {
			t.Errorf("the record's address is not first: %v", got)
		}
		time.Sleep(2 * offeredFor)
		if got := d.Addresses(b.id()); len(got) != 1 {
			t.Errorf("offers do not expire: %v", got)
		}
	})
}

func TestPresets(t *testing.T) {
	for _, name := range []string{"lan", "wan", "local"} {
		timers, err := Preset(name)
		if err != nil {
			t.Error(err)
		}
		for i, d := range timers.durations() {
			if *d <= 0 {
				t.Errorf("%s: timer %d is %v", name, i, *d)
			}
		}
		if timers.ProbeTimeout >= timers.Probe || timers.RejoinMin >= timers.RejoinMax {
			t.Errorf("%s: %+v", name, timers)
		}
	}
	if _, err := Preset("moon"); !errors.Is(err, ErrPreset) {
		t.Error(err)
	}
	if err := (Config{LAN: LANConfig{Enabled: true}, Timers: Timers{Dial: -1}}).Validate(); err == nil || strings.Count(err.Error(), "\n") != 6 {
		t.Errorf("faults: %v", err)
	}
}
