package node

import (
	"testing"
	"time"
)

// TestLimitsByHour: the first entry that covers the time on the wall holds, past
// midnight and through the hours that daylight saving skips or repeats.
func TestLimitsByHour(t *testing.T) {
	c := NetworkConfig{Up: 1e6, Limits: []string{
		"sat,sun 10:00-12:00 up 0B", "mon-fri 22:00-02:00 up 100kB down 200kB", "08:00-23:00 up 500kB", "02:00-02:30 down 3MB",
	}}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zones here: ", err)
	}
	for _, test := range []struct {
		at       string // local
		up, down Size
	}{
		{"2026-11-20 07:59", 1e6, 0},       // Friday
		{"2026-11-20 08:00", 500e3, 0},     //
		{"2026-11-20 21:59", 500e3, 0},     //
		{"2026-11-20 22:00", 100e3, 200e3}, //
		{"2026-11-21 01:59", 100e3, 200e3}, // Saturday, begun on Friday
		{"2026-11-21 02:00", 1e6, 3e6},     //
		{"2026-11-21 02:30", 1e6, 0},       //
		{"2026-11-21 11:00", 0, 0},         //
		{"2026-11-21 22:30", 500e3, 0},     // not on Saturdays
		{"2026-11-22 01:00", 1e6, 0},       //
		{"2026-11-23 01:00", 1e6, 0},       // Monday, begun on Sunday: no
		{"2026-03-29 03:10", 1e6, 0},       // 02:00–03:00 does not exist
		{"2026-10-25 02:10", 1e6, 3e6},     // exists twice
	} {
		at, err := time.ParseInLocation("2006-01-02 15:04", test.at, berlin)
		if err != nil {
			t.Fatal(err)
		}
		if up, down := c.At(at); up != test.up || down != test.down {
			t.Errorf("%s: up %s down %s, want %s and %s", test.at, up, down, test.up, test.down)
		}
	}
	second := time.Date(2026, 10, 25, 1, 10, 0, 0, time.UTC).In(berlin) // the second 02:10
	if _, down := c.At(second); down != 3e6 {
		t.Errorf("%s: down %s", second, down)
	}
}

func TestHoursFaults(t *testing.T) {
	for _, text := range []string{
		"", "08:00-23:00", "8-23 up 1MB", "08:00-25:00 up 1MB", "08:00 up 1MB", "24:00-01:00 up 1MB", "08:00-08:00 up 1MB",
		"08:00-09:00 up", "08:00-09:00 up 1MB up 2MB", "08:00-09:00 sideways 1MB", "08:00-09:00 up lots", "08:00-09:00 up 1kB",
		"someday 08:00-09:00 up 1MB", "mon- 08:00-09:00 up 1MB",
	} {
		if h, err := parseHours(text); err == nil {
			t.Errorf("%q was read as %+v", text, h)
		}
	}
	for _, text := range []string{"00:00-24:00 up 1MB", "fri-mon 23:00-07:00 down 1MB up 0B", "Mon,Wed 09:00-10:00 up 64KiB"} {
		if _, err := parseHours(text); err != nil {
			t.Error(err)
		}
	}
}
