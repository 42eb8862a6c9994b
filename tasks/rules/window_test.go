package rules

import (
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zones on this machine")
	}
	at := func(text string) time.Time {
		got, err := time.ParseInLocation("2006-01-02 15:04", text, berlin)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for _, test := range []struct {
		window string
		at     string
		want   bool
	}{
		{"mon-fri 18:00-08:00", "2026-11-23 17:59", false}, // a Monday
		{"mon-fri 18:00-08:00", "2026-11-23 18:00", true},
		{"mon-fri 18:00-08:00", "2026-11-23 07:59", false}, // of Sunday's night
		{"mon-fri 18:00-08:00", "2026-11-24 07:59", true},
		{"mon-fri 18:00-08:00", "2026-11-24 08:00", false},
		{"mon-fri 18:00-08:00", "2026-11-28 07:59", true}, // Friday's night
		{"mon-fri 18:00-08:00", "2026-11-28 18:00", false},
		{"sat,sun", "2026-11-28 00:00", true},
		{"SAT,SUN", "2026-11-29 23:59", true},
		{"sat,sun", "2026-11-30 00:00", false},
		{"fri-mon", "2026-11-29 12:00", true},
		{"fri-mon", "2026-11-24 12:00", false},
		{"09:00-24:00", "2026-11-24 23:59", true},
		{"sat 22:00-00:00", "2026-11-28 23:00", true},
		{"sat 22:00-00:00", "2026-11-29 00:00", false},
		// The hour from 2 to 3 is left out on 29 March and comes twice on 25 October.
		{"sun 01:00-03:30", "2026-03-29 03:15", true},
		{"sun 02:00-03:00", "2026-03-29 01:59", false},
		{"sun 02:00-03:00", "2026-03-29 03:00", false},
	} {
		w, err := ParseWindow(test.window)
		if err != nil {
			t.Errorf("%q: %v", test.window, err)
			continue
		}
		if got := w.Covers(at(test.at)); got != test.want {
			t.Errorf("%q covers %s: %v", test.window, test.at, got)
		}
	}
	twice, _ := ParseWindow("sun 02:00-03:00")
	first := time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC).In(berlin) // 02:30 in summer time
	if !twice.Covers(first) || !twice.Covers(first.Add(time.Hour)) || twice.Covers(first.Add(2*time.Hour)) {
		t.Error("the hour that comes twice does not count twice")
	}
}

func TestWindowRefusals(t *testing.T) {
	for _, text := range []string{"", "mon-", "someday", "mon 8-9", "25:00-26:00", "08:00", "08:00-08:00", "24:00-01:00", "mon 08:00-09:00 up", "mon tue", "08:00-09:00 mon"} {
		if w, err := ParseWindow(text); err == nil {
			t.Errorf("%q is a window: %+v", text, w)
		}
	}
}

func FuzzParseWindow(f *testing.F) {
	f.Add("mon-fri 18:00-08:00")
	f.Add("sat,sun")
	f.Fuzz(func(t *testing.T, text string) {
		w, err := ParseWindow(text)
		if err == nil && w.days == [7]bool{} {
			t.Errorf("%q covers no day", text)
		}
	})
}
