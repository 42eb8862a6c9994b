package segments_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/storagetest"
)

func TestRoundTrip(t *testing.T) {
	for _, r := range []storage.Redundancy{{K: 1, N: 1}, {K: 1, N: 3}, {K: 3, N: 3}, {K: 2, N: 6}, fourOfSix, {K: 10, N: 30}} {
		for _, size := range []int{1, 100, 16 << 10, 100_003, storage.MaxSegmentBytes} {
			if size > 1<<20 && r != fourOfSix {
				continue
			}
			f := newFriends(t, r.N)
			s := f.open(r)
			data := randomBytes(size)
			put := f.mustPut(s, data)
			if put.Acked != r.N || put.Sites != r.N || put.SurvivesSites != r.N-r.K || put.Problem != "" || len(put.Missing) > 0 {
				t.Errorf("%s: %+v", r, put)
			}
			f.wantGet(s, put, data)
			s.Close()
		}
	}
}

func TestAutoFollowsSites(t *testing.T) {
	for sites, want := range map[int]storage.Redundancy{1: {K: 1, N: 1}, 2: {K: 1, N: 2}, 3: {K: 1, N: 3}, 5: {K: 2, N: 5}, 7: {K: 2, N: 6}} {
		f := newFriends(t, sites)
		s := f.open(auto)
		put := f.mustPut(s, randomBytes(1000))
		if put.Redundancy != want || put.SurvivesSites != want.N-want.K {
			t.Errorf("%d sites: %s, survives %d", sites, put.Redundancy, put.SurvivesSites)
		}
	}
	if _, err := newFriends(t, 0).open(auto).Put(t.Context(), []byte{1}); !errors.Is(err, storage.ErrTooFewPeers) {
		t.Errorf("alone: %v", err)
	}
}

func TestFewerSitesThanShards(t *testing.T) {
	f := newFriends(t, 3)
	s := f.open(fourOfSix)
	put := f.mustPut(s, randomBytes(5000))
	if put.Sites != 3 || put.SurvivesSites != 1 || put.Problem == "" {
		t.Errorf("%+v", put)
	}
	f.wantGet(s, put, randomBytes(5000))
}

func TestPutKeepsNothingOfData(t *testing.T) {
	f := newFriends(t, 6)
	s := f.open(fourOfSix)
	data := randomBytes(300_000)
	want := slices.Clone(data)
	put := f.mustPut(s, data)
	clear(data)
	f.mustPut(s, data)
	f.wantGet(s, put, want)
}

func TestPutRefusesNonsense(t *testing.T) {
	f := newFriends(t, 2)
	s := f.open(auto)
	for _, size := range []int{0, storage.MaxSegmentBytes + 1} {
		if _, err := s.Put(t.Context(), make([]byte, size)); err == nil {
			t.Errorf("%d bytes are accepted", size)
		}
	}
	reader := f.open(auto, func(c *segments.Config) { c.Grant = nil })
	if _, err := reader.Put(t.Context(), []byte{1}); !errors.Is(err, storage.ErrDenied) {
		t.Errorf("without a grant: %v", err)
	}
}

// TestBadHoldersAreReplaced: whatever is wrong with one holder, a seventh peer
// takes its shard, and nobody waits for long.
func TestBadHoldersAreReplaced(t *testing.T) {
	cases := map[string]func(*friends, *friend){
		"gone":              func(f *friends, bad *friend) { f.absent[bad.peer] = true },
		"full":              func(_ *friends, bad *friend) { bad.faults.Set(storagetest.Faults{Create: storage.ErrFull}) },
		"quota":             func(_ *friends, bad *friend) { bad.faults.Set(storagetest.Faults{Create: storage.ErrQuota}) },
		"breaks while sent": func(_ *friends, bad *friend) { bad.faults.Set(storagetest.Faults{Write: grid.ErrUnreachable}) },
		"disk fails":        func(_ *friends, bad *friend) { bad.faults.Set(storagetest.Faults{Commit: storage.ErrDisk}) },
		"hangs":             func(_ *friends, bad *friend) { bad.store = hanging{} },
		"hangs, deaf":       func(f *friends, bad *friend) { bad.store = hanging{deaf: f.testEnds()} },
		"slow at each step": func(_ *friends, bad *friend) { bad.faults.Set(storagetest.Faults{Delay: 20 * time.Second}) },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				f := newFriends(t, 7)
				s := f.open(fourOfSix)
				data := randomBytes(1 << 20)
				first := f.mustPut(s, data)
				bad := f.by(first.Holders[0].Peer)
				spoil(f, bad)
				for range 3 {
					var put segments.Put
					d := took(func() { put = f.mustPut(s, randomBytes(900_001)) })
					for _, h := range put.Holders {
						if h.Peer == bad.peer {
							t.Error("the bad holder is in the list")
						}
					}
					if d > 2*segments.DefaultHedgeMin {
						t.Errorf("took %s", d)
					}
				}
				f.wantGet(s, first, data)
			})
		})
	}
}

// testEnds returns a channel that is closed at the end of the test.
func (f *friends) testEnds() chan struct{} {
	ends := make(chan struct{})
	f.t.Cleanup(func() { close(ends) })
	return ends
}

