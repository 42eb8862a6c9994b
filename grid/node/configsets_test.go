package node

import (
	"testing"
	"time"
)

func TestPeriod(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"90m": 90 * time.Minute, "6h": 6 * time.Hour, "1d": day, "2w": 14 * day, "1y": 365 * day, "1y2w3d4h": (365+14+3)*day + 4*time.Hour, "0s": 0,
	} {
		got, err := ParsePeriod(text)
		if err != nil || time.Duration(got) != want {
			t.Errorf("%s: %v, %v", text, time.Duration(got), err)
		}
		if again, err := ParsePeriod(got.String()); err != nil || again != got {
			t.Errorf("%s is written as %q, which is %v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "6", "often", "-3h", "d", "999999y", "1d2", "3h1d", "1d1d1d1d1d1dx", "200y200y", "150y1000000h"} {
		if got, err := ParsePeriod(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
	for period, want := range map[Period]string{Period(6 * time.Hour): "6h", Period(90 * time.Minute): "1h30m", Period(30 * day): "30d", Period(time.Minute): "1m"} {
		if got := period.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzPeriod(f *testing.F) {
	f.Add("1y2w3d4h")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePeriod(text)
		if err != nil {
			return
		}
		if again, err := ParsePeriod(p.String()); err != nil || again != p || p < 0 {
			t.Errorf("%q: %v, then %v, %v", text, p, again, err)
		}
	})
}
