package snapshot

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gotong/storage/vault"
)

// Policy says which snapshots to keep. A snapshot is kept when at least one rule
// keeps it; a policy without rules keeps all.
//
// The counts mean what they mean in restic: Daily 7 keeps the newest snapshot of
// each of the 7 newest days that have one, and while a count is not used up the
// oldest snapshot of all is kept for it. All (-1) keeps one for every day. Days,
// weeks (ISO 8601), months and years are those of Location. Unlike in restic, an
// hour that comes twice when summer time ends is two hours; snapshots that are
// dated after now are kept and use up nothing; and a group never loses its last
// snapshot unless EmptyGroups.
type Policy struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
	// Within keeps all that is at most so much older than the newest of its
	// group; the others one for each hour, day, … of that time.
	Within, WithinHourly, WithinDaily, WithinWeekly, WithinMonthly, WithinYearly Period
	// Tags keeps snapshots that have all tags of one of the lists.
	Tags [][]string
	// GroupBy says which snapshots are judged together.
	GroupBy Grouping
	// Location is where days begin; nil is time.Local.
	Location *time.Location
	// EmptyGroups allows that nothing of a group is kept.
	EmptyGroups bool
	// Uncounted, when set, returns why a snapshot is kept without using up a
	// count, such as that it is not complete; empty is none.
	Uncounted func(vault.Snapshot) string
}

// All as a count of a Policy is no limit.
const All = -1

// Empty reports whether there is no rule.
func (p *Policy) Empty() bool {
	for _, rule := range p.counted() {
		if rule.count != 0 {
			return false
		}
	}
	for _, rule := range p.within() {
		if !rule.period.IsZero() {
			return false
		}
	}
	return p.Within.IsZero() && len(p.Tags) == 0
}

// Grouping says which snapshots belong together; the zero value puts all into
// one group.
type Grouping struct {
	Host bool
	// Set groups by the backup set; snapshots without one by their paths.
	Set   bool
	Paths bool
	Tags  bool
}

// DefaultGrouping keeps apart what is backed up apart.
var DefaultGrouping = Grouping{Host: true, Set: true}

// ErrPolicy says that the text of a policy cannot be understood.
var ErrPolicy = errors.New("cannot understand")

// ParseGrouping reads a list such as "host,set"; empty is one group.
func ParseGrouping(text string) (g Grouping, err error) {
	for name := range strings.SplitSeq(text, ",") {
		switch strings.TrimSpace(name) {
		case "":
		case "host":
			g.Host = true
		case "set":
			g.Set = true
		case "paths":
			g.Paths = true
		case "tags":
			g.Tags = true
		default:
			return Grouping{}, fmt.Errorf("%w %q: want host, set, paths, tags", ErrPolicy, name)
		}
	}
	return g, nil
}

// Group is snapshots that were judged together.
type Group struct {
	Host      string
	Set       string
	Paths     []string
	Tags      []string
	Decisions []Decision // newest first
}

// Decision says what becomes of a snapshot and why.
type Decision struct {
	Snapshot vault.Snapshot
	Keep     bool
	Reasons  []string // to keep it; for people
}

// Keep decides what becomes of each snapshot. It changes nothing.
func Keep(snapshots []vault.Snapshot, p Policy, now time.Time) []Group {
	if p.Location == nil {
		p.Location = time.Local
	}
	groups := groupSnapshots(snapshots, p.GroupBy)
	for i := range groups {
		p.decide(groups[i].Decisions, now)
	}
	return groups
}

