package node

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// ParseOwnerLimit reads one entry of store.owners: NAME_OR_ID=SIZE.
func ParseOwnerLimit(text string) (owner string, limit Size, err error) {
	owner, size, ok := cutLast(text, "=")
	if owner = strings.TrimSpace(owner); !ok || owner == "" {
		return "", 0, fmt.Errorf("%q is not NAME_OR_ID=SIZE, such as nas=500GB", text)
	}
	err = limit.UnmarshalText([]byte(strings.TrimSpace(size)))
	return owner, limit, err
}

// cutLast cuts around the last sep: names may hold anything.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// NetworkConfig bounds what goes over the network between peers, in bytes a
// second. Gossip, which is little, does not count.
type NetworkConfig struct {
	Up     Size     `mapstructure:"up"`     // sent to all peers together; 0: no limit
	Down   Size     `mapstructure:"down"`   // received from all peers together; 0: no limit
	Limits []string `mapstructure:"limits"` // other limits at times of the day; the first that covers a time holds
}

// minRate is the least limit: with less, connections do not stay up.
const minRate = 16e3

// hours is one entry of network.limits.
type hours struct {
	days     [7]bool // on which it begins, by time.Weekday
	from, to int     // minutes of the day; past midnight when from is not below to
	up, down *Size   // nil: as without the entry
}

var weekdays = [7]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// parseHours reads "[DAYS] HH:MM-HH:MM [up SIZE] [down SIZE]" with days such as
// mon-fri or sat,sun.
func parseHours(text string) (h hours, err error) {
	fail := fmt.Errorf("%q is not [DAYS] HH:MM-HH:MM [up SIZE] [down SIZE], such as mon-fri 08:00-23:00 up 500kB down 2MB", text)
	words := strings.Fields(strings.ToLower(text))
	for i := range h.days {
		h.days[i] = true
	}
	if len(words) > 0 && !strings.Contains(words[0], ":") {
		if h.days, err = parseDays(words[0]); err != nil {
			return h, fail
		}
		words = words[1:]
	}
	if len(words) < 3 || len(words)%2 == 0 {
		return h, fail
	}
	from, to, ok := strings.Cut(words[0], "-")
	var fromErr, toErr error
	h.from, fromErr = parseClock(from)
	h.to, toErr = parseClock(to)
	if !ok || fromErr != nil || toErr != nil || h.from == dayMinutes || h.from == h.to {
		return h, fail
	}
	for rest := words[1:]; len(rest) > 0; rest = rest[2:] {
		size := new(Size)
		if err := size.UnmarshalText([]byte(rest[1])); err != nil {
			return h, err
		}
		switch {
		case *size > 0 && *size < minRate:
			return h, fmt.Errorf("%s in %q is less than %s", *size, text, Size(minRate))
		case rest[0] == "up" && h.up == nil:
			h.up = size
		case rest[0] == "down" && h.down == nil:
			h.down = size
		default:
			return h, fail
		}
	}
	return h, nil
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
			i = (i + 1) % 7
		}
	}
	return days, nil
}

const dayMinutes = 24 * 60

// parseClock reads HH:MM, 24:00 included, as minutes of the day.
func parseClock(text string) (int, error) {
	if text == "24:00" {
		return dayMinutes, nil
	}
	t, err := time.Parse("15:04", text)
	return t.Hour()*60 + t.Minute(), err
}

// covers reports whether the entry holds at a time, by what the clock on the
// wall of this machine shows: an hour that comes twice counts twice.
func (h hours) covers(t time.Time) bool {
	minute, today := t.Hour()*60+t.Minute(), t.Weekday()
	if h.from < h.to {
		return h.days[today] && h.from <= minute && minute < h.to
	}
	yesterday := (today + 6) % 7
	return h.days[today] && minute >= h.from || h.days[yesterday] && minute < h.to
}

// At returns the limits that hold at a time, 0 for none.
func (c NetworkConfig) At(t time.Time) (up, down Size) {
	up, down = c.Up, c.Down
	for _, text := range c.Limits {
		h, err := parseHours(text)
		if err != nil || !h.covers(t) { // the configuration was validated
			continue
		}
		if h.up != nil {
			up = *h.up
		}
		if h.down != nil {
			down = *h.down
		}
		break
	}
	return up, down
}

func (c NetworkConfig) validate(fault func(key, format string, args ...any)) {
	for key, size := range map[string]Size{"network.up": c.Up, "network.down": c.Down} {
		if size > 0 && size < minRate {
			fault(key, "%s is less than %s", size, Size(minRate))
		}
	}
	for _, text := range c.Limits {
		if _, err := parseHours(text); err != nil {
			fault("network.limits", "%w", err)
		}
	}
}
