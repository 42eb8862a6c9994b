package rules

import (
	"fmt"
	"strconv"
	"strings"
)

// Share is a part of a whole in percent, from 0 to 100, written 75%.
type Share float64

// Of returns the share of a number.
func (s Share) Of(n float64) float64 { return n * float64(s) / percent }

const percent = 100

// String returns the share as it is written in a configuration.
func (s Share) String() string { return strconv.FormatFloat(float64(s), 'f', -1, 64) + "%" }

// MarshalText implements encoding.TextMarshaler.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. The sign may be left out.
func (s *Share) UnmarshalText(text []byte) error {
	number := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(string(text)), "%"))
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n >= 0 && n <= percent) { // NaN is neither
		return fmt.Errorf("share %q: want a number from 0%% to 100%%", text)
	}
	*s = Share(n)
	return nil
}
