package batch

import (
	"strconv"
	"strings"
)

// Halt says when a batch ends before all its tasks were run. The zero value
// means never.
type Halt struct {
	// Now stops what runs; otherwise it goes on to its end, and only nothing new
	// is begun.
	Now bool
	// What counts: HaltFail, HaltSuccess or HaltDone; empty: never.
	What string
	// Count is how many are enough; Percent, if not 0, how many of all tasks.
	Count   int
	Percent float64
}

// What a Halt counts.
const (
	HaltFail    = "fail"
	HaltSuccess = "success"
	HaltDone    = "done"
)

// ParseHalt reads what GNU parallel takes for --halt: "never", or "now" or
// "soon", a comma, and fail=N, success=N or done=N, where N may be a share of
// all tasks: "soon,fail=20%". The old "0", "1", "2" and "20%" mean never,
// soon,fail=1, now,fail=1 and soon,fail=20%.
func ParseHalt(s string) (Halt, error) {
	switch s {
	case "", "never", "0":
		return Halt{}, nil
	case "1":
		return Halt{What: HaltFail, Count: 1}, nil
	case "2":
		return Halt{Now: true, What: HaltFail, Count: 1}, nil
	}
	if strings.HasSuffix(s, "%") && !strings.Contains(s, ",") {
		s = "soon,fail=" + s
	}
	when, why, ok := strings.Cut(s, ",")
	what, value, ok2 := strings.Cut(why, "=")
	h := Halt{Now: when == "now", What: what}
	if !ok || !ok2 || (when != "now" && when != "soon") || (what != HaltFail && what != HaltSuccess && what != HaltDone) {
		return Halt{}, syntax("%q: --halt takes never, or now or soon, a comma, and fail=N, success=N or done=N; N may be a percentage", s)
	}
	var err error
	if share, isShare := strings.CutSuffix(value, "%"); isShare {
		h.Percent, err = strconv.ParseFloat(share, 64)
		if err != nil || !(h.Percent > 0 && h.Percent <= 100) {
			return Halt{}, syntax("%q is no percentage", value)
		}
		return h, nil
	}
	if h.Count, err = strconv.Atoi(value); err != nil || h.Count < 1 {
		return Halt{}, syntax("%q is no number of tasks", value)
	}
	return h, nil
}

// Met reports whether a batch of total tasks should end, of which so many
// succeeded and failed.
func (h Halt) Met(total, succeeded, failed int) bool {
	n := 0
	switch h.What {
	case HaltFail:
		n = failed
	case HaltSuccess:
		n = succeeded
	case HaltDone:
		n = succeeded + failed
	default:
		return false
	}
	if h.Percent > 0 {
		return n > 0 && float64(n) >= float64(total)*h.Percent/100
	}
	return n >= h.Count
}

// String returns what ParseHalt reads.
func (h Halt) String() string {
	if h.What == "" {
		return "never"
	}
	when, value := "soon", strconv.Itoa(h.Count)
	if h.Now {
		when = "now"
	}
	if h.Percent > 0 {
		value = strconv.FormatFloat(h.Percent, 'f', -1, 64) + "%"
	}
	return when + "," + h.What + "=" + value
}
