package segments_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/storagetest"
)

func wantHeads(t *testing.T, s *segments.Segments, owner grid.OwnerID, links ...storage.SignedHead) storage.VaultHeads {
	t.Helper()
	vaults, err := s.FindHeads(t.Context(), owner)
	if err != nil || len(vaults) != 1 {
		t.Fatalf("%d vaults, %v", len(vaults), err)
	}
	if got := vaults[0].Links; !slices.EqualFunc(got, storagetest.Raw(links...), slices.Equal) {
		t.Fatalf("%d heads, want %d", len(got), len(links))
	}
	return vaults[0]
}

func TestHeadsRoundTrip(t *testing.T) {
	f := newFriends(t, 12)
	s := f.open(auto)
	heads := f.device.Heads(t, f.vault, 3)
	for _, head := range heads {
		if acks, err := s.PublishHeads(t.Context(), storagetest.Raw(head)); err != nil || acks != 8 {
			t.Fatalf("%d have it, %v", acks, err)
		}
	}
	wantHeads(t, s, f.device.Owner, heads...)
	if vaults, err := s.FindHeads(t.Context(), grid.OwnerID{9}); err != nil || len(vaults) != 0 {
		t.Errorf("a stranger's vaults: %v, %v", vaults, err)
	}
}

func TestHeadsAroundBadPeers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		heads := f.device.Heads(t, f.vault, 3)
		s := f.open(auto)
		publish := func(head storage.SignedHead, want int) {
			t.Helper()
			if acks, err := s.PublishHeads(t.Context(), storagetest.Raw(head)); err != nil || acks != want {
				t.Fatalf("%d have it, %v", acks, err)
			}
		}
		publish(heads[0], 6)
		f.absent[f.list[0].peer] = true
		f.list[1].store = hanging{f.list[1].memory, nil}
		f.list[2].faults.Set(storagetest.Faults{Heads: storage.ErrFull})
		if d := took(func() { publish(heads[1], 3) }); d > 2*segments.DefaultHedgeMin {
			t.Errorf("publishing took %s", d)
		}
		if d := took(func() { publish(heads[1], 3) }); d > segments.DefaultHedgeMin/4 {
			t.Errorf("publishing around a peer that is known to hang took %s", d)
		}
		// The peer with the old state comes back; it is outvoted by the chain.
		delete(f.absent, f.list[0].peer)
		f.list[2].faults.Set(storagetest.Faults{})
		if d := took(func() { wantHeads(t, s, f.device.Owner, heads[:2]...) }); d > 2*segments.DefaultHedgeMin {
			t.Errorf("finding took %s", d)
		}
		// It gets the next one without the one between, and the chain is whole.
		f.list[1].store = f.list[1].memory
		publish(heads[2], 6)
		wantHeads(t, s, f.device.Owner, heads...)
	})
}

func TestHeadsNeedSomebody(t *testing.T) {
	f := newFriends(t, 2)
	s := f.open(auto)
	head := f.device.Heads(t, f.vault, 1)[0]
	f.absent[f.list[0].peer], f.absent[f.list[1].peer] = true, true
	var few *segments.TooFewHeadHolders
	if _, err := s.PublishHeads(t.Context(), storagetest.Raw(head)); !errors.As(err, &few) || !errors.Is(err, storage.ErrTooFewPeers) || few.Asked != 2 {
		t.Errorf("publish: %v", err)
	}
	if _, err := s.FindHeads(t.Context(), f.device.Owner); !errors.Is(err, storage.ErrTooFewPeers) || !errors.Is(err, grid.ErrUnreachable) {
		t.Errorf("find: %v", err)
	}
	delete(f.absent, f.list[0].peer)
	if acks, err := s.PublishHeads(t.Context(), storagetest.Raw(head)); err != nil || acks != 1 {
		t.Errorf("one friend: %d, %v", acks, err)
	}
	if _, err := s.PublishHeads(t.Context(), [][]byte{head.Raw[1:]}); err == nil {
		t.Error("bytes that are no head are published")
	}
}

