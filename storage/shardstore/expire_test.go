package shardstore

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWallClockIsSlowToBelieve: whatever the clock does between two looks, a
// time counts as past only when every look of at least an hour of running time
// was not before it.
func TestWallClockIsSlowToBelieve(t *testing.T) {
	type look struct {
		wall    time.Time
		running time.Duration
	}
	rapid.Check(t, func(t *rapid.T) {
		var w wallClock
		var seen []look
		now := look{wall: time.Unix(1_700_000_000, 0)}
		for range rapid.IntRange(1, 60).Draw(t, "looks") {
			passed := time.Duration(rapid.IntRange(0, 90).Draw(t, "minutes")) * time.Minute
			jump := rapid.SampledFrom([]time.Duration{0, 0, 0, time.Hour, -time.Hour, 10 * 365 * 24 * time.Hour, -10 * 365 * 24 * time.Hour}).Draw(t, "jump")
			now = look{now.wall.Add(passed + jump), now.running + passed}
			seen = append(seen, now)
			sure := w.past(now.wall, now.running)
			if sure.IsZero() {
				continue
			}
			for i := len(seen) - 1; i >= 0; i-- {
				if seen[i].wall.Before(sure) {
					t.Fatalf("%s is past, but the clock said %s %s ago", sure, seen[i].wall, now.running-seen[i].running)
				}
				if now.running-seen[i].running >= expireAfter {
					break
				}
			}
		}
	})
}

func TestWallClockComesToBelieve(t *testing.T) {
	var w wallClock
	start := time.Unix(1_700_000_000, 0)
	for at := time.Duration(0); at <= 5*time.Hour; at += 5 * time.Minute {
		sure := w.past(start.Add(at), at)
		if late := at - sure.Sub(start); at >= expireAfter && late > 2*expireAfter+5*time.Minute {
			t.Fatalf("after %s only %s is past", at, sure.Sub(start))
		}
	}
}
