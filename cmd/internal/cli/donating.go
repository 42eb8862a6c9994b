package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	controlv1 "gotong/proto/control/v1"
)

// donatingJSON is what the donor's rules allow now, and why.
type donatingJSON struct {
	Allowed   uint32       `json:"allowed"` // slots that may run tasks
	Slots     uint32       `json:"slots"`   // pledged
	Reasons   []reasonJSON `json:"reasons"` // rules that take slots away, the strictest first
	Facts     factsJSON    `json:"facts"`
	Since     *time.Time   `json:"since"`   // when allowed was last changed
	Running   uint32       `json:"running"` // slots with a task that runs
	Held      uint32       `json:"held"`    // slots with a task that is stopped
	HeldSince *time.Time   `json:"held_since"`
	Hold      uint64       `json:"hold_seconds"` // for how long it is kept
	// Since the peer started: tasks that were stopped, that went on, and that were
	// given back.
	HeldTotal    uint64     `json:"held_total"`
	ResumedTotal uint64     `json:"resumed_total"`
	Withdrawn    uint64     `json:"withdrawn_total"`
	Pause        *pauseJSON `json:"pause"` // null: not paused
}

type reasonJSON struct {
	Rule  string `json:"rule"`
	Slots uint32 `json:"slots"` // that it leaves
	Text  string `json:"text"`
}

type pauseJSON struct {
	By    string     `json:"by"`
	Since *time.Time `json:"since"`
	Until *time.Time `json:"until"` // null: until gotong resume
}

// factsJSON are what the rules went by; null is not known.
type factsJSON struct {
	At              *time.Time `json:"at"`
	HasUser         bool       `json:"has_user"`
	IdleSeconds     *float64   `json:"idle_seconds"`
	InputSource     string     `json:"input_source"`
	Cores           uint32     `json:"cores"`
	OthersLoad      *float64   `json:"others_load"` // cores
	OnBattery       *bool      `json:"on_battery"`
	Power           string     `json:"power"`
	MemoryTotal     *uint64    `json:"memory_total"`
	MemoryAvailable *uint64    `json:"memory_available"`
	MemoryGuests    *uint64    `json:"memory_guests"`
	DiskFree        *uint64    `json:"disk_free"`
	Exclusive       []string   `json:"exclusive"`
}

// workJSON is what was computed for one owner, in core-seconds.
type workJSON struct {
	Owner     string   `json:"owner"`
	Peers     []string `json:"peers"`
	Self      bool     `json:"self"`
	For       float64  `json:"core_seconds_for"`  // here for the owner
	From      float64  `json:"core_seconds_from"` // by its peers for this owner
	TodayFor  float64  `json:"today_for"`
	TodayFrom float64  `json:"today_from"`
	WeekFor   float64  `json:"week_for"`
	WeekFrom  float64  `json:"week_from"`
	Balance   float64  `json:"balance"`
	TasksFor  uint64   `json:"tasks_for"`
	Weight    *float64 `json:"weight"` // of its turns; null: before all others
}

func newDonatingJSON(d *controlv1.Donating) donatingJSON {
	f := d.GetFacts()
	out := donatingJSON{
		Allowed: d.GetAllowed(), Slots: d.GetSlots(), Reasons: []reasonJSON{}, Since: milliOrNull(d.GetSinceUnixMilli()),
		Running: d.GetRunning(), Held: d.GetHeld(), HeldSince: milliOrNull(d.GetHeldSinceUnixMilli()), Hold: d.GetHoldSeconds(),
		HeldTotal: d.GetHeldTotal(), ResumedTotal: d.GetResumedTotal(), Withdrawn: d.GetWithdrawn(),
		Facts: factsJSON{
			At: timeOrNull(f.GetAtUnix()), HasUser: f.GetHasUser(), InputSource: f.GetInputSource(), Cores: f.GetCores(),
			IdleSeconds: known(f.GetInputKnown() && f.GetHasUser(), f.GetIdleSeconds()), OthersLoad: known(f.GetLoadKnown(), f.GetLoadCores()),
			OnBattery: known(f.GetPowerKnown(), f.GetOnBattery()), Power: f.GetPower(),
			MemoryTotal: known(f.GetMemoryKnown(), f.GetMemoryTotal()), MemoryAvailable: known(f.GetMemoryKnown(), f.GetMemoryAvailable()),
			MemoryGuests: known(f.GetMemoryKnown(), f.GetMemoryGuests()), DiskFree: known(f.GetDiskKnown(), f.GetDiskFree()),
			Exclusive: append([]string{}, f.GetExclusive()...),
		},
	}
	for _, r := range d.GetReasons() {
		out.Reasons = append(out.Reasons, reasonJSON{r.Rule, r.Slots, r.Text})
	}
	if p := d.GetPause(); p != nil {
		out.Pause = &pauseJSON{p.By, timeOrNull(p.SinceUnix), timeOrNull(p.UntilUnix)}
	}
	return out
}

