package memnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// Host is one machine of a Fabric. It is what peernet.Config.Fabric takes.
type Host struct {
	fabric *Fabric
	name   string

	// Guarded by fabric.mu.
	ip        netip.Addr
	down      bool
	noInbound bool
	listeners map[uint16]*fabricListener
	nextPort  uint16
}

// Name returns the name under which the host can be dialled.
func (h *Host) Name() string { return h.name }

// IP returns the present address of the host.
func (h *Host) IP() netip.Addr {
	h.fabric.mu.Lock()
	defer h.fabric.mu.Unlock()
	return h.ip
}

// DropInbound silently drops (or lets in again) new connections to this host,
// as a firewall or address translation does. Open ones stay.
func (h *Host) DropInbound(drop bool) {
	h.fabric.mu.Lock()
	defer h.fabric.mu.Unlock()
	h.noInbound = drop
	h.fabric.changedLocked()
}

// SetDown takes the cable out or puts it in: nothing passes, nothing breaks.
func (h *Host) SetDown(down bool) {
	h.fabric.mu.Lock()
	defer h.fabric.mu.Unlock()
	h.down = down
	h.fabric.changedLocked()
}

// Move gives the host another address, as when a laptop changes networks. Its
// connections are reset; its listeners listen on the new address.
func (h *Host) Move() {
	h.fabric.mu.Lock()
	h.fabric.assignIPLocked(h)
	h.fabric.changedLocked()
	h.fabric.mu.Unlock()
	h.CutAll()
}

// CutAll resets all connections of the host.
func (h *Host) CutAll() {
	h.fabric.reset(func(c *fabricConn) bool { return c.host == h })
}

// Listen binds HOST:PORT; the host part is not looked at, port 0 takes a free
// port.
func (h *Host) Listen(_ context.Context, addr string) (net.Listener, error) {
	_, port, err := splitPort(addr)
	if err != nil {
		return nil, err
	}
	h.fabric.mu.Lock()
	defer h.fabric.mu.Unlock()
	if port == 0 {
		port = h.freePortLocked()
	}
	if h.listeners[port] != nil {
		return nil, opError("listen", nil, syscall.EADDRINUSE)
	}
	l := &fabricListener{host: h, port: port, queue: make(chan *fabricConn, acceptQueue), done: make(chan struct{})}
	h.listeners[port] = l
	return l, nil
}

// freePortLocked hands out ports in turn, leaving out those that are bound.
func (h *Host) freePortLocked() uint16 {
	for {
		port := h.nextPort
		if h.nextPort++; h.nextPort == 0 {
			h.nextPort = firstFreePort
		}
		if h.listeners[port] == nil {
			return port
		}
	}
}

// Dial connects to HOST:PORT, where HOST is an address or a host's name.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	name, port, err := splitPort(addr)
	if err != nil {
		return nil, opError("dial", nil, err)
	}
	for {
		target, wait, err := h.fabric.route(h, name)
		if err != nil {
			return nil, opError("dial", nil, err)
		}
		if wait == nil {
			return h.connect(ctx, target, port)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, opError("dial", nil, ctx.Err())
		}
	}
}

func (h *Host) connect(ctx context.Context, target *Host, port uint16) (net.Conn, error) {
	h.fabric.mu.Lock()
	roundTrip := 2 * h.fabric.latency
	h.fabric.mu.Unlock()
	t := time.NewTimer(roundTrip)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return nil, opError("dial", nil, ctx.Err())
	}
	mine, theirs := h.fabric.pair(h, target, port)
	h.fabric.mu.Lock()
	l := target.listeners[port]
	h.fabric.mu.Unlock()
	if l == nil || !l.offer(theirs) {
		mine.fail(net.ErrClosed)
		return nil, opError("dial", theirs.local, syscall.ECONNREFUSED)
	}
	return mine, nil
}

func tcpAddr(ip netip.Addr, port uint16) net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, port))
}

func splitPort(addr string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q: %w", text, errors.Unwrap(err))
	}
	return host, uint16(n), nil
}

func opError(op string, addr net.Addr, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: addr, Err: err}
}
