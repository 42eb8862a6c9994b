package segments

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// TestOneBreakIsOneFailure: a hundred transfers that break at once pause a peer
// for as long as one does; when it breaks again later, longer.
func TestOneBreakIsOneFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var known peers
		peer, broken := grid.PeerID{1}, errors.New("connection reset")
		for range 100 {
			known.failed(peer, broken, toGet)
		}
		time.Sleep(backoffMin)
		if err := known.skip(peer, toPut); err != nil {
			t.Errorf("still left alone after %s: %v", backoffMin, err)
		}
		known.failed(peer, broken, toPut)
		time.Sleep(backoffMin)
		if known.skip(peer, toPut) == nil {
			t.Error("a peer that breaks again is not left alone for longer")
		}
	})
}

// TestForgive: a peer that is back is used at once, unless it lied.
func TestForgive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var known peers
		away, liar := grid.PeerID{1}, grid.PeerID{2}
		known.failed(away, errors.New("no answer"), toPut)
		known.failed(liar, storage.ErrCorrupt, toGet)
		for _, peer := range []grid.PeerID{away, liar} {
			known.forgive(peer)
		}
		if err := known.skip(away, toPut); err != nil {
			t.Error(err)
		}
		if known.skip(liar, toGet) == nil {
			t.Error("a peer that gave a bad shard was forgiven")
		}
	})
}
