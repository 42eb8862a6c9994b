package segments_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/placement"
	"gotong/storage/segments"
	"gotong/storage/storagetest"
)

// wipe empties a friend's disk.
func (f *friend) wipe() {
	f.memory = storagetest.NewMemory()
	f.faults = storagetest.NewFaulty(f.memory)
	f.store = f.faults
}

// jobFor asks around and says what a repair would have done.
func (f *friends) jobFor(s *segments.Segments, put segments.Put, known []storage.Holder) segments.RebuildJob {
	f.t.Helper()
	v := f.survey(s, segments.Ask{ID: put.ID, N: put.Redundancy.N, Holders: known})
	job := segments.RebuildJob{Header: put.Header, Sources: v.Stored(), Back: map[int]grid.PeerID{}}
	for i := range put.Redundancy.N {
		if !slices.Contains(shardsOf(job.Sources), i) {
			job.Missing = append(job.Missing, i)
		}
	}
	for _, h := range v.Refused {
		if len(v.Shards[h.Shard]) == 0 {
			job.Back[h.Shard] = h.Peer
		}
	}
	return job
}

// mustRebuild repairs a segment and checks that it is whole.
func (f *friends) mustRebuild(s *segments.Segments, job segments.RebuildJob) segments.Rebuilt {
	f.t.Helper()
	got, err := s.Rebuild(f.t.Context(), job)
	if err != nil || len(got.Missing) > 0 || len(got.Holders) != job.Header.Redundancy.N {
		f.t.Fatalf("rebuild: %+v, %v", got, err)
	}
	return got
}

// whole checks that each holder of a list has its shard, and that all of them
// know the list.
func (f *friends) whole(put segments.Put, holders []storage.Holder) {
	f.t.Helper()
	for _, h := range holders {
		r, err := f.by(h.Peer).memory.OpenShard(f.t.Context(), storage.ShardID{Segment: put.ID, Index: h.Shard}, 0, -1)
		if err != nil {
			f.t.Errorf("shard %d: %v", h.Shard, err)
			continue
		}
		if !slices.Equal(r.Holders(), holders) {
			f.t.Errorf("the holder of shard %d knows %+v, want %+v", h.Shard, r.Holders(), holders)
		}
	}
}

// stranger is a Segments of a peer that has neither grant nor key, only the
// store of one friend.
func (f *friends) stranger(at int) *segments.Segments {
	device := storagetest.NewDevice("stranger")
	f.list[at].peer = device.Peer
	return f.open(auto, func(c *segments.Config) {
		c.Node, c.Grant, c.Owner, c.Vault = device.Key, nil, device.Owner, storage.VaultID{}
	})
}

// TestRebuildAfterLoss: two of six are gone for good; somebody without a key
// puts their shards elsewhere, and everybody knows.
func TestRebuildAfterLoss(t *testing.T) {
	f := newFriends(t, 9)
	stranger := f.stranger(8)
	s := f.open(fourOfSix)
	data := randomBytes(1 << 20)
	put := f.mustPut(s, data)
	for _, h := range put.Holders[1:3] {
		f.absent[h.Peer] = true
	}
	got := f.mustRebuild(stranger, f.jobFor(stranger, put, put.Holders))
	if !slices.Equal(got.Placed, []int{1, 2}) || got.Bytes != 2*int64(put.Header.ShardBytes) || got.SurvivesSites != 2 || got.Problem != "" {
		t.Errorf("%+v", got)
	}
	for _, h := range got.Holders {
		if want := map[bool]uint32{true: 1, false: 0}[h.Shard == 1 || h.Shard == 2]; h.Epoch != want || f.absent[h.Peer] {
			t.Errorf("%+v", h)
		}
	}
	f.whole(put, got.Holders)
	f.wantGet(s, segments.Put{ID: put.ID, Holders: put.Holders}, data) // with the old hint
}

