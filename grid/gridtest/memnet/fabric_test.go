package memnet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid/gridtest/memnet"
)

// connect returns the two ends of a connection from a to b.
func connect(t *testing.T, a, b *memnet.Host) (from, to net.Conn) {
	t.Helper()
	l, err := b.Listen(t.Context(), ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if from, err = a.Dial(t.Context(), l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if to, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = from.Close(); _ = to.Close() })
	return from, to
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("read %q, %v; want %q", got, err, text)
	}
}

func TestBytesTakeTheLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := memnet.New()
		f.SetLatency(50 * time.Millisecond)
		begin := time.Now()
		from, to := connect(t, f.Host("a"), f.Host("b"))
		if took := time.Since(begin); took != 100*time.Millisecond {
			t.Errorf("connecting took %v", took)
		}
		begin = time.Now()
		send(t, from, "hello")
		send(t, from, "world")
		expect(t, to, "helloworld")
		if took := time.Since(begin); took != 50*time.Millisecond {
			t.Errorf("bytes took %v", took)
		}
		if from.RemoteAddr().String() != to.LocalAddr().String() || from.LocalAddr().String() != to.RemoteAddr().String() {
			t.Errorf("ends: %v-%v and %v-%v", from.LocalAddr(), from.RemoteAddr(), to.LocalAddr(), to.RemoteAddr())
		}
	})
}

func TestCloseDeliversWhatWasWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := memnet.New()
		from, to := connect(t, f.Host("a"), f.Host("b"))
		send(t, from, "last words")
		_ = from.Close()
		got, err := io.ReadAll(to)
		if err != nil || string(got) != "last words" {
			t.Errorf("read %q, %v", got, err)
		}
		if _, err := to.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write to a closed end: %v", err)
		}
		if _, err := from.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after Close: %v", err)
		}
	})
}

func TestWriterWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := memnet.New()
		f.SetBuffer(1000)
		from, to := connect(t, f.Host("a"), f.Host("b"))
		_ = from.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := from.Write(make([]byte, 1500))
		if n != 1000 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("wrote %d, %v", n, err)
		}
		_ = from.SetWriteDeadline(time.Time{})
		go func() { _, _ = from.Write(make([]byte, 500)); _ = from.Close() }()
		if got, err := io.ReadAll(to); len(got) != 1500 || err != nil {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
	})
}

func TestDeadlineCanMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := memnet.New()
		from, _ := connect(t, f.Host("a"), f.Host("b"))
		_ = from.SetDeadline(time.Now().Add(time.Hour))
		time.AfterFunc(time.Second, func() { _ = from.SetDeadline(time.Now().Add(-time.Second)) })
		begin := time.Now()
		if _, err := from.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// In a partition dials hang and bytes wait; both go on when it heals.
func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := memnet.New()
		a, b := f.Host("a"), f.Host("b")
		from, to := connect(t, a, b)
		send(t, from, "before")
		time.Sleep(time.Second)
		f.Partition([]string{"a"}, []string{"b"})
		send(t, from, " and during")
		_ = to.SetReadDeadline(time.Now().Add(time.Minute))
		if n, err := to.Read(make([]byte, 100)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d bytes in a partition, %v", n, err)
		}
		l, err := b.Listen(t.Context(), ":1")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := a.Dial(ctx, "b:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial in a partition: %v", err)
		}
		time.AfterFunc(time.Minute, f.Heal)
		late, err := a.Dial(t.Context(), "b:1")
		if err != nil {
			t.Fatal(err)
		}
		_ = late.Close()
		_ = to.SetReadDeadline(time.Time{})
		expect(t, to, "before and during")
	})
}

func TestFirewallMoveAndCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := memnet.New()
		a, b := f.Host("a"), f.Host("b")
		from, to := connect(t, a, b)
		l, err := b.Listen(t.Context(), ":1")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		dial := func(addr string) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			c, err := a.Dial(ctx, addr)
			if err == nil {
				_ = c.Close()
			}
			return err
		}
		b.DropInbound(true)
		if err := dial("b:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial through the firewall: %v", err)
		}
		send(t, from, "still open")
		expect(t, to, "still open")
		b.DropInbound(false)

		old := l.Addr().String()
		if err := dial(old); err != nil {
			t.Error(err)
		}
		b.Move()
		if _, err := to.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("connection of a host that moved: %v", err)
		}
		if err := dial(old); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial to the old address: %v", err)
		}
		if err := dial(l.Addr().String()); err != nil {
			t.Errorf("dial to the new address: %v", err)
		}

		from, to = connect(t, a, b)
		f.Cut("b", "a")
		for _, c := range []net.Conn{from, to} {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("cut connection: %v", err)
			}
		}
		if err := dial("b:2"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("nobody listens: %v", err)
		}
		if err := dial("c:2"); err == nil {
			t.Error("dialled a name that does not exist")
		}
		if _, err := b.Listen(t.Context(), ":1"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("second listener: %v", err)
		}
	})
}
