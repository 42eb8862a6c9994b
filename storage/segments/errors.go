package segments

import (
	"errors"
	"fmt"
	"strings"

	"gotong/grid"
	"gotong/storage"
)

// ErrTimeout says that a peer was given up because nothing came from it for too
// long.
var ErrTimeout = errors.New("nothing moved for too long")

// Reasons for which this side gives a peer up.
var (
	errStraggler = errors.New("much slower than the others")
	errSkipped   = errors.New("failed a moment ago")
	errAway      = errors.New("away now")
	errEnough    = errors.New("not needed any more")
	errLied      = errors.New("acknowledged as durable, but not there")
)

// PeerError says why one peer did not help.
type PeerError struct {
	Peer grid.PeerID
	Err  error
}

// TooFewError says that fewer shards than needed could be stored or read, who
// was asked in vain, and why each failed. It is storage.ErrTooFewPeers for a
// put, storage.ErrTooFewShards for a get, also storage.ErrLost when every member
// answered that, and all its causes.
type TooFewError struct {
	Segment  storage.SegmentID
	Need, Of int           // k and n; zero when no holder told them
	Answered int           // shards that were stored, or read and verified
	Missing  []grid.PeerID // peers that ought to have helped and did not
	Causes   []PeerError   // one for each failure, in the order they came

	kind error
	lost bool // storage.ErrLost too
}

// maxCausesShown bounds the causes in the text of a TooFewError; all of them
// are in Causes.
const maxCausesShown = 6

// Error names the numbers first, then the peers with their reasons.
func (e *TooFewError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "segment %s: ", e.Segment.Short())
	if e.Of > 0 {
		fmt.Fprintf(&b, "needs %d of %d, %d answered", e.Need, e.Of, e.Answered)
	} else {
		b.WriteString("no holder answered")
	}
	for i, cause := range e.Causes {
		if i == maxCausesShown {
			fmt.Fprintf(&b, "; and %d more", len(e.Causes)-i)
			break
		}
		fmt.Fprintf(&b, "; %s: %v", cause.Peer.Short(), bare(cause.Err))
	}
	return b.String()
}

// Unwrap returns what the error is, and its causes.
func (e *TooFewError) Unwrap() []error {
	out := []error{e.kind}
	if e.lost {
		out = append(out, storage.ErrLost)
	}
	for _, cause := range e.Causes {
		out = append(out, cause.Err)
	}
	return out
}

// bare returns err without the operation, shard and peer in front of it, which
// the text around it names already.
func bare(err error) error {
	var named *storage.Error
	for errors.As(err, &named) && named.Err != nil {
		err, named = named.Err, nil
	}
	return err
}

// causes collects why peers failed; the last reason of each peer for each
// shard would repeat itself, so a peer's equal reasons are kept once.
type causes []PeerError

func (c *causes) add(peer grid.PeerID, err error) {
	for _, known := range *c {
		if known.Peer == peer && known.Err.Error() == err.Error() {
			return
		}
	}
	*c = append(*c, PeerError{peer, err})
}

// peersOf returns each peer that failed, once.
func (c causes) peersOf() []grid.PeerID {
	var out []grid.PeerID
	seen := map[grid.PeerID]bool{}
	for _, cause := range c {
		if !seen[cause.Peer] {
			seen[cause.Peer] = true
			out = append(out, cause.Peer)
		}
	}
	return out
}
