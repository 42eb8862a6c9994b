package repair

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"gotong/storage"
)

// TestSlicesReachAll: rounds that go on where the last one ended look at every
// segment, each once in a sweep, and within the part of the grace that is meant.
func TestSlicesReachAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.IntRange(0, 300).Draw(t, "total")
		limit := rapid.IntRange(1, 100).Draw(t, "limit")
		var all []storage.SegmentID
		for i := range total {
			all = append(all, storage.SegmentID{byte(i * 7), byte(i >> 8), byte(i)})
		}
		seen := map[storage.SegmentID]int{}
		var cursor storage.SegmentID
		for range (total + limit - 1) / limit {
			next := slice(slices.Clone(all), cursor, limit)
			if len(next) != min(limit, total) {
				t.Fatalf("%d of %d segments, want %d", len(next), total, limit)
			}
			for _, id := range next {
				seen[id]++
			}
			cursor = next[len(next)-1]
		}
		if len(seen) != total {
			t.Fatalf("%d of %d segments were looked at", len(seen), total)
		}
	})
}

func TestRoundsAreSmallAndSoonEnough(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		total int
		hurry bool
		want  int
	}{
		{0, false, 1}, {RoundSegments, false, 1}, {100_000, false, 2}, {100_000, true, 25}, {1_000_000, false, 11},
	} {
		got := batches(c.total, 15*time.Minute, day, c.hurry)
		if got != c.want {
			t.Errorf("%d segments, hurry %v: %d portions in a round, want %d", c.total, c.hurry, got, c.want)
		}
		rounds := (c.total + got*RoundSegments - 1) / (got * RoundSegments)
		if all := time.Duration(rounds) * 15 * time.Minute; all > day/sweepPart {
			t.Errorf("%d segments are seen within %s only", c.total, all)
		}
	}
}

// TestBudgetKeepsRate: pieces asked for by several at once take the time that
// the rate gives them together.
func TestBudgetKeepsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget{rate: 1000}
		start := time.Now()
		for range 10 {
			if err := b.wait(t.Context(), 500); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 4500*time.Millisecond {
			t.Errorf("the tenth piece began after %s", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.wait(ctx, 1); err == nil {
			t.Error("a wait went on without its context")
		}
	})
}

// TestScrubKeepsItsPeriod: at an even pace all shards are read within the period,
// and never in more than half of the time.
func TestScrubKeepsItsPeriod(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shards := rapid.IntRange(1, 1000).Draw(t, "shards")
		took := time.Duration(rapid.Int64Range(1, int64(time.Second)).Draw(t, "took"))
		rest := time.Duration(shards) * 4 * took
		var passed time.Duration
		for left := shards - 1; left >= 0; left-- {
			passed += took
			wait := scrubWait(took, rest-passed, left)
			if wait < took {
				t.Fatalf("read %s, waited %s", took, wait)
			}
			passed += wait
		}
		if passed > rest+2*took {
			t.Fatalf("%d shards took %s of %s", shards, passed, rest)
		}
	})
}

// TestScrubGoesOn: the place behind a shard is behind it and before the next.
func TestScrubGoesOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := storage.ShardID{Segment: storage.SegmentID(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "id")), Index: rapid.IntRange(0, storage.MaxShards-1).Draw(t, "index")}
		if id.Segment == (storage.SegmentID{}) {
			return
		}
		last := true
		for _, b := range id.Segment {
			last = last && b == 0xff
		}
		if next := after(id); !last && !before(id, next) {
			t.Fatalf("%s is not behind %s", next, id)
		}
	})
}
