package contents_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/storagetest"
	"gotong/tasks"
	"gotong/tasks/contents"
)

const piece = tasks.StoredPieceBytes

func TestRoundTrip(t *testing.T) {
	for _, sites := range []int{1, 2, 3, 5, 8} {
		for _, size := range []int{1, 100_000, piece + 1} {
			if size > piece && sites != 5 {
				continue
			}
			all := newHolders(sites)
			job, data := newJob(t), random(size)
			s := put(t, all.by(t, owner), job, data)
			job.Grant = nil // not needed to read
			want(t, all.by(t, worker), job, data, s)
		}
	}
}

// TestManyPieces: more pieces than are fetched at once, of which some holders
// are dead, lie or hang, come from several others, and memory is used again.
func TestManyPieces(t *testing.T) {
	all := newHolders(8) // 3 of 8
	job, data := newJob(t), random(6*piece+5)
	s := put(t, all.by(t, worker), job, data)
	if len(s.Segments) != 7 || len(s.Holders) != 8 {
		t.Fatalf("%d segments at %d holders", len(s.Segments), len(s.Holders))
	}
	all[1].faults.Set(storagetest.Faults{Down: grid.ErrUnreachable})
	all[4].faults.Set(storagetest.Faults{Down: grid.ErrUnreachable})
	all[6].faults.Set(storagetest.Faults{Garbage: true})
	want(t, all.by(t, owner), job, data, s)
	from := 0
	for _, h := range all {
		if h.opened.Load() > 0 {
			from++
		}
	}
	if from < 4 {
		t.Errorf("read from %d holders", from)
	}
}

// TestHintsAreOnlyHints: without holders, with strangers and with liars among
// them a content is found.
func TestHintsAreOnlyHints(t *testing.T) {
	all := newHolders(5)
	job, data := newJob(t), random(100_000)
	s := put(t, all.by(t, owner), job, data)
	c := all.by(t, worker)
	for name, holders := range map[string][]grid.PeerID{
		"none": nil, "strangers": {{1}, {2}}, "one": s.Holders[:1], "those that do not have it": {worker.Peer},
	} {
		t.Run(name, func(t *testing.T) {
			hinted := s
			hinted.Holders = holders
			want(t, c, job, data, hinted)
		})
	}
}