// TestClonedDevice: the second writer of a vault is told so.
func TestClonedDevice(t *testing.T) {
	f := newFriends(t, 3)
	s := f.open(auto)
	first := f.device.Head(t, f.vault, storage.SignedHead{}, "one")
	other := f.device.Head(t, f.vault, storage.SignedHead{}, "two")
	if _, err := s.PublishHeads(t.Context(), storagetest.Raw(first)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PublishHeads(t.Context(), storagetest.Raw(other)); !errors.Is(err, storage.ErrHeadFork) {
		t.Errorf("a contradicting head: %v", err)
	}
	vaults, err := s.FindHeads(t.Context(), f.device.Owner)
	if err != nil || len(vaults) != 1 || len(vaults[0].Links) != 1 || len(vaults[0].Forks) != 1 {
		t.Errorf("%+v, %v", vaults, err)
	}
	// A device that recovered supersedes both; the old one must stop.
	recovered := f.device.With(grid.CapAll, 2).Head(t, f.vault, first, "three")
	if _, err := s.PublishHeads(t.Context(), storagetest.Raw(recovered)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PublishHeads(t.Context(), storagetest.Raw(f.device.Head(t, f.vault, first, "late"))); !errors.Is(err, storage.ErrStaleEpoch) {
		t.Errorf("a head of the old epoch: %v", err)
	}
}

// staleLiar says that it knows newer heads than it is given.
type staleLiar struct{ storage.RemoteShards }

func (staleLiar) PutHeads(context.Context, [][]byte) error { return storage.ErrStaleEpoch }

// TestOneHolderStopsNobody: who says that heads are outdated has to show a newer one.
func TestOneHolderStopsNobody(t *testing.T) {
	f := newFriends(t, 3)
	s := f.open(auto)
	f.list[0].store = staleLiar{f.list[0].memory}
	head := f.device.Head(t, f.vault, storage.SignedHead{}, "one")
	if acks, err := s.PublishHeads(t.Context(), storagetest.Raw(head)); err != nil || acks != 2 {
		t.Errorf("%d, %v", acks, err)
	}
	recovered := f.device.With(grid.CapAll, 2).Head(t, f.vault, head, "two")
	if err := f.list[0].memory.PutHeads(t.Context(), storagetest.Raw(recovered)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PublishHeads(t.Context(), storagetest.Raw(head)); !errors.Is(err, storage.ErrStaleEpoch) {
		t.Errorf("with a newer head to show: %v", err)
	}
}

// headLiar invents heads.
type headLiar struct {
	storage.RemoteShards
	vaults []storage.VaultHeads
}

func (h headLiar) Heads(_ context.Context, _ grid.OwnerID) ([]storage.VaultHeads, error) {
	return h.vaults, nil
}

func TestHeadsAreVerified(t *testing.T) {
	f := newFriends(t, 3)
	s := f.open(auto)
	heads := f.device.Heads(t, f.vault, 2)
	for _, head := range heads {
		if _, err := s.PublishHeads(t.Context(), storagetest.Raw(head)); err != nil {
			t.Fatal(err)
		}
	}
	forged := slices.Clone(f.device.Head(t, f.vault, heads[1], "x").Raw)
	forged[len(forged)-1] ^= 1
	stranger := storagetest.NewDevice("stranger").Head(t, f.vault, heads[1], "y")
	f.list[1].store = headLiar{f.list[1].memory, []storage.VaultHeads{{Vault: f.vault, Links: [][]byte{forged, stranger.Raw, nil}}}}
	v := wantHeads(t, s, f.device.Owner, heads...)
	if len(v.Forks) > 0 {
		t.Errorf("%d forks", len(v.Forks))
	}
	if p := s.Problems(); len(p) != 1 || p[0].Peer != f.list[1].peer || p[0].Count != 3 {
		t.Errorf("%+v", p)
	}
}
