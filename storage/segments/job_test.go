package segments_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/storagetest"
)

// TestPutForJob: a member stores for the owner of a job, on who is here.
func TestPutForJob(t *testing.T) {
	f := newFriends(t, 6)
	f.away[f.list[2].peer] = true
	owner := storagetest.NewDevice("owner of the job")
	grant, err := storage.OpenJobGrant(owner.JobGrant(t, [32]byte{1}, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	s := f.open(fourOfSix) // which is for backups
	data := randomBytes(100_000)
	put, err := s.PutForJob(t.Context(), data, grant, grant.Expires)
	if err != nil || !put.Complete || put.Redundancy != (storage.Redundancy{K: 2, N: 5}) {
		t.Fatalf("%+v, %v", put, err)
	}
	if h := put.Header; h.Owner != owner.Owner || h.Signer != f.device.Peer || h.Kind != storage.GrantJob || h.Floor != 0 || !h.Expires.Equal(grant.Expires) {
		t.Errorf("%+v", h)
	}
	f.wantGet(s, put, data)
	if _, err := s.PutForJob(t.Context(), data, grant, grant.Expires.Add(time.Hour)); !errors.Is(err, storage.ErrDenied) {
		t.Errorf("beyond the grant: %v", err)
	}
	if _, err := newFriends(t, 0).open(auto).PutForJob(t.Context(), data, grant, grant.Expires); !errors.Is(err, storage.ErrTooFewPeers) {
		t.Errorf("alone: %v", err)
	}
}

// TestLocate: one holder that is asked knows the others, one that hangs does not
// hold it up, and nobody's word is more than a hint.
func TestLocate(t *testing.T) {
	f := newFriends(t, 6)
	s := f.open(fourOfSix)
	first, second := f.mustPut(s, randomBytes(5000)), f.mustPut(s, randomBytes(6000))
	ids := []storage.SegmentID{first.ID, second.ID, {9}}
	at, err := s.Locate(t.Context(), ids, []grid.PeerID{f.list[3].peer, {7}})
	if err != nil || len(at[first.ID]) != 6 || len(at[second.ID]) != 6 || len(at[ids[2]]) != 0 {
		t.Errorf("%v, %v", at, err)
	}
	got, err := f.open(fourOfSix).Get(t.Context(), second.ID, segments.Hint{Holders: at[second.ID]})
	if err != nil || len(got) != 6000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if at, err := s.Locate(t.Context(), ids, nil); err != nil || len(at) != 0 {
		t.Errorf("nobody asked: %v, %v", at, err)
	}
	synctest.Test(t, func(t *testing.T) {
		f.list[0].store = hanging{RemoteShards: f.list[0].memory}
		s := f.open(fourOfSix)
		defer s.Close()
		var at map[storage.SegmentID][]storage.Holder
		if d := took(func() { at, err = s.Locate(t.Context(), ids, f.Members()) }); d > segments.DefaultAskTimeout || err != nil || len(at[first.ID]) != 6 {
			t.Errorf("one hangs: %v, %v after %s", at, err, d)
		}
	})
}
