package node

import (
	"fmt"
	"strings"
	"time"

	"gotong/tasks/rules"
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
	window   rules.Window
	up, down *Size // nil: as without the entry
}

// parseHours reads "[DAYS] HH:MM-HH:MM [up SIZE] [down SIZE]" with days such as
// mon-fri or sat,sun; the hours of a whole day may be left out.
func parseHours(text string) (h hours, err error) {
	fail := fmt.Errorf("%q is not [DAYS] HH:MM-HH:MM [up SIZE] [down SIZE], such as mon-fri 08:00-23:00 up 500kB down 2MB", text)
	window, words, err := rules.CutWindow(text)
	if err != nil || len(words) == 0 || len(words)%2 != 0 {
		return h, fail
	}
	h.window = window
	for ; len(words) > 0; words = words[2:] {
		size := new(Size)
		if err := size.UnmarshalText([]byte(words[1])); err != nil {
			return h, err
		}
		switch {
		case *size > 0 && *size < minRate:
			return h, fmt.Errorf("%s in %q is less than %s", *size, text, Size(minRate))
		case words[0] == "up" && h.up == nil:
			h.up = size
		case words[0] == "down" && h.down == nil:
			h.down = size
		default:
			return h, fail
		}
	}
	return h, nil
}

// At returns the limits that hold at a time, 0 for none.
func (c NetworkConfig) At(t time.Time) (up, down Size) {
	up, down = c.Up, c.Down
	for _, text := range c.Limits {
		h, err := parseHours(text)
		if err != nil || !h.window.Covers(t) { // the configuration was validated
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
