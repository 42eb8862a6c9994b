package segments_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/storagetest"
)

// wrong gives other bytes than it has: it changes what it reads.
type wrong struct {
	storage.RemoteShards
	change func(data []byte) []byte
}

func (w wrong) OpenShard(ctx context.Context, id storage.ShardID, off, n int64) (storage.ShardReader, error) {
	r, err := w.RemoteShards.OpenShard(ctx, id, off, n)
	if err != nil || n == 0 {
		return r, err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return &changedReader{r, bytes.NewReader(w.change(data))}, nil
}

type changedReader struct {
	storage.ShardReader
	data *bytes.Reader
}

func (r *changedReader) Read(p []byte) (int, error) { return r.data.Read(p) }

// TestGetAroundBadHolders: any n−k holders may be bad in any way.
func TestGetAroundBadHolders(t *testing.T) {
	garbage := func(data []byte) []byte {
		data[len(data)/2] ^= 1
		return data
	}
	cases := []struct {
		name  string
		lies  bool
		limit time.Duration
		spoil func(*friends, *friend)
	}{
		{"gone", false, 0, func(f *friends, bad *friend) { f.absent[bad.peer] = true }},
		{"lost its disk", false, 0, func(_ *friends, bad *friend) { bad.store = storagetest.NewMemory() }},
		{"breaks", false, 0, func(_ *friends, bad *friend) { bad.faults.Set(storagetest.Faults{Read: grid.ErrUnreachable}) }},
		{"hangs", false, segments.DefaultHedgeMin, func(_ *friends, bad *friend) { bad.store = hanging{bad.store, nil} }},
		{"hangs, deaf", false, segments.DefaultHedgeMin, func(f *friends, bad *friend) { bad.store = hanging{bad.store, f.testEnds()} }},
		{"crawls", false, segments.DefaultHedgeMin, func(_ *friends, bad *friend) { bad.faults.Set(storagetest.Faults{Delay: 5 * time.Second}) }},
		{"one bit", true, 0, func(_ *friends, bad *friend) { bad.store = wrong{bad.store, garbage} }},
		{"cut", true, 0, func(_ *friends, bad *friend) {
			bad.store = wrong{bad.store, func(data []byte) []byte { return data[:len(data)-1] }}
		}},
		{"more than there is", true, 0, func(_ *friends, bad *friend) {
			bad.store = wrong{bad.store, func(data []byte) []byte { return append(data, 0) }}
		}},
		{"nothing", true, 0, func(_ *friends, bad *friend) {
			bad.store = wrong{bad.store, func([]byte) []byte { return nil }}
		}},
		{"another segment's shard", true, 0, func(_ *friends, bad *friend) {
			bad.store = wrong{bad.store, func(data []byte) []byte { return randomBytes(len(data)) }}
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				f := newFriends(t, 6)
				data := randomBytes(1<<20 + 1)
				put := f.mustPut(f.open(fourOfSix), data)
				for _, h := range put.Holders[:2] { // data shards, so that decoding is needed
					c.spoil(f, f.by(h.Peer))
				}
				s := f.open(fourOfSix)
				if d := took(func() { f.wantGet(s, put, data) }); d > c.limit {
					t.Errorf("took %s", d)
				}
				if d := took(func() { f.wantGet(s, put, data) }); d > 0 {
					t.Errorf("the second time took %s", d)
				}
				named := map[grid.PeerID]bool{}
				for _, p := range s.Problems() {
					named[p.Peer] = true
				}
				if want := map[bool]int{true: 2, false: 0}[c.lies]; len(named) != want {
					t.Errorf("%d peers named, want %d: %+v", len(named), want, s.Problems())
				}
				for peer := range named {
					if peer != put.Holders[0].Peer && peer != put.Holders[1].Peer {
						t.Error("an honest peer was named")
					}
				}
			})
		})
	}
}

