package node

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"gotong/grid"
	"gotong/grid/disk"
)

// Defaults that init and join take from the machine.
const (
	giveShare = 10         // 1/giveShare of the free space
	giveMax   = Size(50e9) // at most
	slotShare = 2          // 1/slotShare of the cores
)

// Complete fills what a new peer takes from its machine: name, a free port,
// and, unless they were set, the pledge and the task slots.
func Complete(c Config, dir string, giveSet, slotsSet bool) (Config, error) {
	if c.Name == "" {
		c.Name = hostName()
	}
	if !giveSet && c.Give == 0 {
		if _, err := makeHome(dir); err != nil {
			return Config{}, err
		}
		free, err := disk.Free(dir)
		if err != nil {
			return Config{}, fmt.Errorf("free space of %s: %w; say how much to give with --give", dir, err)
		}
		c.Give = min(giveMax, roundDown(Size(free/giveShare)))
	}
	if !slotsSet && c.Slots == 0 {
		c.Slots = max(1, runtime.NumCPU()/slotShare)
	}
	var err error
	c.Listen, err = choosePort(c.Listen)
	return c, err
}

// roundDown leaves two digits, so that the number can be read.
func roundDown(s Size) Size {
	unit := Size(1)
	for s/unit >= 100 {
		unit *= 10
	}
	return s / unit * unit
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "peer"
	}
	return name[:min(len(name), grid.MaxNameLen)]
}

// choosePort replaces a missing port, or port 0, by one that is free now; it is
// kept from then on.
func choosePort(listen string) (string, error) {
	if listen == "" {
		listen = ":0"
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("listen %q: %w", listen, err)
	}
	if port != "0" {
		return listen, nil
	}
	for try := 0; ; try++ {
		chosen := net.JoinHostPort(host, strconv.Itoa(minChosen+rand.IntN(maxChosen-minChosen)))
		l, err := net.Listen("tcp", chosen)
		if err == nil {
			return chosen, l.Close()
		}
		if try == chosenTries {
			return "", fmt.Errorf("no free port at %q: %w", listen, err)
		}
	}
}

// Ports that are chosen lie below those that systems give to connections that
// begin (from 32768 on with Linux, 49152 with others), one of which might have the
// port when the peer starts again.
const (
	minChosen   = 16384
	maxChosen   = 32768
	chosenTries = 100
)

// addresses returns where others may dial a peer that listens on addr: what
// the user advertises, then the address itself, or, when it listens on all,
// every address of the machine's interfaces that means something elsewhere.
func addresses(advertise []string, addr net.Addr) ([]string, error) {
	out := append([]string(nil), advertise...)
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || tcp.IP != nil && !tcp.IP.IsUnspecified() {
		return limitAddresses(append(out, addr.String())), nil
	}
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this machine: %w", err)
	}
	var loopback []string
	for _, a := range found {
		prefix, ok := a.(*net.IPNet)
		if !ok || prefix.IP.IsLinkLocalUnicast() || prefix.IP.IsMulticast() || tcp.IP.To4() != nil && prefix.IP.To4() == nil { // listens on IPv4 only
			continue
		}
		text := net.JoinHostPort(prefix.IP.String(), strconv.Itoa(tcp.Port))
		if prefix.IP.IsLoopback() {
			loopback = append(loopback, text)
		} else {
			out = append(out, text)
		}
	}
	// Peers on one machine reach each other even when it has no network.
	return limitAddresses(append(out, loopback...)), nil
}

func limitAddresses(list []string) []string {
	var out []string
	for _, a := range list {
		if len(a) <= grid.MaxAddressLen && !strings.ContainsAny(a, " \t\r\n") && len(out) < grid.MaxAddresses {
			out = append(out, a)
		}
	}
	return out
}

// baseRecord is what the configuration says of this peer; membership adds the
// number.
func baseRecord(c Config, self grid.PeerID, boxKey []byte, addrs []string, now time.Time) grid.Record {
	return grid.Record{
		Peer: self, Name: c.Name, Site: c.Site, Addresses: addrs,
		PledgeBytes: uint64(c.Give), Slots: c.Slots,
		Version: Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		BoxKey: boxKey, MemoryBytes: machineMemory(), Created: now,
	}
}