// TestWipedHolderGetsItsShardBack, even with others to spare.
func TestWipedHolderGetsItsShardBack(t *testing.T) {
	for _, r := range []storage.Redundancy{{K: 1, N: 3}, {K: 2, N: 4}, fourOfSix} {
		f := newFriends(t, 12)
		s := f.open(r)
		put := f.mustPut(s, randomBytes(70_000))
		f.by(put.Holders[0].Peer).wipe()
		f.by(put.Holders[r.N-1].Peer).wipe()
		got := f.mustRebuild(s, f.jobFor(s, put, put.Holders))
		for i, h := range got.Holders {
			if h.Peer != put.Holders[i].Peer {
				t.Errorf("%s: shard %d moved", r, i)
			}
		}
		f.whole(put, got.Holders)
	}
}

// TestRebuildFindsBadSources: what lies or lacks its shard when it is read is
// made anew in the same pass.
func TestRebuildFindsBadSources(t *testing.T) {
	f := newFriends(t, 9)
	s := f.open(storage.Redundancy{K: 2, N: 6})
	put := f.mustPut(s, randomBytes(100_000))
	f.by(put.Holders[0].Peer).faults.Set(storagetest.Faults{Garbage: true})
	wiped := f.by(put.Holders[1].Peer)
	wiped.wipe()
	f.absent[put.Holders[5].Peer] = true
	// Which sources are read depends on how fast they were before; a holder that
	// is only told of the others is found to be without after that.
	got := segments.Rebuilt{Holders: put.Holders[:5], Missing: []int{5}}
	for pass := 0; len(got.Missing) > 0 && pass < 3; pass++ {
		var err error
		if got, err = s.Rebuild(t.Context(), segments.RebuildJob{Header: put.Header, Sources: got.Holders, Missing: got.Missing}); err != nil {
			t.Fatal(err)
		}
	}
	if len(got.Missing) > 0 || len(got.Holders) != 6 {
		t.Fatalf("%+v", got)
	}
	f.whole(put, got.Holders)
	problems := s.Problems()
	liar := put.Holders[0].Peer
	other := func(p segments.Problem) bool { return p.Peer != liar }
	if found := got.Holders[0].Peer != liar; found != (len(problems) > 0) || slices.ContainsFunc(problems, other) {
		t.Errorf("%+v, %+v", got, problems)
	}
}

// TestRebuildTellsWhoIsWithout: a source that was not read is found out when it
// is told who has what.
func TestRebuildTellsWhoIsWithout(t *testing.T) {
	f := newFriends(t, 9)
	s := f.open(storage.Redundancy{K: 1, N: 3})
	data := randomBytes(1000)
	put := f.mustPut(s, data)
	f.by(put.Holders[1].Peer).wipe()
	got, err := s.Rebuild(t.Context(), segments.RebuildJob{Header: put.Header, Sources: put.Holders[:2], Missing: []int{2}, Data: data})
	if err != nil || !slices.Equal(got.Placed, []int{2}) || !slices.Equal(got.Missing, []int{1}) || got.Problem == "" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestTooFewToRebuild says so, and stores nothing.
func TestTooFewToRebuild(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 9)
		s := f.open(fourOfSix)
		put := f.mustPut(s, randomBytes(1000))
		for _, h := range put.Holders[:3] {
			f.absent[h.Peer] = true
		}
		_, err := s.Rebuild(t.Context(), f.jobFor(s, put, put.Holders))
		var few *segments.TooFewError
		if !errors.As(err, &few) || !errors.Is(err, storage.ErrTooFewShards) || few.Answered != 3 {
			t.Error(err)
		}
		s.Close()
	})
}