func TestTooFew(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		data := randomBytes(100_000)
		put := f.mustPut(f.open(fourOfSix), data)
		hint := segments.Hint{Header: put.Header, Holders: put.Holders}
		f.absent[put.Holders[0].Peer] = true
		f.by(put.Holders[2].Peer).store = storagetest.NewMemory()
		f.by(put.Holders[5].Peer).store = hanging{}
		s := f.open(fourOfSix)
		for _, hint := range []segments.Hint{hint, {}, {Holders: put.Holders}} {
			got, err := s.Get(t.Context(), put.ID, hint)
			var few *segments.TooFewError
			if got != nil || !errors.As(err, &few) || !errors.Is(err, storage.ErrTooFewShards) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if few.Need != 4 || few.Of != 6 || few.Answered != 3 || !strings.Contains(err.Error(), "needs 4 of 6, 3 answered") {
				t.Errorf("%v", err)
			}
			for _, i := range []int{0, 5} {
				if !slices.Contains(few.Missing, put.Holders[i].Peer) {
					t.Errorf("holder %d is not named as missing", i)
				}
			}
		}
		delete(f.absent, put.Holders[0].Peer)
		f.wantGet(s, put, data)
	})
}

// TestLostIsCertain: a segment is lost when everybody answered and too few have
// it whole, and not while somebody is silent who may.
func TestLostIsCertain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		put := f.mustPut(f.open(fourOfSix), randomBytes(100_000))
		hint := segments.Hint{Header: put.Header, Holders: put.Holders}
		f.by(put.Holders[1].Peer).store = storagetest.NewMemory()
		f.by(put.Holders[2].Peer).store = storagetest.NewMemory()
		f.list = append(f.list, &friend{peer: f.device.Peer, store: storagetest.NewMemory()}) // answers as well
		silent := put.Holders[3].Peer
		for _, away := range []bool{true, false} {
			if f.absent[silent] = away; !away {
				f.by(silent).store = wrong{f.by(silent).store, func(data []byte) []byte { return append(data[:len(data)-1], data[len(data)-1]^1) }}
			}
			_, err := f.open(fourOfSix).Get(t.Context(), put.ID, hint)
			if !errors.Is(err, storage.ErrTooFewShards) || errors.Is(err, storage.ErrLost) == away {
				t.Errorf("away %t: %v", away, err)
			}
		}
	})
}

// interrupting calls a function when all members are about to be asked.
type interrupting struct {
	segments.Holders
	now func()
}

func (i interrupting) Members() []grid.PeerID {
	i.now()
	return i.Holders.Members()
}

// TestWhoIsInterruptedIsNoLiar: a read that this side ends because of bad data of
// another segment is no fault of the peer that was being read from.
func TestWhoIsInterruptedIsNoLiar(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		put := f.mustPut(f.open(fourOfSix), randomBytes(100_000))
		for i, h := range put.Holders {
			if f.by(h.Peer).store = storagetest.NewMemory(); i > 2 {
				f.by(h.Peer).store = hanging{}
			}
		}
		for range 10 { // which of two things is noticed first is a matter of chance
			ctx, cancel := context.WithCancelCause(t.Context())
			reason := fmt.Errorf("restore something else: %w", storage.ErrCorrupt)
			s := f.open(fourOfSix, func(c *segments.Config) {
				calls := 0
				c.Holders = interrupting{c.Holders, func() {
					if calls++; calls > 1 { // the first only counts them
						cancel(reason)
						synctest.Wait()
					}
				}}
			})
			if _, err := s.Get(ctx, put.ID, segments.Hint{Header: put.Header, Holders: put.Holders}); !errors.Is(err, reason) {
				t.Error(err)
			}
			if bad := s.Problems(); len(bad) > 0 {
				t.Errorf("%+v", bad)
			}
		}
	})
}

func TestNobodyKnows(t *testing.T) {
	f := newFriends(t, 3)
	_, err := f.open(auto).Get(t.Context(), storage.SegmentID{1}, segments.Hint{})
	if !errors.Is(err, storage.ErrTooFewShards) {
		t.Error(err)
	}
}

