package snapshot

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gotong/storage/vault"
)

func snapshotsAt(t testing.TB, zone *time.Location, times ...string) (all []vault.Snapshot) {
	t.Helper()
	for i, text := range times {
		at, err := time.ParseInLocation("2006-01-02 15:04", text, zone)
		must(t, err)
		all = append(all, vault.Snapshot{ID: vault.SnapshotID{byte(i), 1}, Created: at, Host: "h", Set: "s"})
	}
	return all
}

// kept returns "time: reasons" of what is kept, newest first.
func kept(groups []Group, zone *time.Location) (out []string) {
	for _, g := range groups {
		for _, d := range g.Decisions {
			if d.Keep {
				out = append(out, d.Snapshot.Created.In(zone).Format("2006-01-02 15:04")+": "+strings.Join(d.Reasons, ", "))
			}
		}
	}
	return out
}

func TestKeep(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	days := []string{"2024-12-29 12:00", "2024-12-30 08:00", "2024-12-30 20:00", "2024-12-31 12:00", "2025-01-01 12:00", "2025-01-05 23:59", "2025-01-06 00:00"}
	for name, c := range map[string]struct {
		times  []string
		policy Policy
		want   []string
	}{
		"last": {days, Policy{Last: 2}, []string{"2025-01-06 00:00: last", "2025-01-05 23:59: last"}},
		"daily": {days, Policy{Daily: 4}, []string{"2025-01-06 00:00: daily", "2025-01-05 23:59: daily", "2025-01-01 12:00: daily",
			"2024-12-31 12:00: daily"}},
		"days that are left go to the oldest": {days[1:3], Policy{Daily: 5}, []string{"2024-12-30 20:00: daily", "2024-12-30 08:00: oldest daily"}},
		"ISO weeks":                           {days, Policy{Weekly: 2}, []string{"2025-01-06 00:00: weekly", "2025-01-05 23:59: weekly"}},
		"all years":                           {days, Policy{Yearly: All}, []string{"2025-01-06 00:00: yearly", "2024-12-31 12:00: yearly", "2024-12-29 12:00: oldest yearly"}},
		"within": {days, Policy{Within: Period{Days: 5}}, []string{"2025-01-06 00:00: within 5d", "2025-01-05 23:59: within 5d",
			"2025-01-01 12:00: within 5d"}},
		"daily within": {days, Policy{WithinDaily: Period{Months: 1}, Last: 1}, []string{"2025-01-06 00:00: last, daily within 1m", "2025-01-05 23:59: daily within 1m",
			"2025-01-01 12:00: daily within 1m", "2024-12-31 12:00: daily within 1m", "2024-12-30 20:00: daily within 1m", "2024-12-29 12:00: daily within 1m"}},
		"no rule":                           {days[:1], Policy{}, []string{"2024-12-29 12:00: no rule"}},
		"nothing fits, and the group stays": {days, Policy{Tags: [][]string{{"no"}}}, []string{"2025-01-06 00:00: the only one left"}},
		"nothing fits, as asked":            {days, Policy{Tags: [][]string{{"no"}}, EmptyGroups: true}, nil},
		"the day that has 25 hours": {[]string{"2025-10-26 00:10", "2025-10-26 23:50", "2025-10-27 00:10"}, Policy{Daily: 2},
			[]string{"2025-10-27 00:10: daily", "2025-10-26 23:50: daily"}},
		"a day before summer time is a day by the clock": {[]string{"2025-03-29 12:01", "2025-03-29 11:59", "2025-03-30 12:00"},
			Policy{Within: Period{Days: 1}}, []string{"2025-03-30 12:00: within 1d", "2025-03-29 12:01: within 1d"}},
		"the future uses up nothing": {[]string{"2025-01-01 00:00", "2025-01-02 00:00", "2099-01-01 00:00"}, Policy{Last: 1},
			[]string{"2099-01-01 00:00: dated in the future", "2025-01-02 00:00: last"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.policy.Location = berlin
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, berlin)
			if got := kept(Keep(snapshotsAt(t, berlin, c.times...), c.policy, now), berlin); !slices.Equal(got, c.want) {
				t.Errorf("kept %q, want %q", got, c.want)
			}
		})
	}
	// The hour that comes twice: 02:30 summer time and 02:30 an hour later.
	first := time.Date(2025, 10, 26, 0, 30, 0, 0, time.UTC)
	twice := []vault.Snapshot{{ID: vault.SnapshotID{1}, Created: first}, {ID: vault.SnapshotID{2}, Created: first.Add(time.Hour)}, {ID: vault.SnapshotID{3}, Created: first.Add(time.Hour + time.Minute)}}
	if got := kept(Keep(twice, Policy{Hourly: 2, Location: berlin}, first.AddDate(1, 0, 0)), time.UTC); !slices.Equal(got, []string{"2025-10-26 01:31: hourly", "2025-10-26 00:30: hourly"}) {
		t.Errorf("kept %q", got)
	}
}

