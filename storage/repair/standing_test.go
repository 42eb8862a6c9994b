package repair

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestDetectionIsWhatHappens compares the formula with holders that dropped a
// share and are challenged at random.
func TestDetectionIsWhatHappens(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, share := range []float64{0.02, 0.1, 0.5, 1} {
		challenges := 1
		for Detection(share, challenges) < 0.99 {
			challenges++
		}
		const trials = 5000
		found := 0
		for range trials {
			for range challenges {
				if rng.Float64() < share {
					found++
					break
				}
			}
		}
		if rate := float64(found) / trials; rate < 0.98 {
			t.Errorf("share %v: found in %v of the trials", share, rate)
		}
	}
}

func TestGradesFallAndRecover(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var s Standing
	add := func(n int, o Outcome) {
		for range n {
			now = now.Add(time.Hour)
			s.note(Event{At: now, Outcome: o})
		}
	}
	want := func(g Grade) {
		t.Helper()
		if got := s.Grade(now); got != g {
			t.Errorf("%s, want %s: %s", got, g, s.Explain(now))
		}
	}
	want(GradeNew)
	add(10, OutcomeSuccess)
	want(GradeGood)
	add(10, OutcomeAway)
	want(GradeGood) // a laptop may be closed
	add(6, OutcomeTimeout)
	want(GradeFair)
	add(1, OutcomeWrong)
	want(GradePoor)
	add(8, OutcomeMissing)
	want(GradeBad)
	for previous, steps := s.Grade(now), 0; previous != GradeGood; steps++ {
		if steps > 2*maxEvents {
			t.Fatalf("still %s after %d successes", previous, steps)
		}
		add(1, OutcomeSuccess)
		previous = s.Grade(now)
	}
}