// TestRebuildBelievesNobody: a header that nobody signed, or whose roots fit no
// segment, gets nothing stored.
func TestRebuildBelievesNobody(t *testing.T) {
	f := newFriends(t, 6)
	s := f.open(storage.Redundancy{K: 2, N: 4})
	put := f.mustPut(s, randomBytes(1000))
	forged := put.Header
	forged.Raw = slices.Clone(forged.Raw)
	forged.Raw[len(forged.Raw)-1] ^= 1
	if _, err := s.Rebuild(t.Context(), segments.RebuildJob{Header: forged, Sources: put.Holders, Missing: []int{0}}); !errors.Is(err, storage.ErrDenied) {
		t.Error(err)
	}
	nonsense := f.device.Segment(t, f.vault, storage.Redundancy{K: 2, N: 4}, 1024, "no code word")
	var sources []storage.Holder
	for i := range 3 {
		w, err := f.list[i].memory.CreateShard(t.Context(), nonsense.Header, i, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(nonsense.Shards[i]); err != nil || w.Commit() != nil {
			t.Fatal(err)
		}
		sources = append(sources, storage.Holder{Shard: i, Peer: f.list[i].peer})
	}
	if _, err := s.Rebuild(t.Context(), segments.RebuildJob{Header: nonsense.Header, Sources: sources, Missing: []int{3}}); !errors.Is(err, storage.ErrCorrupt) {
		t.Error(err)
	}
	if _, err := s.Rebuild(t.Context(), segments.RebuildJob{Header: put.Header, Missing: []int{4}}); err == nil {
		t.Error("a shard that does not exist is made")
	}
}

// unreadable fails the test when a whole shard is read.
type unreadable struct {
	storage.RemoteShards
	t testing.TB
}

func (u *unreadable) OpenShard(ctx context.Context, id storage.ShardID, off, n int64) (storage.ShardReader, error) {
	if n < 0 {
		u.t.Errorf("shard %d is read", id.Index)
	}
	return u.RemoteShards.OpenShard(ctx, id, off, n)
}

// TestSpool: what friends who were away miss comes from the spool, across a
// restart, and leaves it then.
func TestSpool(t *testing.T) {
	dir := t.TempDir()
	f := newFriends(t, 6)
	open := func() (*segments.Segments, *segments.Spool) {
		spool, err := segments.OpenSpool(segments.SpoolConfig{Dir: dir, Bytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return f.open(fourOfSix, func(c *segments.Config) { c.Spool = spool }), spool
	}
	s, spool := open()
	late := f.list[2].peer
	f.away[late] = true
	data := randomBytes(300_000)
	put, err := s.Put(t.Context(), data)
	if err != nil || !put.Committed || put.Complete || len(put.Missing) != 1 || !spool.Has(put.ID) {
		t.Fatalf("%+v, %v", put, err)
	}
	s, spool = open()
	f.away[late] = false
	for _, friend := range f.list {
		friend.store = &unreadable{RemoteShards: friend.memory, t: t}
	}
	got := f.mustRebuild(s, segments.RebuildJob{Header: put.Header, Sources: put.Holders, Missing: put.Missing})
	if got.Holders[put.Missing[0]].Peer != late || spool.Has(put.ID) {
		t.Errorf("%+v", got)
	}
	f.whole(put, got.Holders)
}

// TestDamagedSpool: what the spool has is not believed.
func TestDamagedSpool(t *testing.T) {
	f := newFriends(t, 6)
	spool, err := segments.OpenSpool(segments.SpoolConfig{Dir: t.TempDir(), Bytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	s := f.open(fourOfSix, func(c *segments.Config) { c.Spool = spool })
	f.away[f.list[2].peer] = true
	put, err := s.Put(t.Context(), randomBytes(300_000))
	if err != nil || put.Complete {
		t.Fatal(put, err)
	}
	f.away = map[grid.PeerID]bool{}
	segments.DamageSpool(t, spool, put.ID)
	got := f.mustRebuild(s, segments.RebuildJob{Header: put.Header, Sources: put.Holders, Missing: put.Missing})
	f.whole(put, got.Holders)
	if st := spool.Stats(); st.Segments != 0 || st.Bytes != 0 {
		t.Errorf("%+v", st)
	}
}

// TestSpoolIsBounded: what does not fit is left out, and nothing is dropped for
// it.
func TestSpoolIsBounded(t *testing.T) {
	f := newFriends(t, 6)
	f.away[f.list[2].peer] = true
	spool, err := segments.OpenSpool(segments.SpoolConfig{Dir: t.TempDir(), Bytes: 250_000})
	if err != nil {
		t.Fatal(err)
	}
	s := f.open(fourOfSix, func(c *segments.Config) { c.Spool = spool })
	var puts []segments.Put
	for i := range 3 {
		put, err := s.Put(t.Context(), randomBytes(100_000+i))
		if err != nil {
			t.Fatal(err)
		}
		puts = append(puts, put)
	}
	if st := spool.Stats(); st.Segments != 2 || st.Bytes != 200_001 || st.Refused != 1 || !spool.Has(puts[0].ID) || spool.Has(puts[2].ID) {
		t.Errorf("%+v", st)
	}
	spool.Retain(func(id storage.SegmentID) bool { return id == puts[1].ID }, 0)
	if st := spool.Stats(); st.Segments != 1 || !spool.Has(puts[1].ID) {
		t.Errorf("%+v", st)
	}
}

// TestDrain: a holder that leaves hands its shard over; the others' are not
// read.
func TestDrain(t *testing.T) {
	f := newFriends(t, 7)
	s := f.open(fourOfSix)
	put := f.mustPut(s, randomBytes(100_000))
	leaving := put.Holders[3].Peer
	for _, h := range put.Holders {
		if h.Peer != leaving {
			f.by(h.Peer).store = &unreadable{RemoteShards: f.by(h.Peer).memory, t: t}
		}
	}
	got := f.mustRebuild(s, segments.RebuildJob{
		Header: put.Header, Sources: put.Holders, Missing: []int{3}, Avoid: map[grid.PeerID]bool{leaving: true},
	})
	if got.Holders[3].Peer == leaving || got.Holders[3].Epoch != 1 || got.SurvivesSites != 2 {
		t.Errorf("%+v", got)
	}
	for _, friend := range f.list {
		friend.store = friend.memory
	}
	f.whole(put, got.Holders)
}

// TestMoveOnlyToBetterPlaces: with nowhere better to go a shard stays, and
// nothing is read.
func TestMoveOnlyToBetterPlaces(t *testing.T) {
	f := newFriends(t, 7)
	f.sites[0], f.sites[1] = "one", "one"
	s := f.open(storage.Redundancy{K: 5, N: 7})
	put := f.mustPut(s, randomBytes(1000))
	if put.Problem == "" {
		t.Fatalf("%+v", put)
	}
	move := func() (segments.Rebuilt, int) {
		for _, h := range put.Holders {
			if h.Peer == f.list[1].peer {
				got, err := s.Rebuild(t.Context(), segments.RebuildJob{
					Header: put.Header, Sources: put.Holders, Missing: []int{h.Shard}, Move: true,
					Avoid: map[grid.PeerID]bool{h.Peer: true},
				})
				if err != nil {
					t.Fatal(err)
				}
				return got, h.Shard
			}
		}
		return segments.Rebuilt{}, 0
	}
	got, _ := move()
	if len(got.Placed) > 0 || len(got.Missing) > 0 || got.Problem == "" || !slices.Equal(got.Holders, put.Holders) {
		t.Errorf("%+v", got)
	}
	extra := newFriends(t, 8)
	f.list, f.sites, f.offered = append(f.list, extra.list[7]), append(f.sites, "new"), 8
	got, shard := move()
	if !slices.Equal(got.Placed, []int{shard}) || got.Problem != "" || got.Holders[shard].Peer != f.list[7].peer {
		t.Errorf("%+v", got)
	}
}

// TestRebuildWaitsForFriends: shards of friends who are away are not doubled on
// others while enough are there.
func TestRebuildWaitsForFriends(t *testing.T) {
	f := newFriends(t, 6)
	s := f.open(auto)
	put := f.mustPut(s, randomBytes(1000))
	f.by(put.Holders[1].Peer).wipe()
	f.away[put.Holders[1].Peer] = true
	job := segments.RebuildJob{Header: put.Header, Sources: slices.Delete(slices.Clone(put.Holders), 1, 2), Missing: []int{1}, Wait: time.Hour}
	got, err := s.Rebuild(t.Context(), job)
	if err != nil || !slices.Equal(got.Missing, []int{1}) || got.Problem == "" {
		t.Errorf("%+v, %v", got, err)
	}
	delete(f.away, put.Holders[1].Peer)
	f.mustRebuild(s, job)
}

// TestOwnStoreFirst: whoever repairs reads what it has itself.
func TestOwnStoreFirst(t *testing.T) {
	f := newFriends(t, 3)
	stranger := f.stranger(2)
	put := f.mustPut(f.open(storage.Redundancy{K: 1, N: 3}), randomBytes(50_000))
	lost := slices.IndexFunc(put.Holders, func(h storage.Holder) bool { return h.Peer == f.list[0].peer })
	f.list[0].wipe()
	for _, friend := range f.list[:2] {
		friend.store = &unreadable{RemoteShards: friend.memory, t: t}
	}
	got := f.mustRebuild(stranger, segments.RebuildJob{
		Header: put.Header, Sources: slices.Delete(slices.Clone(put.Holders), lost, lost+1), Missing: []int{lost},
	})
	if !slices.Equal(got.Placed, []int{lost}) || got.Holders[lost].Peer != f.list[0].peer {
		t.Errorf("%+v", got)
	}
}

// TestRebuildWithHoldersAway: a shard whose holder is expected back is not made
// and keeps its place, and the others learn of it; a friend who is away for
// longer than is waited gets nothing kept.
func TestRebuildWithHoldersAway(t *testing.T) {
	f := newFriends(t, 6)
	s := f.open(fourOfSix)
	put := f.mustPut(s, randomBytes(1000))
	f.away[put.Holders[1].Peer] = true
	f.removed[put.Holders[4].Peer] = true
	sources := slices.Concat(put.Holders[:1], put.Holders[2:4], put.Holders[5:])
	job := segments.RebuildJob{Header: put.Header, Sources: sources, Away: put.Holders[1:2], Missing: []int{4}}
	got, err := s.Rebuild(t.Context(), job)
	if err != nil || !slices.Equal(got.Placed, []int{4}) || len(got.Missing) > 0 || len(got.Holders) != 5 {
		t.Fatalf("%+v, %v", got, err)
	}
	r, err := f.by(got.Holders[3].Peer).memory.OpenShard(t.Context(), storage.ShardID{Segment: put.ID, Index: 4}, 0, -1)
	if err != nil || len(r.Holders()) != 6 || r.Holders()[1] != put.Holders[1] {
		t.Errorf("%+v, %v", r.Holders(), err)
	}
}

// ruin is one run of TestRepairHeals.
type ruin struct {
	r     storage.Redundancy
	sites []int
	fates []int
}

// What becomes of a peer.
const (
	stays = iota
	staysToo
	wiped
	gone
	damaged
	lies
	hangs
	full
	breaks
	ruins
)

func drawRuin(t *rapid.T) ruin {
	n := rapid.IntRange(1, 8).Draw(t, "n")
	c := ruin{r: storage.Redundancy{K: rapid.IntRange(1, n).Draw(t, "k"), N: n}}
	worst := rapid.SampledFrom([]int{gone, ruins - 1}).Draw(t, "worst")
	sites := rapid.IntRange(1, 12).Draw(t, "sites")
	for i := range rapid.IntRange(1, 12).Draw(t, "peers") {
		c.sites = append(c.sites, i%sites)
		c.fates = append(c.fates, rapid.IntRange(0, worst).Draw(t, "fate"))
	}
	return c
}

// TestRepairHeals: whatever becomes of peers, as long as k good shards are to be
// had and somebody takes shards, repair makes the segment whole; it never puts
// two shards on a peer while another has none, and keeps the limits of sites
// where it can.
func TestRepairHeals(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := drawRuin(rt)
		var err error
		inBubble(t, func(t *testing.T) { err = c.run(t) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func (c ruin) run(t *testing.T) error {
	f := newFriends(t, len(c.fates))
	for i, site := range c.sites {
		f.sites[i] = fmt.Sprint("site ", site)
	}
	s := f.open(c.r)
	data := randomBytes(5000)
	put := f.mustPut(s, data)
	good := c.befall(f, put)
	holders := put.Holders
	var got segments.Rebuilt
	for range 6 {
		job := f.jobFor(s, put, holders)
		if len(job.Missing) == 0 {
			break
		}
		var err error
		got, err = s.Rebuild(t.Context(), job)
		if err != nil && len(good) >= c.r.K {
			return fmt.Errorf("%d good shards of %s: %w", len(good), c.r, err)
		}
		if err == nil {
			holders = got.Holders
		}
		time.Sleep(3 * time.Minute) // until nobody is left alone any more
	}
	if len(good) < c.r.K || !c.takers() {
		return nil
	}
	if job := f.jobFor(s, put, holders); len(job.Missing) > 0 {
		return fmt.Errorf("%d good shards of %s, and yet %v are missing: %+v", len(good), c.r, job.Missing, got)
	}
	if back, err := s.Get(t.Context(), put.ID, segments.Hint{Holders: holders}); err != nil || !slices.Equal(back, data) {
		return fmt.Errorf("%d bytes came back: %w", len(back), err)
	}
	return c.judge(f, put, holders)
}

// takers reports whether there is a place for each shard: a peer of its own, or
// nobody for whom a place is kept because it may come to its senses.
func (c ruin) takers() bool {
	takes, may := 0, 0
	for _, fate := range c.fates {
		switch fate {
		case stays, staysToo, wiped, damaged:
			takes++
		case hangs, breaks, lies:
			may++
		}
	}
	return takes >= c.r.N || (takes > 0 && may == 0)
}

// befall ruins the peers, and returns the shards that can still be read.
func (c ruin) befall(f *friends, put segments.Put) (good map[int]bool) {
	good = map[int]bool{}
	for i, friend := range f.list {
		switch c.fates[i] {
		case wiped:
			friend.wipe()
		case gone:
			f.removed[friend.peer] = true
		case lies:
			friend.faults.Set(storagetest.Faults{Garbage: true})
		case hangs:
			friend.store = hanging{}
		case full:
			friend.faults.Set(storagetest.Faults{Create: storage.ErrFull})
		case breaks:
			friend.faults.Set(storagetest.Faults{Read: grid.ErrUnreachable, Write: grid.ErrUnreachable})
		}
		for _, h := range put.Holders {
			if h.Peer != friend.peer {
				continue
			}
			switch id := (storage.ShardID{Segment: put.ID, Index: h.Shard}); c.fates[i] {
			case damaged:
				friend.memory.Damage(id)
			case stays, staysToo, full:
				good[h.Shard] = true
			}
		}
	}
	return good
}

// judge looks at where the shards are, when nothing worse happened than losses.
func (c ruin) judge(f *friends, put segments.Put, holders []storage.Holder) error {
	var here []placement.Candidate
	for i, fate := range c.fates {
		if fate > gone {
			return nil
		}
		if fate < gone {
			here = append(here, placement.Candidate{Peer: f.list[i].peer, Site: f.sites[i], Pledge: 1, Free: friendBytes})
		}
	}
	onPeer, onSite := map[grid.PeerID]int{}, map[string]int{}
	for _, h := range holders {
		onPeer[h.Peer]++
		onSite[f.Site(h.Peer)]++
		if onPeer[h.Peer] > 1 && len(here) >= c.r.N && put.Sites > 0 && !c.doubled(put) {
			return fmt.Errorf("%d shards on one peer of %d: %+v", onPeer[h.Peer], len(here), holders)
		}
	}
	room := map[string]int{}
	for _, k := range here {
		room[k.Site] = min(room[k.Site]+1, c.r.PerSite())
	}
	total := 0
	for _, n := range room {
		total += n
	}
	for site, n := range onSite {
		if n > c.r.PerSite() && total >= c.r.N && put.Problem == "" && !c.doubled(put) {
			return fmt.Errorf("%d shards of %s on %s, where %d fit within the limits", n, c.r, site, total)
		}
	}
	return nil
}

// doubled reports whether the put itself had to give somebody two shards.
func (c ruin) doubled(put segments.Put) bool { return len(c.fates) < put.Redundancy.N }