// TestNothingWrongIsRead: what is not the content under this id, key and job
// ends in an error.
func TestNothingWrongIsRead(t *testing.T) {
	all := newHolders(4)
	c, job := all.by(t, owner), newJob(t)
	data, other := random(1000), random(1001)
	s, otherAt := put(t, c, job, data), put(t, c, job, other)
	for name, try := range map[string]func() ([]byte, error){
		"other key": func() ([]byte, error) { j := job; j.Key[5]++; return get(t, c, j, idOf(data), s) },
		"other job": func() ([]byte, error) { j := job; j.ID[5]++; return get(t, c, j, idOf(data), s) },
		"other id":  func() ([]byte, error) { return get(t, c, job, idOf(other), s) },
		"other segment": func() ([]byte, error) {
			return get(t, c, job, idOf(data), tasks.Stored{Segments: otherAt.Segments, Size: s.Size})
		},
		"other size": func() ([]byte, error) {
			return get(t, c, job, idOf(data), tasks.Stored{Segments: s.Segments, Size: 999})
		},
	} {
		if got, err := try(); err == nil || len(got) > 0 || !(errors.Is(err, storage.ErrCorrupt) || errors.Is(err, tasks.ErrContent)) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	for name, spoil := range map[string]func(*tasks.Stored, *contents.Job){
		"no key":        func(_ *tasks.Stored, j *contents.Job) { j.Key = tasks.Key{} },
		"no segments":   func(s *tasks.Stored, _ *contents.Job) { s.Segments = nil },
		"too many":      func(s *tasks.Stored, _ *contents.Job) { s.Segments = slices.Repeat(s.Segments, 2) },
		"negative":      func(s *tasks.Stored, _ *contents.Job) { s.Size = -1 },
		"many holders":  func(s *tasks.Stored, _ *contents.Job) { s.Holders = make([]grid.PeerID, 100) },
		"endless size":  func(s *tasks.Stored, _ *contents.Job) { s.Size = 1 << 62 },
		"unknown there": func(s *tasks.Stored, _ *contents.Job) { s.Segments = []storage.SegmentID{{9}} },
	} {
		spoilt, j := s, job
		spoil(&spoilt, &j)
		if _, err := get(t, c, j, idOf(data), spoilt); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

func TestSourcesThatAreNotWhatTheySay(t *testing.T) {
	all := newHolders(3)
	c, job, data := all.by(t, owner), newJob(t), random(5000)
	for name, from := range map[string]io.Reader{
		"shorter": bytes.NewReader(data[:4000]),
		"longer":  bytes.NewReader(append(bytes.Clone(data), 1)),
		"other":   bytes.NewReader(random(5000 - 1)),
		"empty":   bytes.NewReader(nil),
	} {
		if _, err := c.Put(t.Context(), job, idOf(data), int64(len(data)), from); !errors.Is(err, tasks.ErrContent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("disk fell off")
	from := io.MultiReader(bytes.NewReader(data[:100]), errReader{broken})
	if _, err := c.Put(t.Context(), job, idOf(data), int64(len(data)), from); !errors.Is(err, broken) {
		t.Errorf("broken: %v", err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestWhoMayNotStore(t *testing.T) {
	all := newHolders(3)
	c, good, data := all.by(t, owner), newJob(t), random(100)
	for name, spoil := range map[string]func(*contents.Job){
		"no grant":     func(j *contents.Job) { j.Grant = nil },
		"of other job": func(j *contents.Job) { j.ID[0]++ },
		"no key":       func(j *contents.Job) { j.Key = tasks.Key{} },
		"a delegation": func(j *contents.Job) { j.Grant = owner.Grant },
	} {
		job := good
		spoil(&job)
		if _, err := c.Put(t.Context(), job, idOf(data), 100, bytes.NewReader(data)); !errors.Is(err, storage.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Put(t.Context(), good, idOf(nil), 0, bytes.NewReader(nil)); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("nothing: %v", err)
	}
}

// TestNowhere: alone, and where all refuse, there is a reason and no wait.
func TestNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job, data := newJob(t), random(100)
		alone := newHolders(0).by(t, owner)
		if _, err := alone.Put(t.Context(), job, idOf(data), 100, bytes.NewReader(data)); !errors.Is(err, contents.ErrNowhere) {
			t.Errorf("alone: %v", err)
		}
		all := newHolders(3)
		for _, h := range all {
			h.faults.Set(storagetest.Faults{Create: storage.ErrQuota})
		}
		began := time.Now()
		_, err := all.by(t, owner).Put(t.Context(), job, idOf(data), 100, bytes.NewReader(data))
		if !errors.Is(err, storage.ErrQuota) || errors.Is(err, contents.ErrNowhere) || time.Since(began) > time.Minute {
			t.Errorf("quota used up: %v after %s", err, time.Since(began))
		}
	})
}

// TestHoldersThatComeBack: a piece that nobody took is tried again.
func TestHoldersThatComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, job, data := newHolders(3), newJob(t), random(100)
		for _, h := range all {
			h.faults.Set(storagetest.Faults{Down: grid.ErrUnreachable})
		}
		time.AfterFunc(time.Second, func() {
			for _, h := range all {
				h.faults.Set(storagetest.Faults{})
			}
		})
		s := put(t, all.by(t, owner), job, data)
		want(t, all.by(t, worker), job, data, s)
	})
}

// TestReadersThatGiveUp: nothing goes on after Close or the end of the context.
func TestReadersThatGiveUp(t *testing.T) {
	job, data := newJob(t), random(5*piece)
	all := newHolders(3)
	s := put(t, all.by(t, owner), job, data)
	synctest.Test(t, func(t *testing.T) {
		for _, h := range all {
			h.faults.Set(storagetest.Faults{Delay: time.Second})
		}
		c := all.by(t, worker)
		for range 3 { // more than there are tokens
			r, err := c.Open(t.Context(), job, idOf(data), s)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			r.Close()
			if _, err := r.Read(make([]byte, 1)); err == nil {
				t.Error("read after Close")
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		r, err := c.Open(ctx, job, idOf(data), s)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		cancel()
		if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

// TestSegmentsSayWhenTheyExpire, so that holders can free them.
func TestSegmentsSayWhenTheyExpire(t *testing.T) {
	all, job, data := newHolders(3), newJob(t), random(100)
	g, _ := storage.OpenJobGrant(job.Grant)
	sooner := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	for given, expires := range map[time.Time]time.Time{{}: g.Expires, sooner: sooner, g.Expires.Add(time.Hour): g.Expires} {
		job.Expires = given
		s := put(t, all.by(t, worker), job, data)
		r, err := all[0].faults.OpenShard(t.Context(), storage.ShardID{Segment: s.Segments[0], Index: shardAt(t, all[0], s)}, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		h := r.Header()
		r.Close()
		if !h.Expires.Equal(expires) || h.Owner != owner.Owner || h.Signer != worker.Peer || h.Vault != storage.VaultID(job.ID) {
			t.Errorf("expires %s, want %s; owner %s", h.Expires, expires, h.Owner.Short())
		}
	}
}

// shardAt returns which shard of the first segment a holder has.
func shardAt(t *testing.T, h *holder, s tasks.Stored) int {
	t.Helper()
	answers, err := h.faults.Have(t.Context(), s.Segments[:1])
	if err != nil || len(answers[0].Shards) == 0 {
		t.Fatalf("%+v, %v", answers, err)
	}
	return answers[0].Shards[0].Index
}

func TestBytesCoverWhatIsStored(t *testing.T) {
	for _, size := range []int{1, 1000, piece, piece + 1} {
		all, job := newHolders(10), newJob(t) // 4 of 10
		s := put(t, all.by(t, owner), job, random(size))
		stored := int64(0)
		for _, id := range s.Segments {
			answers, _ := all[0].faults.Have(t.Context(), []storage.SegmentID{id})
			for _, shard := range answers[0].Shards {
				r, err := all[0].faults.OpenShard(t.Context(), storage.ShardID{Segment: id, Index: shard.Index}, 0, 0)
				if err != nil {
					t.Fatal(err)
				}
				stored += int64(r.Header().ShardBytes * r.Header().Redundancy.K)
				r.Close()
			}
		}
		if stored == 0 || stored > contents.Bytes(int64(size)) {
			t.Errorf("%d bytes take %d, said to be at most %d", size, stored, contents.Bytes(int64(size)))
		}
	}
}