func TestKeepGroups(t *testing.T) {
	at := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	make := func(id byte, host, set string, tags []string, paths ...string) vault.Snapshot {
		return vault.Snapshot{ID: vault.SnapshotID{id}, Created: at.Add(time.Duration(id) * time.Hour), Host: host, Set: set, Tags: tags, Paths: paths}
	}
	all := []vault.Snapshot{make(1, "a", "photos", []string{"x", "y"}, "/p"), make(2, "a", "photos", nil, "/q"), make(3, "b", "photos", nil, "/p"),
		make(4, "a", "", nil, "/q", "/p"), make(5, "a", "", nil, "/p", "/q"), make(6, "a", "", []string{"y"}, "/r")}
	for name, c := range map[string]struct {
		by     string
		policy Policy
		want   string
	}{
		"set, else paths": {"host,set", Policy{Last: 1}, "2 3 5 6"},
		"one":             {"", Policy{Last: 1}, "6"},
		"paths":           {"paths", Policy{Last: 1}, "2 3 5 6"},
		"tags":            {"tags", Policy{Last: 1}, "1 5 6"},
		"tagged":          {"", Policy{Last: 1, Tags: [][]string{{"x", "y"}, {"z"}}}, "1 6"},
		"uncounted": {"", Policy{Last: 1, Uncounted: func(s vault.Snapshot) string {
			if s.ID[0] == 6 {
				return "partial"
			}
			return ""
		}}, "5 6"},
	} {
		t.Run(name, func(t *testing.T) {
			by, err := ParseGrouping(c.by)
			must(t, err)
			c.policy.GroupBy = by
			var got []byte
			for _, g := range Keep(all, c.policy, at.AddDate(1, 0, 0)) {
				for _, d := range g.Decisions {
					if d.Keep {
						got = append(got, d.Snapshot.ID[0])
					}
				}
			}
			slices.Sort(got)
			if text := strings.Trim(fmt.Sprint(got), "[]"); text != c.want {
				t.Errorf("kept %s, want %s", text, c.want)
			}
		})
	}
	if _, err := ParseGrouping("host,moon"); err == nil {
		t.Error("grouping by the moon")
	}
}

// TestKeepProperties: the newest that counts is kept by any count; more is
// never less; each group keeps something; the order does not matter; what was
// kept is kept when asked again.
func TestKeepProperties(t *testing.T) {
	zones := []*time.Location{time.UTC, time.FixedZone("odd", 5*3600+45*60)}
	if berlin, err := time.LoadLocation("Europe/Berlin"); err == nil {
		zones = append(zones, berlin)
	}
	rapid.Check(t, func(t *rapid.T) {
		base := time.Date(2025, 10, 20, 0, 0, 0, 0, time.UTC)
		var all []vault.Snapshot
		for i, minutes := range rapid.SliceOfN(rapid.IntRange(0, 60*24*800), 1, 60).Draw(t, "minutes") {
			all = append(all, vault.Snapshot{ID: vault.SnapshotID{byte(i), 9}, Created: base.Add(-time.Duration(minutes) * time.Minute),
				Set: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "set")})
		}
		count := func(name string) int { return rapid.IntRange(-1, 5).Draw(t, name) }
		p := Policy{Last: count("last"), Hourly: count("hourly"), Daily: count("daily"), Weekly: count("weekly"), Monthly: count("monthly"), Yearly: count("yearly"),
			WithinWeekly: Period{Days: rapid.IntRange(0, 300).Draw(t, "days")}, Within: Period{Hours: rapid.IntRange(0, 300).Draw(t, "hours")},
			GroupBy: DefaultGrouping, Location: rapid.SampledFrom(zones).Draw(t, "zone")}
		keep := func(all []vault.Snapshot, p Policy) map[vault.SnapshotID]bool {
			ids := map[vault.SnapshotID]bool{}
			for _, g := range Keep(all, p, base) {
				some := false
				for i, d := range g.Decisions {
					some = some || d.Keep
					ids[d.Snapshot.ID] = d.Keep
					if d.Keep != (len(d.Reasons) > 0) || i == 0 && !d.Keep {
						t.Fatalf("first of a group: %+v", d)
					}
				}
				if !some {
					t.Fatalf("nothing of group %v is kept", g)
				}
			}
			return ids
		}
		got := keep(all, p)
		more := p
		field := rapid.SampledFrom([]*int{&more.Last, &more.Hourly, &more.Daily, &more.Weekly, &more.Monthly, &more.Yearly}).Draw(t, "field")
		if *field > 0 || *field == 0 && !p.Empty() {
			*field++
		}
		var rest []vault.Snapshot
		for _, s := range all {
			if got[s.ID] {
				rest = append(rest, s)
			}
		}
		wider, shuffled, again := keep(all, more), keep(rapid.Permutation(all).Draw(t, "order"), p), keep(rest, p)
		for id, kept := range got {
			if kept && !wider[id] {
				t.Fatalf("%+v keeps what %+v does not", p, more)
			}
			if kept != shuffled[id] {
				t.Fatal("the order matters")
			}
			if kept && !again[id] {
				t.Fatalf("%+v does not keep what it kept", p)
			}
		}
	})
}

func TestPeriods(t *testing.T) {
	for text, want := range map[string]string{"1y6m7d12h": "1y6m7d12h", "2w": "14d", "1w1d": "8d", "36h": "36h"} {
		if p, err := ParsePeriod(text); err != nil || p.String() != want {
			t.Errorf("%s: %s %v", text, p, err)
		}
	}
	for _, text := range []string{"", "d", "1", "1d1d", "1h2d", "-1d", "1.5d", "0d", "99999999999d", "1s"} {
		if _, err := ParsePeriod(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
