package peernet

import (
	"errors"
	"fmt"
	"net"

	"gotong/grid"
)

// Errors of this package. Test with errors.Is; besides them Dial returns
// grid.ErrUnknownPeer, grid.ErrNotMember, grid.ErrRemoved and
// grid.ErrUnreachable.
var (
	// ErrBusy: the other side has no room for the connection now; trying again
	// later may help.
	ErrBusy = errors.New("too many connections there, try again later")
	// ErrProtocol: the other side does not speak the protocol, or its version.
	ErrProtocol = errors.New("protocol not spoken there")
	// ErrWrongPeer: another peer than the wanted one answered at the address.
	ErrWrongPeer = errors.New("another peer answers at this address")
	// ErrSelf: a peer does not dial itself.
	ErrSelf = errors.New("this is the peer itself")
)

var (
	errNoLink      = errors.New("the peer keeps no link here")
	errNoAddress   = errors.New("no address known")
	errBackRefused = errors.New("the peer did not dial back")
	errNoHello     = errors.New("no valid greeting")
)

// remoteAlert is the Op of the net.OpError by which crypto/tls reports that
// the other side ended the session with an alert.
const remoteAlert = "remote error"

// isRemoteAlert reports whether the other side refused within TLS.
func isRemoteAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == remoteAlert
}

// final reports whether err is the answer of the wanted peer itself, so that
// trying its other addresses is of no use. ErrProtocol is none: it comes before
// the other side has shown who it is.
func final(err error) bool {
	return errors.Is(err, grid.ErrNotMember) || errors.Is(err, grid.ErrRemoved) || errors.Is(err, ErrBusy)
}

// dialError joins the causes of a failed dial under the one error that says
// what it means.
func dialError(peer grid.PeerID, causes []error) error {
	for _, cause := range causes {
		if final(cause) {
			return fmt.Errorf("dial %s: %w", peer.Short(), cause)
		}
	}
	return fmt.Errorf("dial %s: %w: %w", peer.Short(), grid.ErrUnreachable, errors.Join(causes...))
}
