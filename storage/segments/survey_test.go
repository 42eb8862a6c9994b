package segments_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/storagetest"
)

// survey asks about one segment.
func (f *friends) survey(s *segments.Segments, ask segments.Ask) segments.Survey {
	f.t.Helper()
	surveys, err := s.Survey(f.t.Context(), []segments.Ask{ask})
	if err != nil || len(surveys) != 1 || surveys[0].ID != ask.ID {
		f.t.Fatalf("survey: %+v, %v", surveys, err)
	}
	return surveys[0]
}

func askOf(put segments.Put) segments.Ask {
	return segments.Ask{ID: put.ID, N: put.Redundancy.N, Holders: put.Holders}
}

// TestSurvey: who has a shard, who says no and who does not answer are told
// apart, and shards that moved are found.
func TestSurvey(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 9)
		s := f.open(fourOfSix)
		put := f.mustPut(s, randomBytes(10_000))
		if v := f.survey(s, askOf(put)); v.All || len(v.Stored()) != 6 || len(v.Refused)+len(v.Silent) > 0 {
			t.Errorf("all there: %+v", v)
		}
		id := func(i int) storage.ShardID { return storage.ShardID{Segment: put.ID, Index: i} }
		holder := func(i int) *friend { return f.by(put.Holders[i].Peer) }
		f.absent[holder(0).peer] = true
		holder(1).store = hanging{deaf: f.testEnds()}
		if err := holder(2).memory.DeleteShard(t.Context(), id(2)); err != nil {
			t.Fatal(err)
		}
		holder(3).memory.Damage(id(3))
		_, _ = holder(3).memory.OpenShard(t.Context(), id(3), 0, -1) // notices
		var v segments.Survey
		if d := took(func() { v = f.survey(s, askOf(put)) }); d != segments.DefaultAskTimeout {
			t.Errorf("took %s", d)
		}
		if len(v.Stored()) != 2 || v.All || v.Deleted {
			t.Errorf("%+v", v)
		}
		if want := []int{2, 3}; !slices.Equal(shardsOf(v.Refused), want) {
			t.Errorf("refused: %+v", v.Refused)
		}
		if want := []int{0, 1}; !slices.Equal(shardsOf(v.Silent), want) {
			t.Errorf("silent: %+v", v.Silent)
		}
		if len(v.Shards[3]) != 1 || v.Shards[3][0].State != storage.ShardBad {
			t.Errorf("bad shard: %+v", v.Shards[3])
		}
	})
}

func shardsOf(holders []storage.Holder) (out []int) {
	for _, h := range holders {
		out = append(out, h.Shard)
	}
	return out
}

// TestSurveyWithoutHints finds everything, by asking everybody.
func TestSurveyWithoutHints(t *testing.T) {
	f := newFriends(t, 9)
	s := f.open(fourOfSix)
	put := f.mustPut(s, randomBytes(10_000))
	v := f.survey(s, segments.Ask{ID: put.ID})
	if got := shardsOf(v.Stored()); !slices.Equal(got, []int{0, 1, 2, 3, 4, 5}) || v.All {
		t.Errorf("%+v", v) // the device itself has no store here
	}
	v = f.survey(s, segments.Ask{ID: storage.SegmentID{1}, N: 3, Holders: put.Holders})
	if len(v.Stored()) > 0 || len(v.Refused) != 3 {
		t.Errorf("unknown segment: %+v", v)
	}
}

// TestSurveyOfMany: a peer that hangs costs its time once, not with each batch.
func TestSurveyOfMany(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 8)
		f.list[7].store = hanging{}
		s := f.open(storage.Redundancy{K: 1, N: 2})
		var asks []segments.Ask
		for i := range 2500 {
			asks = append(asks, segments.Ask{ID: storage.SegmentID(storagetest.Vault(fmt.Sprint(i))), N: 2})
		}
		put := f.mustPut(s, randomBytes(1000))
		asks[1234] = askOf(put)
		d := took(func() {
			surveys, err := s.Survey(t.Context(), asks)
			if err != nil || len(surveys) != len(asks) {
				t.Fatal(len(surveys), err)
			}
			for i, v := range surveys {
				if v.ID != asks[i].ID || (len(v.Stored()) == 2) != (i == 1234) {
					t.Errorf("%d: %+v", i, v)
				}
			}
		})
		if d > segments.DefaultAskTimeout {
			t.Errorf("took %s", d)
		}
	})
}

// lying answers Have with whatever it likes.
type lying struct {
	storage.RemoteShards
	answer func(ids []storage.SegmentID) []storage.SegmentAnswer
}

func (l lying) Have(_ context.Context, ids []storage.SegmentID) ([]storage.SegmentAnswer, error) {
	return l.answer(ids), nil
}

// TestSurveyOfLiars: whatever one peer answers, the others' answers stand.
func TestSurveyOfLiars(t *testing.T) {
	for name, answer := range map[string]func(ids []storage.SegmentID) []storage.SegmentAnswer{
		"nothing": func([]storage.SegmentID) []storage.SegmentAnswer { return nil },
		"too many": func(ids []storage.SegmentID) []storage.SegmentAnswer {
			return make([]storage.SegmentAnswer, len(ids)+1)
		},
		"another": func(ids []storage.SegmentID) []storage.SegmentAnswer { return make([]storage.SegmentAnswer, len(ids)) },
		"indexes": func(ids []storage.SegmentID) []storage.SegmentAnswer {
			return []storage.SegmentAnswer{{Segment: ids[0], Shards: []storage.ShardAnswer{{Index: -1, State: "stored"}, {Index: 1 << 30, State: "stored"}}}}
		},
		"holders": func(ids []storage.SegmentID) []storage.SegmentAnswer {
			return []storage.SegmentAnswer{{Segment: ids[0], Holders: []storage.Holder{
				{Shard: 0, Peer: storagetest.Peer("nobody"), Epoch: math.MaxUint32}, {Shard: -4, Peer: storagetest.Peer("x")}, {Shard: 99},
			}}}
		},
		"huge": func(ids []storage.SegmentID) []storage.SegmentAnswer {
			return []storage.SegmentAnswer{{Segment: ids[0], Shards: make([]storage.ShardAnswer, 1000)}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFriends(t, 6)
			s := f.open(fourOfSix)
			put := f.mustPut(s, randomBytes(10_000))
			liar := f.by(put.Holders[5].Peer)
			liar.store = lying{liar.memory, answer}
			v := f.survey(s, askOf(put))
			if got := shardsOf(v.Stored()); !slices.Equal(got, []int{0, 1, 2, 3, 4}) {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestSurveyEndsWithItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 3)
		for _, friend := range f.list {
			friend.store = hanging{deaf: f.testEnds()}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.open(auto).Survey(ctx, []segments.Ask{{ID: storage.SegmentID{1}}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
