package peernet

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
)

func FuzzReadFrame(f *testing.F) {
	for _, seed := range []frame{
		{kind: frameVerdict, dialable: true},
		{kind: frameVerdict},
		{kind: frameCheck},
		{kind: framePing},
		{kind: framePong},
		{kind: frameRequest, nonce: nonce{1, 2, 3}, protocol: ProtoGRPC},
		{kind: frameRefusal, nonce: nonce{4}},
	} {
		f.Add(seed.encode())
	}
	f.Add([]byte{5, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readFrame(bytes.NewReader(data))
		if err != nil {
			return
		}
		if encoded := got.encode(); !bytes.HasPrefix(data, encoded) {
			t.Errorf("%x is read as %+v and written as %x", data, got, encoded)
		}
	})
}

func FuzzHello(f *testing.F) {
	var buf bytes.Buffer
	for _, code := range []helloCode{helloMember, helloStranger, helloRemoved, helloBusy, 0, 99} {
		buf.Reset()
		if err := writeHello(&buf, code); err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Clone(buf.Bytes()))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		standing, err := readHello(bytes.NewReader(data))
		if err != nil {
			return
		}
		buf.Reset()
		if err := writeHello(&buf, helloFor(standing)); err != nil || !bytes.HasPrefix(data, buf.Bytes()) {
			t.Errorf("%x is read as %v, which is written as %x", data, standing, buf.Bytes())
		}
	})
}

func TestAddressKey(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7:1":          "192.0.2.7/32",
		"[::ffff:192.0.2.7]:1": "192.0.2.7/32",
		"[2001:db8::1]:1":      "2001:db8::/64",
		"[fe80::1%eth0]:1":     "fe80::/64",
	} {
		addr := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(in))
		if got := addressKey(addr).String(); got != want {
			t.Errorf("%s counts as %s, want %s", in, got, want)
		}
	}
	if got := addressKey(&net.UnixAddr{Name: "x", Net: "unix"}); got.IsValid() {
		t.Errorf("a socket without address counts as %s", got)
	}
}

// The table of rates stays within its bound whatever strangers do.
func TestJoinRatesAreBounded(t *testing.T) {
	j := newJoinRates(Limits{JoinsPerAddress: 2, JoinsPerMinute: 1})
	ip := netip.MustParseAddr("10.0.0.1")
	for range 4 * joinRatesMax {
		key, err := ip.Prefix(32)
		if err != nil {
			t.Fatal(err)
		}
		if !j.allow(key) {
			t.Fatalf("%s was refused on its first join", key)
		}
		ip = ip.Next()
	}
	if n := len(j.present) + len(j.former); n > 2*joinRatesMax {
		t.Errorf("%d rates are kept", n)
	}
}

// One busy address cannot push others out of the gate.
func TestGateIsFair(t *testing.T) {
	g := newGate(Limits{Handshakes: 4, HandshakesPerAddress: 2})
	var cut []string
	enter := func(ip string, i int) *ticket {
		key := netip.MustParsePrefix(ip + "/32")
		return g.enter(key, func() { cut = append(cut, fmt.Sprint(ip, "#", i)) })
	}
	quiet := enter("10.0.0.1", 0)
	var busy []*ticket
	for i := range 10 {
		busy = append(busy, enter("10.0.0.2", i))
	}
	if len(cut) != 8 {
		t.Errorf("cut: %v", cut)
	}
	for _, ticket := range append(busy, quiet) {
		g.leave(ticket)
		g.leave(ticket)
	}
	if g.order.Len() != 0 || len(g.perKey) != 0 {
		t.Errorf("%d handshakes of %d addresses are left", g.order.Len(), len(g.perKey))
	}
}

func TestConfigFaultsAreAllNamed(t *testing.T) {
	_, err := New(Config{Limits: Limits{Strangers: -1}, Timers: Timers{Dial: -1}})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"node key", "directory", "Strangers", "Dial"} {
		if !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%q is not named in: %v", want, err)
		}
	}
}