// TestCommitRule: with nobody to replace them, holders that are away leave the
// segment incomplete, then uncommitted, then impossible.
func TestCommitRule(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		r := storage.Redundancy{K: 4, N: 6}
		for away := 0; away <= 6; away++ {
			f.absent = map[grid.PeerID]bool{}
			for _, friend := range f.list[:away] {
				f.absent[friend.peer] = true
			}
			put, err := f.open(r).Put(t.Context(), randomBytes(10_000))
			switch {
			case away == 6:
				var few *segments.TooFewError
				if !errors.As(err, &few) || !errors.Is(err, storage.ErrTooFewPeers) || !errors.Is(err, grid.ErrUnreachable) {
					t.Fatalf("all away: %v", err)
				}
				if few.Need != 4 || few.Of != 6 || few.Answered != 0 || len(few.Missing) != 6 || len(few.Causes) != 6 {
					t.Errorf("%+v", few)
				}
			case err != nil:
				t.Errorf("%d away: %v", away, err)
			case away == 0:
				if !put.Complete || !put.Committed || put.SurvivesSites != 2 {
					t.Errorf("all there: %+v", put)
				}
			case away == 1:
				if put.Complete || !put.Committed || put.Acked != 5 || put.SurvivesSites != 1 || len(put.Missing) != 1 || len(put.Causes) != 1 {
					t.Errorf("one away: %+v", put)
				}
			default: // those that are there take two until the commit rule holds
				if !put.Committed || put.Acked != 5 || put.SurvivesSites > 0 || put.Sites != 6-away || put.Problem == "" {
					t.Errorf("%d away: %+v", away, put)
				}
			}
		}
	})
}

// TestPartial: too few to commit and no room for doubles, but enough to
// restore.
func TestPartial(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		for i, friend := range f.list {
			friend.memory.Capacity = 2560 // one shard
			f.absent[friend.peer] = i < 2
		}
		data := randomBytes(10_000)
		s := f.open(fourOfSix)
		put, err := s.Put(t.Context(), data)
		if err != nil || put.Committed || put.Complete || put.Acked != 4 || put.SurvivesSites != 0 {
			t.Fatalf("%+v, %v", put, err)
		}
		f.wantGet(s, put, data)
	})
}

// TestStragglersGetABoundedWait: a slow holder without a replacement does not
// hold up the others for long, and the next segments not at all.
func TestStragglersGetABoundedWait(t *testing.T) {
	for name, store := range map[string]func(f *friends) storage.RemoteShards{
		"hangs": func(f *friends) storage.RemoteShards { return hanging{deaf: f.testEnds()} },
		"crawls": func(f *friends) storage.RemoteShards {
			slow := storagetest.NewFaulty(storagetest.NewMemory())
			slow.Set(storagetest.Faults{Delay: 20 * time.Second})
			return slow
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				f := newFriends(t, 6)
				f.list[3].store = store(f)
				s := f.open(fourOfSix)
				put := func() (put segments.Put) {
					put, err := s.Put(t.Context(), randomBytes(100_000))
					if err != nil || !put.Committed || put.Acked != 5 {
						t.Fatalf("%+v, %v", put, err)
					}
					return put
				}
				if d := took(func() { put() }); d != segments.DefaultStragglerMin {
					t.Errorf("waited %s for the straggler", d)
				}
				if d := took(func() { put() }); d != 0 {
					t.Errorf("waited %s for a peer that is known to be slow", d)
				}
			})
		})
	}
}

// TestHangingMajority: when so many hang that the commit rule cannot hold
// without them, those that answer take more.
func TestHangingMajority(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		for _, friend := range f.list[:3] {
			friend.store = hanging{}
		}
		s := f.open(fourOfSix)
		data := randomBytes(100_000)
		var put segments.Put
		var err error
		if d := took(func() { put, err = s.Put(t.Context(), data) }); d > segments.DefaultHedgeMin+segments.DefaultStragglerMin {
			t.Errorf("took %s", d)
		}
		if err != nil || !put.Committed || put.Acked < 5 {
			t.Fatalf("%+v, %v", put, err)
		}
		f.wantGet(s, put, data)
	})
}

func TestAllHang(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		for _, friend := range f.list {
			friend.store = hanging{deaf: f.testEnds()}
		}
		s := f.open(fourOfSix)
		d := took(func() {
			if _, err := s.Put(t.Context(), randomBytes(1000)); !errors.Is(err, storage.ErrTooFewPeers) {
				t.Error(err)
			}
		})
		if d > segments.DefaultIdleTimeout {
			t.Errorf("took %s", d)
		}
	})
}

// TestForgetfulHolder acknowledges and stores nothing: the sample finds it
// sooner or later, and then it is named and replaced.
func TestForgetfulHolder(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 7)
		for _, friend := range f.list {
			friend.faults.Set(storagetest.Faults{Forget: true})
		}
		good := f.list[6]
		good.faults.Set(storagetest.Faults{})
		s := f.open(storage.Redundancy{K: 1, N: 1})
		for range 40 {
			put, err := s.Put(t.Context(), randomBytes(1000))
			if err != nil || !put.Committed {
				continue // several liars in a row
			}
			if put.Holders[0].Peer != good.peer {
				t.Fatal("a holder that stored nothing counts")
			}
		}
		problems := s.Problems()
		if len(problems) == 0 {
			t.Fatal("nobody was named")
		}
		for _, p := range problems {
			if p.Peer == good.peer || p.Count < 1 || p.What == "" {
				t.Errorf("%+v", p)
			}
		}
	})
}

func TestPutEndsWithItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		for _, friend := range f.list {
			friend.store = hanging{}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s := f.open(fourOfSix)
		if _, err := s.Put(ctx, randomBytes(1000)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		s.Close()
	})
}
