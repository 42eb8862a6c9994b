package rules

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

const (
	// presence is how long after an input the user counts as there when the idle
	// rule does not say it.
	presence = 3 * time.Minute
	// spareCore: others may use so much of a core before a guest has to leave it.
	spareCore = 0.75
	// runningFloor and startFloor are the parts of the memory that must be
	// available for guests to go on, and for guests to start.
	runningFloor Share = 5
	startFloor   Share = 10
)

// Decide says how many guests may run now and why not more.
func Decide(r Rules, f Facts, now time.Time) Decision {
	d := decider{slots: r.Slots}
	if r.Slots <= 0 {
		d.add("slots", 0, "its donor gives no task slots")
		return d.decision()
	}
	d.pause(f, now)
	d.programs(r, f)
	d.user(r, f)
	d.power(r, f)
	d.hours(r, now)
	d.processors(r, f)
	d.memory(r, f)
	if f.Disk.Known && f.Disk.Free < r.DiskFree {
		d.add("disk_free", 0, "its disk has %s free, less than the %s that stay free", size(f.Disk.Free), size(r.DiskFree))
	}
	return d.decision()
}

// decider collects the rules that take slots away.
type decider struct {
	slots   int
	reasons []Reason
}

func (d *decider) add(rule string, slots int, format string, args ...any) {
	d.reasons = append(d.reasons, Reason{Rule: rule, Slots: slots, Text: fmt.Sprintf(format, args...)})
}

func (d *decider) kill(rule, format string, args ...any) {
	d.add(rule, 0, format, args...)
	d.reasons[len(d.reasons)-1].Kill = true
}

func (d *decider) decision() Decision {
	slices.SortStableFunc(d.reasons, func(a, b Reason) int { return cmp.Compare(a.Slots, b.Slots) })
	out := Decision{Slots: max(0, d.slots), Reasons: d.reasons}
	for _, r := range d.reasons {
		out.Slots = min(out.Slots, r.Slots)
		out.Kill = out.Kill || r.Kill
	}
	return out
}

func (d *decider) pause(f Facts, now time.Time) {
	if f.Pause == nil || f.Pause.Over(now) {
		return
	}
	until := "until gotong resume"
	if !f.Pause.Until.IsZero() {
		until = "until " + f.Pause.Until.In(now.Location()).Format("2006-01-02 15:04:05")
	}
	d.add("pause", 0, "paused by %s %s", cmp.Or(f.Pause.By, "its donor"), until)
}

func (d *decider) programs(r Rules, f Facts) {
	switch {
	case len(r.Exclusive) == 0:
	case f.Blind != "":
		d.add("exclusive", 0, "cannot see whether %s runs: %s", strings.Join(r.Exclusive, ", "), f.Blind)
	case len(f.Exclusive) > 0:
		d.add("exclusive", 0, "%s runs, besides which no task does", strings.Join(f.Exclusive, ", "))
	}
}

func (d *decider) user(r Rules, f Facts) {
	switch {
	case r.Idle <= 0 || f.Input.NoUser:
	case !f.Input.Known:
		d.add("idle", 0, "cannot see whether its user is there: %s", f.Input.Why)
	case f.Input.Idle < r.Idle:
		d.add("idle", 0, "its user was there %s ago (%s); tasks run after %s without input", short(f.Input.Idle), f.Input.Source, short(r.Idle))
	}
}

func (d *decider) power(r Rules, f Facts) {
	if !r.Battery && f.Power.Known && f.Power.Battery {
		d.add("battery", 0, "it runs on its battery (%s)", f.Power.Detail)
	}
}

func (d *decider) hours(r Rules, now time.Time) {
	if len(r.Hours) == 0 {
		return
	}
	for _, text := range r.Hours {
		if w, err := ParseWindow(text); err == nil && w.Covers(now) {
			return
		}
	}
	d.add("hours", 0, "%s is outside its hours (%s)", now.Format("Mon 15:04"), strings.Join(r.Hours, "; "))
}

func (d *decider) processors(r Rules, f Facts) {
	if n := max(1, int(r.CPU.Of(float64(r.Cores)))); n < r.Slots {
		d.add("cpu", n, "%s of its cores are %s", r.CPU, slotCount(n))
	}
	if !f.Load.Known || r.Load >= percent { // not known, or it does not matter
		return
	}
	if limit := r.Load.Of(float64(r.Cores)); f.Load.Cores > limit {
		d.add("load", 0, "other programs keep %.1f of its %d cores busy, more than %s", f.Load.Cores, r.Cores, r.Load)
		return
	}
	if left := int(math.Floor(float64(r.Cores) - f.Load.Cores + spareCore)); left < r.Slots {
		d.add("load", max(0, left), "other programs keep %.1f of its %d cores busy", f.Load.Cores, r.Cores)
	}
}

func slotCount(n int) string {
	if n == 1 {
		return "1 slot"
	}
	return fmt.Sprintf("%d slots", n)
}

func (d *decider) memory(r Rules, f Facts) {
	if !f.Memory.Known {
		return
	}
	total := float64(f.Memory.Total)
	share, when := memoryShare(r, f)
	floor := startFloor
	if f.Memory.Guests > 0 {
		floor = runningFloor
	}
	switch {
	case float64(f.Memory.Guests) > share.Of(total):
		d.kill(when, "tasks had %s of its memory, more than %s of %s", size(f.Memory.Guests), share, size(f.Memory.Total))
	case float64(f.Memory.Available) < floor.Of(total):
		d.kill(when, "it has only %s of %s memory available", size(f.Memory.Available), size(f.Memory.Total))
	case f.Memory.Short:
		d.kill(when, "it was short of memory a moment ago")
	}
}

// memoryShare returns what guests may have of the memory, and the rule that says
// so.
func memoryShare(r Rules, f Facts) (share Share, rule string) {
	if InUse(r, f) && r.MemoryInUse < r.MemoryIdle {
		return r.MemoryInUse, "memory_in_use"
	}
	return r.MemoryIdle, "memory_idle"
}

// InUse reports whether the user of the machine is there, as far as is known.
func InUse(r Rules, f Facts) bool {
	limit := r.Idle
	if limit <= 0 {
		limit = presence
	}
	return !f.Input.NoUser && f.Input.Known && f.Input.Idle < limit
}

// MemoryBudget returns how many bytes guests may have in all.
func MemoryBudget(r Rules, f Facts) int64 {
	if !f.Memory.Known {
		return math.MaxInt64
	}
	share, _ := memoryShare(r, f)
	return int64(share.Of(float64(f.Memory.Total)))
}

func size(n int64) string { return humanize.Bytes(uint64(max(0, n))) }

// short writes a duration for people.
func short(d time.Duration) string {
	unit := 100 * time.Millisecond
	switch {
	case d >= time.Hour:
		unit = time.Minute
	case d >= time.Minute:
		unit = time.Second
	}
	text := d.Round(unit).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-len(zero)+1]
		}
	}
	return text
}

// quietLoad is the load of others below which it takes no slot away, so that
// nobody needs to know it exactly.
func quietLoad(r Rules) float64 {
	if r.Load >= percent {
		return math.MaxInt32
	}
	return max(0, min(r.Load.Of(float64(r.Cores)), float64(r.Cores-r.Slots)+spareCore-1e-9))
}