// groupSnapshots returns the groups by their names, each newest first.
func groupSnapshots(snapshots []vault.Snapshot, by Grouping) []Group {
	groups := map[string]*Group{}
	var keys []string
	for _, s := range snapshots {
		var g Group
		if by.Host {
			g.Host = s.Host
		}
		if by.Set {
			g.Set = s.Set
		}
		if by.Paths || by.Set && s.Set == "" {
			g.Paths = sorted(s.Paths)
		}
		if by.Tags {
			g.Tags = sorted(s.Tags)
		}
		key := fmt.Sprintf("%q", []any{g.Host, g.Set, g.Paths, g.Tags})
		if groups[key] == nil {
			groups[key] = &g
			keys = append(keys, key)
		}
		groups[key].Decisions = append(groups[key].Decisions, Decision{Snapshot: s})
	}
	slices.Sort(keys)
	out := make([]Group, len(keys))
	for i, key := range keys {
		out[i] = *groups[key]
		slices.SortStableFunc(out[i].Decisions, func(a, b Decision) int {
			return cmp.Or(b.Snapshot.Created.Compare(a.Snapshot.Created), slices.Compare(b.Snapshot.ID[:], a.Snapshot.ID[:]))
		})
	}
	return out
}

func sorted(s []string) []string {
	out := slices.Clone(s)
	slices.Sort(out)
	return out
}

// slot names the hour, day, … in which a time is.
type slot [5]int

func slotOfHour(t time.Time) slot {
	_, offset := t.Zone()
	return slot{t.Year(), int(t.Month()), t.Day(), t.Hour(), offset}
}
func slotOfDay(t time.Time) slot { return slot{t.Year(), int(t.Month()), t.Day()} }
func slotOfWeek(t time.Time) slot {
	year, week := t.ISOWeek()
	return slot{year, week}
}
func slotOfMonth(t time.Time) slot { return slot{t.Year(), int(t.Month())} }
func slotOfYear(t time.Time) slot  { return slot{t.Year()} }

// countedRule keeps the newest of each of the count newest slots.
type countedRule struct {
	count  int
	period Period                 // instead of count
	slot   func(t time.Time) slot // nil: each snapshot is its own
	reason string

	last slot
	used bool
}

func (p *Policy) counted() []countedRule {
	return []countedRule{
		{count: p.Last, reason: "last"},
		{count: p.Hourly, slot: slotOfHour, reason: "hourly"},
		{count: p.Daily, slot: slotOfDay, reason: "daily"},
		{count: p.Weekly, slot: slotOfWeek, reason: "weekly"},
		{count: p.Monthly, slot: slotOfMonth, reason: "monthly"},
		{count: p.Yearly, slot: slotOfYear, reason: "yearly"},
	}
}

func (p *Policy) within() []countedRule {
	return []countedRule{
		{period: p.WithinHourly, slot: slotOfHour, reason: "hourly"},
		{period: p.WithinDaily, slot: slotOfDay, reason: "daily"},
		{period: p.WithinWeekly, slot: slotOfWeek, reason: "weekly"},
		{period: p.WithinMonthly, slot: slotOfMonth, reason: "monthly"},
		{period: p.WithinYearly, slot: slotOfYear, reason: "yearly"},
	}
}

// fits reports whether a snapshot has a slot to itself, or is the oldest while
// there is a place left, and takes the place.
func (r *countedRule) fits(at time.Time, oldest bool) (reason string, ok bool) {
	if r.count == 0 && r.period.IsZero() {
		return "", false
	}
	reason = r.reason
	if r.slot != nil {
		s := r.slot(at)
		if r.used && s == r.last {
			if !oldest {
				return "", false
			}
			reason = "oldest " + reason
		}
		r.last, r.used = s, true
	}
	if r.count > 0 {
		r.count--
	}
	return reason, true
}

