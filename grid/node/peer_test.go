package node

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
)

// TestEveryPartMayFail: a peer whose parts all end by themselves, as on a disk that
// is gone, still stops.
func TestEveryPartMayFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &running{peer: &Peer{logger: slog.New(slog.DiscardHandler)}, failed: make(chan error, 1)}
		errGone := errors.New("gone")
		for range 30 {
			r.add(t.Context(), "part", func(context.Context) error { return errGone })
		}
		for _, part := range r.parts {
			<-part.done
		}
		if err := <-r.failed; !errors.Is(err, errGone) {
			t.Error(err)
		}
	})
}
