package scheduler

import "math"

// detectExact is the share below which DetectWithin estimates.
const detectExact = 1e-3

// DetectWithin returns within how many results VerifyAdaptive finds a peer that
// falsifies a share (0 … 1] of its results, except for a probability of risk
// (0 … 1), when so many of its checked results in a row were right at first.
// Results count once they were checked or accepted unchecked.
//
// Each result is checked with a probability q that the peer does not know, so
// one is found false with q·share, and n results pass with ∏(1 − qᵢ·share):
// spot-checking as analysed by Sarmenta (Sabotage-tolerance mechanisms for
// volunteer computing systems, 2002), who has one q; here it falls with the
// checks that passed, so the distribution over the trust reached is followed
// step by step. For small shares the bound with q = checkFloor throughout is
// returned: ln(1/risk) ÷ (checkFloor·share).
func DetectWithin(share, risk float64, trust int) int {
	if share < detectExact {
		return int(math.Ceil(math.Log(1/risk) / (checkFloor * share)))
	}
	steady := int(trustAfter/checkFloor) + 1 // checkShare falls no further
	at := make([]float64, steady+1)          // probability to be unfound with this trust
	at[min(max(trust, 0), steady)] = 1
	for n := 1; ; n++ {
		unfound := 0.0
		for t := steady; t >= 0; t-- {
			q := checkShare(t)
			passed := at[t] * q * (1 - share)
			at[t] *= 1 - q
			at[min(t+1, steady)] += passed
		}
		for _, p := range at {
			unfound += p
		}
		if unfound <= risk {
			return n
		}
	}
}