// decide judges the snapshots of one group, newest first.
func (p *Policy) decide(group []Decision, now time.Time) {
	if p.Empty() {
		for i := range group {
			group[i].Keep, group[i].Reasons = true, []string{"no rule"}
		}
		return
	}
	counted, within := p.counted(), p.within()
	var latest time.Time // of those that count
	var counts []*Decision
	for i := range group {
		d := &group[i]
		switch why := p.uncounted(d.Snapshot, now); {
		case why != "":
			d.Reasons = append(d.Reasons, why)
		default:
			if latest.IsZero() {
				latest = d.Snapshot.Created.In(p.Location)
			}
			counts = append(counts, d)
		}
	}
	for i, d := range counts {
		at, oldest := d.Snapshot.Created.In(p.Location), i == len(counts)-1
		if !p.Within.IsZero() && p.Within.reaches(latest, at) {
			d.Reasons = append(d.Reasons, "within "+p.Within.String())
		}
		for j := range counted {
			if reason, ok := counted[j].fits(at, oldest); ok {
				d.Reasons = append(d.Reasons, reason)
			}
		}
		for j := range within {
			if r := &within[j]; r.period.reaches(latest, at) {
				if reason, ok := r.fits(at, oldest); ok {
					d.Reasons = append(d.Reasons, reason+" within "+r.period.String())
				}
			}
		}
	}
	kept := false
	for i := range group {
		d := &group[i]
		for _, tags := range p.Tags {
			if hasTags(d.Snapshot, tags) {
				d.Reasons = append(d.Reasons, "tag "+strings.Join(tags, "+"))
			}
		}
		d.Keep = len(d.Reasons) > 0
		kept = kept || d.Keep
	}
	if !kept && !p.EmptyGroups && len(group) > 0 {
		group[0].Keep, group[0].Reasons = true, []string{"the only one left"}
	}
}

// uncounted returns why a snapshot is kept and uses up nothing; empty is none.
func (p *Policy) uncounted(s vault.Snapshot, now time.Time) string {
	if s.Created.After(now) {
		return "dated in the future"
	}
	if p.Uncounted != nil {
		return p.Uncounted(s)
	}
	return ""
}

func hasTags(s vault.Snapshot, tags []string) bool {
	if len(tags) == 0 {
		return false
	}
	for _, tag := range tags {
		if !slices.Contains(s.Tags, tag) {
			return false
		}
	}
	return true
}

// Period is a length of calendar time, written like 1y6m7d12h.
type Period struct{ Years, Months, Days, Hours int }

// ParsePeriod reads a period: numbers with y, m, w, d and h, each at most once.
// The error is ErrPolicy.
func ParsePeriod(text string) (p Period, err error) {
	bad := fmt.Errorf("%w %q: want a length of time such as 1y6m7d12h", ErrPolicy, text)
	rest, order := text, "ymwdh"
	for rest != "" {
		i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if i <= 0 {
			return Period{}, bad
		}
		n, err := strconv.Atoi(rest[:i])
		at := strings.IndexByte(order, rest[i])
		if err != nil || at < 0 || n > 100_000 {
			return Period{}, bad
		}
		switch rest[i] {
		case 'y':
			p.Years = n
		case 'm':
			p.Months = n
		case 'w':
			p.Days += 7 * n
		case 'd':
			p.Days += n
		case 'h':
			p.Hours = n
		}
		rest, order = rest[i+1:], order[at+1:]
	}
	if p.IsZero() {
		return Period{}, bad
	}
	return p, nil
}

// IsZero reports whether the period has no length.
func (p Period) IsZero() bool { return p == Period{} }

// String returns what ParsePeriod reads.
func (p Period) String() string {
	var b strings.Builder
	for _, part := range []struct {
		n    int
		unit byte
	}{{p.Years, 'y'}, {p.Months, 'm'}, {p.Days, 'd'}, {p.Hours, 'h'}} {
		if part.n != 0 {
			fmt.Fprintf(&b, "%d%c", part.n, part.unit)
		}
	}
	return b.String()
}

// reaches reports whether a time is less than the period before the latest one.
// The calendar's part is by the clock on the wall, so a day is a day when summer
// time begins.
func (p Period) reaches(latest, at time.Time) bool {
	return at.After(latest.AddDate(-p.Years, -p.Months, -p.Days).Add(-time.Duration(p.Hours) * time.Hour))
}
