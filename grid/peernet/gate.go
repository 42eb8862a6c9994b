package peernet

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// addressKey is what limits per address count by: one IPv4 address, or one
// IPv6 /64, which is what a single site usually has.
func addressKey(addr net.Addr) netip.Prefix {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Prefix{} // unknown kinds of address share one count
	}
	ip := ap.Addr().Unmap()
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	prefix, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// gate bounds the handshakes that run at once. A full gate cuts the oldest
// handshake instead of refusing the new one: honest ones are over in a few
// round trips, so the oldest are the ones that dawdle on purpose.
type gate struct {
	totalMax, perKeyMax int

	mu     sync.Mutex
	order  *list.List // of *ticket, oldest first
	perKey map[netip.Prefix]int
}

// ticket is one running handshake.
type ticket struct {
	key  netip.Prefix
	cut  func()
	elem *list.Element // nil once it left
}

func newGate(limits Limits) *gate {
	return &gate{
		totalMax:  limits.Handshakes,
		perKeyMax: limits.HandshakesPerAddress,
		order:     list.New(),
		perKey:    map[netip.Prefix]int{},
	}
}

// enter admits a handshake; cut ends it when it must make room for another.
func (g *gate) enter(key netip.Prefix, cut func()) *ticket {
	t := &ticket{key: key, cut: cut}
	evicted := g.admit(t)
	if evicted != nil {
		evicted.cut()
	}
	return t
}

func (g *gate) admit(t *ticket) (evicted *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.perKey[t.key] >= g.perKeyMax:
		evicted = g.oldestLocked(func(o *ticket) bool { return o.key == t.key })
	case g.order.Len() >= g.totalMax:
		evicted = g.oldestLocked(func(*ticket) bool { return true })
	}
	if evicted != nil {
		g.removeLocked(evicted)
	}
	t.elem = g.order.PushBack(t)
	g.perKey[t.key]++
	return evicted
}

func (g *gate) oldestLocked(want func(*ticket) bool) *ticket {
	for e := g.order.Front(); e != nil; e = e.Next() {
		if t := e.Value.(*ticket); want(t) {
			return t
		}
	}
	return nil
}

func (g *gate) removeLocked(t *ticket) {
	if t.elem == nil {
		return
	}
	g.order.Remove(t.elem)
	t.elem = nil
	g.perKey[t.key]--
	if g.perKey[t.key] == 0 {
		delete(g.perKey, t.key)
	}
}

// leave gives the place back; it may be called after the ticket was cut.
func (g *gate) leave(t *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.removeLocked(t)
}
