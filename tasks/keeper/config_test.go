package keeper

import (
	"testing"
	"time"
)

// TestKeptUntil: a job whose plan names no retention is kept for the keeper's own.
func TestKeptUntil(t *testing.T) {
	at := func(h int) time.Time { return time.Unix(0, 0).Add(time.Duration(h) * time.Hour) }
	for _, c := range []struct {
		name      string
		retention time.Duration
		over      bool
		ended     time.Time
		want      time.Time
	}{
		{"not over", time.Hour, false, time.Time{}, at(107)},
		{"over", time.Hour, true, at(50), at(51)},
		{"names none", 0, true, at(50), at(57)},
		{"clock behind", time.Hour, true, at(2), at(11)},
		{"longer than may be", 500 * time.Hour, true, at(50), at(107)},
	} {
		p := Plan{Created: at(10), Expires: at(100), Retention: c.retention}
		if got := p.KeptUntil(c.over, c.ended, 7*time.Hour); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