// TestGetWithoutHint: members are asked, and shards that moved are found.
func TestGetWithoutHint(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 12)
		f.offered = 6
		data := randomBytes(100_000)
		put := f.mustPut(f.open(fourOfSix), data)
		// Three shards move to peers of whom no list knows.
		for i := range 3 {
			from, to := f.by(put.Holders[i].Peer), f.list[6+i]
			id := storage.ShardID{Segment: put.ID, Index: i}
			shard, err := storagetest.Get(t.Context(), from.store, id, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			w, err := to.store.CreateShard(t.Context(), put.Header, i, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write(shard)
			if err := errors.Join(w.Commit(), from.memory.DeleteShard(t.Context(), id)); err != nil {
				t.Fatal(err)
			}
		}
		s := f.open(fourOfSix)
		for _, hint := range []segments.Hint{{}, {Holders: put.Holders}, {Header: put.Header}} {
			got, err := s.Get(t.Context(), put.ID, hint)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
		}
	})
}

// TestHolderListsHelp: one holder that is known leads to the others.
func TestHolderListsHelp(t *testing.T) {
	f := newFriends(t, 6)
	data := randomBytes(100_000)
	put := f.mustPut(f.open(fourOfSix), data)
	f.t = t
	reader := f.open(fourOfSix, func(c *segments.Config) { c.Holders = memberless{f} })
	got, err := reader.Get(t.Context(), put.ID, segments.Hint{Holders: put.Holders[:1]})
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

// memberless knows no members to ask.
type memberless struct{ *friends }

func (memberless) Members() []grid.PeerID { return nil }

func TestGetIntoBuffer(t *testing.T) {
	f := newFriends(t, 6)
	s := f.open(fourOfSix)
	buffer := make([]byte, 0, segments.BufferBytes)
	for _, size := range []int{1, 77_777, storage.MaxSegmentBytes} {
		data := randomBytes(size)
		put := f.mustPut(s, data)
		got, err := s.Get(t.Context(), put.ID, segments.Hint{Header: put.Header, Holders: put.Holders, Buffer: buffer})
		if err != nil || !bytes.Equal(got, data) || &got[0] != &buffer[:1][0] {
			t.Errorf("%d bytes: %d, %v", size, len(got), err)
		}
	}
}

func TestRange(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		data := randomBytes(200_000)
		put := f.mustPut(f.open(fourOfSix), data)
		s := f.open(fourOfSix)
		hint := segments.Hint{Holders: put.Holders}
		for _, c := range [][2]int64{{0, 1}, {0, 200_000}, {49_999, 5}, {50_047, 2}, {199_999, 1}, {16 << 10, 16 << 10}, {5, 0}, {200_000, 0}} {
			got, err := s.Range(t.Context(), put.ID, hint, c[0], c[1])
			if err != nil || !bytes.Equal(got, data[c[0]:c[0]+c[1]]) {
				t.Errorf("%d bytes at %d: %d, %v", c[1], c[0], len(got), err)
			}
		}
		for _, c := range [][2]int64{{-1, 1}, {0, -1}, {0, 200_001}, {200_000, 1}} {
			if _, err := s.Range(t.Context(), put.ID, hint, c[0], c[1]); err == nil {
				t.Errorf("%d bytes at %d are there", c[1], c[0])
			}
		}
		f.by(put.Holders[0].Peer).store = hanging{}
		d := took(func() {
			if _, err := s.Range(t.Context(), put.ID, hint, 0, 10); !errors.Is(err, storage.ErrTooFewShards) {
				t.Errorf("from a holder that hangs: %v", err)
			}
		})
		if d > segments.DefaultIdleTimeout {
			t.Errorf("took %s", d)
		}
	})
}

// TestMemoryIsBounded: calls wait for room instead of taking more.
func TestMemoryIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		for _, friend := range f.list {
			friend.faults.Set(storagetest.Faults{Delay: time.Second})
		}
		const size = 1 << 20
		s := f.open(fourOfSix, func(c *segments.Config) {
			c.MemoryBytes = 2*size*6/4 + size/2 // two at once
			c.HedgeMin = time.Hour
		})
		done := make(chan time.Duration, 4)
		began := time.Now()
		for range 4 {
			go func() {
				if _, err := s.Put(t.Context(), randomBytes(size)); err != nil {
					t.Error(err)
				}
				done <- time.Since(began)
			}()
		}
		var ends []time.Duration
		for range 4 {
			ends = append(ends, <-done)
		}
		if ends[1] != ends[0] || ends[2] < 2*ends[0] || ends[3] != ends[2] {
			t.Errorf("ended at %v, want two and two", ends)
		}
	})
}
