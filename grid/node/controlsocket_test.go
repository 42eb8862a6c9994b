package node

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	controlv1 "gotong/proto/control/v1"
)

// TestStuckPeerEndsQuery: a peer that accepts a question and never answers does
// not hold the command for ever.
func TestStuckPeerEndsQuery(t *testing.T) {
	dir, err := os.MkdirTemp("", "gt") // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, socketName)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // nobody accepts
	conn, err := grpc.NewClient("passthrough:///stuck", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(boundQueries(50*time.Millisecond)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var f *Failure
	if err := awaitAnswer(t.Context(), conn, 50*time.Millisecond); !errors.As(err, &f) || f.Kind != controlv1.Kind_KIND_TEMPORARY {
		t.Errorf("error %v", err)
	}
	if _, err := controlv1.NewControlClient(conn).Status(t.Context(), &controlv1.StatusRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("error %v", err)
	}
}

// TestForeignSocketDirectory: when the socket of a long home is elsewhere, a
// directory that others can write is not trusted, by no side.
func TestForeignSocketDirectory(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("directories have no mode there")
	}
	t.Setenv("TMPDIR", t.TempDir())
	h := home{filepath.Join(t.TempDir(), longName)}
	if err := os.MkdirAll(h.state().dir, 0o700); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Dir(h.socketPath())
	if foreign == h.dir {
		t.Fatalf("%d bytes are not long", len(h.dir))
	}
	if err := os.Mkdir(foreign, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(foreign, 0o777); err != nil {
		t.Fatal(err)
	}
	if l, err := listenControl(h); err == nil {
		l.Close()
		t.Error("a peer serves in a directory of others")
	}
	var failure *Failure
	if _, err := DialControl(t.Context(), h.dir); err == nil || errors.As(err, &failure) && failure.Kind == controlv1.Kind_KIND_NOT_SET_UP {
		t.Errorf("a command went to a directory of others: %v", err)
	}
}

const longName = "a-name-of-one-hundred-and-ten-bytes-or-so/which-no-address-of-a-unix-socket-can-hold/whatever-comes-before-it"
