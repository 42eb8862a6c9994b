package memnet

import (
	"net"
	"sync"
	"syscall"
)

// fabricListener is a bound port.
type fabricListener struct {
	host  *Host
	port  uint16
	queue chan *fabricConn
	done  chan struct{}
	once  sync.Once
}

func (l *fabricListener) offer(c *fabricConn) bool {
	select {
	case <-l.done:
		return false
	default:
	}
	select {
	case l.queue <- c:
		return true
	default:
		return false
	}
}

func (l *fabricListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, opError("accept", l.Addr(), net.ErrClosed)
	}
}

func (l *fabricListener) Close() error {
	l.once.Do(func() {
		l.host.fabric.mu.Lock()
		delete(l.host.listeners, l.port)
		l.host.fabric.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.queue:
				c.fail(syscall.ECONNRESET)
			default:
				return
			}
		}
	})
	return nil
}

func (l *fabricListener) Addr() net.Addr { return tcpAddr(l.host.IP(), l.port) }
