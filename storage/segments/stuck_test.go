package segments_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/storagetest"
)

// Where a stuck store stands still.
const (
	atCreate = "before it takes a shard"
	atWrite  = "in the middle"
	atCommit = "before it acknowledges"
	atCheck  = "when a sample is read back"
)

// stuck is a store that stands still at one step of each upload, and for a
// while shows signs of life now and then.
type stuck struct {
	storage.RemoteShards
	at    string
	alive bool // a byte for each half of the idle limit
}

func (s *stuck) CreateShard(ctx context.Context, h storage.SignedHeader, index int, holders []storage.Holder) (storage.ShardWriter, error) {
	if s.at == atCreate {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	w, err := s.RemoteShards.CreateShard(ctx, h, index, holders)
	if err != nil {
		return nil, err
	}
	return &stuckWriter{ShardWriter: w, s: s, ctx: ctx}, nil
}

func (s *stuck) OpenShard(ctx context.Context, id storage.ShardID, off, n int64) (storage.ShardReader, error) {
	if s.at == atCheck {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.RemoteShards.OpenShard(ctx, id, off, n)
}

type stuckWriter struct {
	storage.ShardWriter
	s        *stuck
	ctx      context.Context
	mu       sync.Mutex
	progress func()
	wrote    int
}

func (w *stuckWriter) OnProgress(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.progress = f
}

// wait lasts until the context ends.
func (w *stuckWriter) wait() error {
	ticker := time.NewTicker(segments.DefaultIdleTimeout / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			w.mu.Lock()
			if w.s.alive && w.progress != nil {
				w.progress()
			}
			w.mu.Unlock()
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
	}
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	if w.wrote += len(p); w.s.at == atWrite && w.wrote > 300<<10 {
		return 0, w.wait()
	}
	return w.ShardWriter.Write(p)
}

func (w *stuckWriter) Commit() error {
	if w.s.at == atCommit {
		return w.wait()
	}
	return w.ShardWriter.Commit()
}

// TestNoHolderHoldsUpABackup: whatever one holder stops at, and even when it
// keeps showing signs of life, the segment is committed soon, and those after
// it sooner, with others to spare or without.
func TestNoHolderHoldsUpABackup(t *testing.T) {
	for _, at := range []string{atCreate, atWrite, atCommit, atCheck} {
		for _, alive := range []bool{false, true} {
			for _, spare := range []int{0, 1} {
				name := at + map[bool]string{true: ", alive"}[alive] + map[int]string{1: ", with a spare"}[spare]
				t.Run(name, func(t *testing.T) {
					inBubble(t, func(t *testing.T) {
						f := newFriends(t, 6+spare)
						f.list[2].store = &stuck{f.list[2].memory, at, alive}
						s := f.open(fourOfSix)
						for i := range 10 {
							var put segments.Put
							d := took(func() {
								var err error
								if put, err = s.Put(t.Context(), randomBytes(2<<20+i)); err != nil {
									t.Fatal(err)
								}
							})
							if !put.Committed || put.Acked < 5 || (spare > 0 && !put.Complete) {
								t.Errorf("%+v", put)
							}
							if d > 2*segments.DefaultStragglerMin {
								t.Errorf("segment %d took %s", i, d)
							}
						}
					})
				})
			}
		}
	}
}

// TestPartialInTime: when the commit rule needs a holder that is stuck, because
// nobody else has room, the others' shards are not held up for long: the
// segment is partial, and so are those after it, sooner.
func TestPartialInTime(t *testing.T) {
	for _, at := range []string{atCreate, atWrite, atCommit} {
		for _, alive := range []bool{false, true} {
			t.Run(at, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					f := newFriends(t, 6)
					for i, friend := range f.list {
						if i < 2 {
							friend.store = &stuck{friend.memory, at, alive}
						}
						f.away[friend.peer] = i == 2
					}
					s := f.open(storage.Redundancy{K: 3, N: 6})
					var all time.Duration
					for i := range 20 {
						all += took(func() {
							put, err := s.Put(t.Context(), randomBytes(2<<20+i))
							if err != nil || put.Committed || put.Acked != 3 || put.SurvivesSites != 0 {
								t.Fatalf("%+v, %v", put, err)
							}
						})
					}
					if most := 4 * segments.DefaultCommitTimeout; all > most {
						t.Errorf("20 segments took %s", all)
					}
				})
			})
		}
	}
}

// TestStuckSource: a restore ends although the only holder of a shard that is
// needed gives a byte now and then.
func TestStuckSource(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		s := f.open(fourOfSix)
		data := randomBytes(1 << 20)
		put := f.mustPut(s, data)
		for _, h := range put.Holders[:2] {
			f.absent[h.Peer] = true
		}
		slow := f.by(put.Holders[2].Peer)
		slow.faults.Set(storagetest.Faults{Delay: segments.DefaultIdleTimeout * 9 / 10})
		d := took(func() { f.wantGet(s, put, data) }) // slow, and there
		t.Log(d)
		slow.store = &dripping{slow.memory}
		d = took(func() {
			if _, err := s.Get(t.Context(), put.ID, segments.Hint{Header: put.Header, Holders: put.Holders}); err == nil {
				t.Error("a segment came back")
			}
		})
		if d > time.Hour {
			t.Errorf("took %s", d)
		}
	})
}

// dripping is a store whose readers give a byte for each half of the idle limit.
type dripping struct{ storage.RemoteShards }

func (s *dripping) OpenShard(ctx context.Context, id storage.ShardID, off, n int64) (storage.ShardReader, error) {
	r, err := s.RemoteShards.OpenShard(ctx, id, off, n)
	if err != nil {
		return nil, err
	}
	return &drippingReader{r, ctx}, nil
}

type drippingReader struct {
	storage.ShardReader
	ctx context.Context
}

func (r *drippingReader) Read(p []byte) (int, error) {
	select {
	case <-time.After(segments.DefaultIdleTimeout / 2):
		return r.ShardReader.Read(p[:1])
	case <-r.ctx.Done():
		return 0, r.ctx.Err()
	}
}

// TestFriendsWhoAreAway: they count for the redundancy, and their shards wait
// for them while the segment commits without; when too few are here it is
// partial, and no site gets more than its limit for that.
func TestFriendsWhoAreAway(t *testing.T) {
	for away, want := range map[int]struct {
		acked     int
		committed bool
		survives  int
	}{0: {6, true, 4}, 1: {5, true, 3}, 2: {4, true, 2}, 3: {4, true, 1}, 4: {4, true, 1}, 5: {2, false, 0}} {
		inBubble(t, func(t *testing.T) {
			f := newFriends(t, 6)
			for _, friend := range f.list[:away] {
				f.away[friend.peer] = true
			}
			s := f.open(auto)
			data := randomBytes(100_000)
			put, err := s.Put(t.Context(), data)
			if err != nil || put.Redundancy != (storage.Redundancy{K: 2, N: 6}) {
				t.Fatalf("%d away: %+v, %v", away, put, err)
			}
			if put.Acked != want.acked || put.Committed != want.committed || put.SurvivesSites != want.survives {
				t.Errorf("%d away: %d acked, committed %v, survives %d", away, put.Acked, put.Committed, put.SurvivesSites)
			}
			f.wantGet(s, put, data)
			f.away = nil
			got := f.mustRebuild(s, segments.RebuildJob{Header: put.Header, Sources: put.Holders, Missing: put.Missing})
			f.whole(put, got.Holders)
			if away < 4 && got.Problem != "" {
				t.Errorf("%d were away: %+v", away, got)
			}
		})
	}
}
