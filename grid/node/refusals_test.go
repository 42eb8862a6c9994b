package node

import (
	"fmt"
	"testing"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
)

// TestRefusalsAreNamed: who has no room or refuses is named; who is away is not.
func TestRefusalsAreNamed(t *testing.T) {
	var r refusals
	nameOf := func(id grid.PeerID) string { return string(rune('a' + id[0])) }
	if got := r.text(nameOf); got != "" {
		t.Errorf("%q", got)
	}
	r.add([]segments.PeerError{{Peer: grid.PeerID{2}, Err: fmt.Errorf("put: %w", storage.ErrQuota)}, {Peer: grid.PeerID{1}, Err: storage.ErrFull}})
	r.add([]segments.PeerError{{Peer: grid.PeerID{3}, Err: grid.ErrUnreachable}, {Peer: grid.PeerID{4}, Err: storage.ErrDenied}})
	if got := r.text(nameOf); got != "no room: b, c; refused: e" {
		t.Errorf("%q", got)
	}
	r.forget()
	if got := r.text(nameOf); got != "" {
		t.Errorf("after forget: %q", got)
	}
}
