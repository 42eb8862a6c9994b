package scheduler

import (
	"slices"
	"time"
)

// sampleSize is how many of the last durations a sample keeps.
const sampleSize = 101

// sample keeps the last durations of a series. The zero value is empty.
type sample struct {
	values []time.Duration
	at     int
}

func (s *sample) add(d time.Duration) {
	if len(s.values) < sampleSize {
		s.values = append(s.values, d)
		return
	}
	s.values[s.at] = d
	s.at = (s.at + 1) % sampleSize
}

// median returns the middle of the kept durations, false when there are none.
func (s *sample) median() (time.Duration, bool) {
	if len(s.values) == 0 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(s.values))
	return sorted[len(sorted)/2], true
}
