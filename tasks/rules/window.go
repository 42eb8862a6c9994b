package rules

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Window is a part of the week: days, and hours on each of them that may reach
// into the next day. It goes by what the clock on the wall shows: an hour that
// comes twice counts twice, one that is left out is missed.
type Window struct {
	days     [7]bool // on which it begins, by time.Weekday
	from, to int     // minutes of the day; past midnight when from is not below to
}

// dayMinutes is the end of a day as parseClock writes it.
const dayMinutes = 24 * 60

var weekdays = [7]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// ParseWindow reads "[DAYS] [HH:MM-HH:MM]", such as mon-fri 18:00-08:00, sat,sun
// or 22:00-06:00. Without days it is every day, without hours the whole day.
func ParseWindow(text string) (Window, error) {
	w, rest, err := CutWindow(text)
	if err == nil && len(rest) > 0 {
		err = windowError(text)
	}
	return w, err
}

func windowError(text string) error {
	return fmt.Errorf("%q is not [DAYS] [HH:MM-HH:MM], such as mon-fri 18:00-08:00 or sat,sun", text)
}

// CutWindow reads a window from the start of text and returns the words that
// follow it, in lower case.
func CutWindow(text string) (w Window, rest []string, err error) {
	rest = strings.Fields(strings.ToLower(text))
	for i := range w.days {
		w.days[i] = true
	}
	w.to = dayMinutes
	begun := false
	if len(rest) > 0 {
		if days, err := parseDays(rest[0]); err == nil {
			w.days, rest, begun = days, rest[1:], true
		}
	}
	if len(rest) > 0 && strings.Contains(rest[0], ":") {
		if w.from, w.to, err = parseHours(rest[0]); err != nil {
			return Window{}, nil, windowError(text)
		}
		rest, begun = rest[1:], true
	}
	if !begun {
		return Window{}, nil, windowError(text)
	}
	return w, rest, nil
}

func parseHours(text string) (from, to int, err error) {
	first, last, ok := strings.Cut(text, "-")
	from, fromErr := parseClock(first)
	to, toErr := parseClock(last)
	if !ok || fromErr != nil || toErr != nil || from == dayMinutes || from == to {
		return 0, 0, fmt.Errorf("%q is not HH:MM-HH:MM", text)
	}
	return from, to, nil
}

func parseDays(text string) (days [7]bool, err error) {
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		i, j := slices.Index(weekdays[:], first), slices.Index(weekdays[:], last)
		if i < 0 || j < 0 {
			return days, fmt.Errorf("%q is no day", part)
		}
		for days[i] = true; i != j; days[i] = true {
			i = (i + 1) % len(weekdays)
		}
	}
	return days, nil
}

// parseClock reads HH:MM, 24:00 included, as minutes of the day.
func parseClock(text string) (int, error) {
	if text == "24:00" {
		return dayMinutes, nil
	}
	t, err := time.Parse("15:04", text)
	return t.Hour()*60 + t.Minute(), err
}

// Covers reports whether t, in its own time zone, is in the window.
func (w Window) Covers(t time.Time) bool {
	minute, today := t.Hour()*60+t.Minute(), int(t.Weekday())
	if w.from < w.to {
		return w.days[today] && w.from <= minute && minute < w.to
	}
	yesterday := (today + len(weekdays) - 1) % len(weekdays)
	return w.days[today] && minute >= w.from || w.days[yesterday] && minute < w.to
}
