package segments_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/storagetest"
)

// fate is what happens to a friend after a put.
type fate struct {
	kind  int
	delay time.Duration
}

const fates = 9

// befall spoils a friend, and reports whether shards can still be read there,
// sooner or later.
func (f *friends) befall(friend *friend, what fate) (usable bool) {
	switch what.kind {
	case 0:
		f.absent[friend.peer] = true
	case 1:
		friend.faults.Set(storagetest.Faults{Down: grid.ErrUnreachable})
	case 2:
		friend.store = hanging{RemoteShards: friend.memory}
	case 3:
		friend.faults.Set(storagetest.Faults{Garbage: true})
	case 4:
		friend.faults.Set(storagetest.Faults{Read: errors.New("broken"), Write: errors.New("broken")})
	case 5:
		friend.faults.Set(storagetest.Faults{Create: storage.ErrQuota, Open: storage.ErrDenied})
	case 6: // slow, and yet alive
		friend.faults.Set(storagetest.Faults{Delay: what.delay})
		return true
	default:
		return true
	}
	return false
}

// scenario is one run of TestNothingWrongIsEverReturned.
type scenario struct {
	r     storage.Redundancy
	size  int
	fates []fate
}

func drawScenario(t *rapid.T) scenario {
	n := rapid.IntRange(1, 8).Draw(t, "n")
	s := scenario{
		r:     storage.Redundancy{K: rapid.IntRange(1, n).Draw(t, "k"), N: n},
		size:  rapid.IntRange(1, 50_000).Draw(t, "size"),
		fates: make([]fate, rapid.IntRange(n, 10).Draw(t, "peers")),
	}
	for i := range s.fates {
		s.fates[i].kind = rapid.IntRange(0, fates-1).Draw(t, "fate")
		s.fates[i].delay = time.Duration(rapid.IntRange(1, 2000).Draw(t, "ms")) * time.Millisecond
	}
	return s
}

// TestNothingWrongIsEverReturned: whatever friends do, a get returns the bytes
// that were put, or says that there are too few; it returns them whenever k
// holders are usable; and neither call takes longer than its limits.
func TestNothingWrongIsEverReturned(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScenario(rt)
		var err error
		inBubble(t, func(t *testing.T) { err = s.run(t) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func (c scenario) run(t *testing.T) error {
	f := newFriends(t, len(c.fates))
	data := randomBytes(c.size)
	s := f.open(c.r)
	put := f.mustPut(s, data)
	usable := map[grid.PeerID]bool{}
	for i, friend := range f.list {
		usable[friend.peer] = f.befall(friend, c.fates[i])
	}
	left := 0
	for _, h := range put.Holders {
		if usable[h.Peer] {
			left++
		}
	}
	return errors.Join(c.get(t, s, put, data, left), c.putAgain(t, s, data))
}

func (c scenario) get(t *testing.T, s *segments.Segments, put segments.Put, data []byte, left int) error {
	began := time.Now()
	got, err := s.Get(t.Context(), put.ID, segments.Hint{Header: put.Header, Holders: put.Holders})
	switch {
	case err == nil && !bytes.Equal(got, data):
		return errors.New("other bytes came back")
	case left >= c.r.K && err != nil:
		return fmt.Errorf("%d of %s usable: %w", left, c.r, err)
	case left < c.r.K && !errors.Is(err, storage.ErrTooFewShards):
		return fmt.Errorf("%d of %s usable, and yet: %w", left, c.r, err)
	}
	if limit := segments.DefaultIdleTimeout + segments.DefaultAskTimeout + 30*time.Second; time.Since(began) > limit {
		return fmt.Errorf("the get took %s", time.Since(began))
	}
	return nil
}

func (c scenario) putAgain(t *testing.T, s *segments.Segments, data []byte) error {
	began := time.Now()
	put, err := s.Put(t.Context(), data)
	if err != nil && !errors.Is(err, storage.ErrTooFewPeers) {
		return err
	}
	if err == nil && put.Committed && put.Acked < c.r.CommitAt() {
		return fmt.Errorf("committed with %d of %s", put.Acked, c.r)
	}
	if limit := segments.DefaultIdleTimeout + segments.DefaultCommitTimeout; time.Since(began) > limit {
		return fmt.Errorf("the put took %s", time.Since(began))
	}
	return nil
}