func known[T any](ok bool, value T) *T {
	if !ok {
		return nil
	}
	return &value
}

func milliOrNull(milli int64) *time.Time {
	if milli == 0 {
		return nil
	}
	t := time.UnixMilli(milli).UTC()
	return &t
}

func newWorkJSON(list []*controlv1.OwnerWork) []workJSON {
	out := []workJSON{}
	for _, w := range list {
		out = append(out, workJSON{w.Owner, append([]string{}, w.Names...), w.Self, w.CoreSecondsFor, w.CoreSecondsFrom,
			w.TodayFor, w.TodayFrom, w.WeekFor, w.WeekFrom, w.Balance, w.TasksFor, known(!w.Self, w.Weight)})
	}
	return out
}

// printDonating says in the table of status what the donor's rules allow.
func printDonating(w io.Writer, d *controlv1.Donating, now time.Time) {
	if d.GetSlots() == 0 {
		fmt.Fprintln(w, "tasks\tnone: this peer gives no slots")
		return
	}
	text := fmt.Sprintf("%d of %s may run, %d run", d.Allowed, countText(uint64(d.Slots), "slot", "slots"), d.Running)
	if d.Held > 0 {
		text += fmt.Sprintf(", %d stopped %s", d.Held, humanize.RelTime(time.UnixMilli(d.HeldSinceUnixMilli), now, "ago", "from now"))
	}
	fmt.Fprintf(w, "tasks\t%s\n", text)
	for _, r := range d.Reasons {
		fmt.Fprintf(w, "  %s\t%s\n", printable(r.Rule), printable(r.Text))
	}
	fmt.Fprintf(w, "  facts\t%s\n", printable(factsText(d.Facts)))
	if p := d.Pause; p != nil {
		fmt.Fprintf(w, "  paused\tby %s %s\n", printable(pausedBy(p)), humanize.RelTime(time.Unix(p.SinceUnix, 0), now, "ago", "from now"))
	}
}

func pausedBy(p *controlv1.DonatePause) string {
	if p.By == "" {
		return "its donor"
	}
	return p.By
}

// factsText is what the rules went by, in a line.
func factsText(f *controlv1.DonateFacts) string {
	var parts []string
	switch {
	case !f.GetHasUser():
		parts = append(parts, "no user ("+f.GetInputSource()+")")
	case !f.GetInputKnown():
		parts = append(parts, "last input unknown")
	case f.GetIdleSeconds() > longIdle.Seconds():
		parts = append(parts, "no input yet ("+f.GetInputSource()+")")
	default:
		idle := time.Duration(f.GetIdleSeconds() * float64(time.Second)).Round(time.Second)
		parts = append(parts, "last input "+idle.String()+" ago ("+f.GetInputSource()+")")
	}
	if f.GetLoadKnown() {
		parts = append(parts, fmt.Sprintf("others use %.1f of %d cores", f.GetLoadCores(), f.GetCores()))
	}
	if f.GetMemoryKnown() {
		parts = append(parts, fmt.Sprintf("%s of %s memory available", bytesText(f.GetMemoryAvailable()), bytesText(f.GetMemoryTotal())))
	}
	return strings.Join(append(parts, f.GetPower()), ", ")
}

// longIdle is more than any machine runs.
const longIdle = 5 * 365 * 24 * time.Hour

// printWork says what was done for whom.
func printWork(w io.Writer, list []*controlv1.OwnerWork) {
	for _, o := range list {
		name := strings.Join(o.Names, ", ")
		switch {
		case o.Self:
			name = "this owner"
		case name == "":
			name = "owner " + short(o.Owner)
		}
		fmt.Fprintf(w, "  worked for %s\t%s today, %s in 7 days, %s in all (%s)", printable(name),
			coreTime(o.TodayFor), coreTime(o.WeekFor), coreTime(o.CoreSecondsFor), countText(o.TasksFor, "task", "tasks"))
		if !o.Self {
			fmt.Fprintf(w, "; for us %s, %s, %s", coreTime(o.TodayFrom), coreTime(o.WeekFrom), coreTime(o.CoreSecondsFrom))
		}
		fmt.Fprintln(w)
	}
}

// coreTime is a number of core-seconds for people.
func coreTime(seconds float64) string {
	switch {
	case seconds >= 360:
		return fmt.Sprintf("%.1f core-h", seconds/3600)
	case seconds >= 10 || seconds == 0:
		return fmt.Sprintf("%.0f core-s", seconds)
	}
	return fmt.Sprintf("%.1f core-s", seconds)
}
