package rules

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// monday is a time at which nothing in particular happens.
var monday = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func someRules() Rules {
	return Rules{
		Slots: 4, Cores: 8, CPU: 100, Load: 60, Idle: 3 * time.Minute,
		MemoryInUse: 25, MemoryIdle: 75, DiskFree: 1e9,
	}
}

func quietMachine() Facts {
	return Facts{
		Input:  Input{Known: true, Idle: time.Hour, Source: "logind"},
		Load:   Load{Known: true},
		Power:  Power{Known: true, Detail: "no battery"},
		Memory: Memory{Known: true, Total: 16e9, Available: 12e9},
		Disk:   Disk{Known: true, Free: 100e9},
	}
}

func TestDecide(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Rules, *Facts)
		slots  int
		kill   bool
		why    string
	}{
		{"nothing in the way", func(*Rules, *Facts) {}, 4, false, ""},
		{"nothing is given", func(r *Rules, f *Facts) { r.Slots = 0 }, 0, false, "gives no task slots"},
		{"the user is there", func(r *Rules, f *Facts) { f.Input.Idle = 5 * time.Second }, 0, false, "its user was there 5s ago (logind); tasks run after 3m without input"},
		{"the user is just away", func(r *Rules, f *Facts) { f.Input.Idle = r.Idle }, 4, false, ""},
		{"the user does not matter", func(r *Rules, f *Facts) { f.Input.Idle, r.Idle = 0, 0 }, 4, false, ""},
		{"nobody can be there", func(r *Rules, f *Facts) { f.Input = Input{NoUser: true} }, 4, false, ""},
		{"nobody knows", func(r *Rules, f *Facts) { f.Input = Input{Why: "no system bus"} }, 0, false, "cannot see whether its user is there: no system bus"},
		{"on battery", func(r *Rules, f *Facts) { f.Power = Power{Known: true, Battery: true, Detail: "BAT0 discharges"} }, 0, false, "it runs on its battery (BAT0 discharges)"},
		{"on battery by leave", func(r *Rules, f *Facts) { f.Power, r.Battery = Power{Known: true, Battery: true}, true }, 4, false, ""},
		{"power unknown", func(r *Rules, f *Facts) { f.Power = Power{Detail: "unknown"} }, 4, false, ""},
		{"out of hours", func(r *Rules, f *Facts) { r.Hours = []string{"mon-fri 18:00-08:00", "sat,sun"} }, 0, false, "Mon 10:00 is outside its hours (mon-fri 18:00-08:00; sat,sun)"},
		{"within hours", func(r *Rules, f *Facts) { r.Hours = []string{"sun", "09:00-11:00"} }, 4, false, ""},
		{"half the cores", func(r *Rules, f *Facts) { r.Cores, r.CPU = 4, 50 }, 2, false, "50% of its cores are 2 slots"},
		{"a little of one core", func(r *Rules, f *Facts) { r.Cores, r.CPU = 2, 10 }, 1, false, "10% of its cores are 1 slot"},
		{"others are busy", func(r *Rules, f *Facts) { f.Load.Cores = 5 }, 0, false, "other programs keep 5.0 of its 8 cores busy, more than 60%"},
		{"others leave some cores", func(r *Rules, f *Facts) { r.Load, r.Slots, f.Load.Cores = 90, 8, 4.5 }, 4, false, "keep 4.5 of its 8 cores busy"},
		{"others do not matter", func(r *Rules, f *Facts) { r.Load, f.Load.Cores = 100, 8 }, 4, false, ""},
		{"load unknown", func(r *Rules, f *Facts) { f.Load = Load{} }, 4, false, ""},
		{"guests are large", func(r *Rules, f *Facts) { f.Memory.Guests = 13e9 }, 0, true, "tasks had 13 GB of its memory, more than 75% of 16 GB"},
		{"guests are large for a user who is there", func(r *Rules, f *Facts) { f.Memory.Guests, f.Input.Idle = 5e9, 0 }, 0, true, "more than 25% of 16 GB"},
		{"guests fit", func(r *Rules, f *Facts) { f.Memory.Guests, f.Memory.Available = 11e9, 1e9 }, 4, false, ""},
		{"little memory while tasks run", func(r *Rules, f *Facts) { f.Memory.Guests, f.Memory.Available = 1e9, 0.7e9 }, 0, true, "only 700 MB of 16 GB memory available"},
		{"little memory to begin", func(r *Rules, f *Facts) { f.Memory.Available = 1e9 }, 0, true, "only 1.0 GB of 16 GB"},
		{"memory was short", func(r *Rules, f *Facts) { f.Memory.Short = true }, 0, true, "short of memory a moment ago"},
		{"disk full", func(r *Rules, f *Facts) { f.Disk.Free = 5e8 }, 0, false, "its disk has 500 MB free, less than the 1.0 GB"},
		{"a game", func(r *Rules, f *Facts) { r.Exclusive, f.Exclusive = []string{"game", "obs"}, []string{"game"} }, 0, false, "game runs, besides which no task does"},
		{"no game", func(r *Rules, f *Facts) { r.Exclusive = []string{"game"} }, 4, false, ""},
		{"games cannot be seen", func(r *Rules, f *Facts) { r.Exclusive, f.Blind = []string{"game"}, "not known" }, 0, false, "cannot see whether game runs: not known"},
		{"paused", func(r *Rules, f *Facts) { f.Pause = &Pause{By: "ann"} }, 0, false, "paused by ann until gotong resume"},
		{"paused for a while", func(r *Rules, f *Facts) { f.Pause = &Pause{By: "ann", Until: monday.Add(time.Minute)} }, 0, false, "paused by ann until 2026-11-23 10:01:00"},
		{"the pause is over", func(r *Rules, f *Facts) { f.Pause = &Pause{By: "ann", Until: monday} }, 4, false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, f := someRules(), quietMachine()
			test.change(&r, &f)
			d := Decide(r, f, monday)
			if d.Slots != test.slots || d.Kill != test.kill {
				t.Errorf("%+v, want %d slots, kill %v", d, test.slots, test.kill)
			}
			if why := d.Why(); (test.why == "") != (why == "") || !strings.Contains(why, test.why) {
				t.Errorf("why %q, want %q", why, test.why)
			}
		})
	}
}

func TestDecideNamesEveryRule(t *testing.T) {
	r, f := someRules(), quietMachine()
	f.Input.Idle, f.Power.Battery, f.Load.Cores, r.CPU = 0, true, 8, 25
	d := Decide(r, f, monday)
	var rules []string
	for _, reason := range d.Reasons {
		rules = append(rules, reason.Rule)
	}
	if want := []string{"idle", "battery", "load", "cpu"}; !slices.Equal(rules, want) {
		t.Errorf("%v, want %v", rules, want)
	}
	if strings.Contains(d.Why(), "cores are") {
		t.Errorf("%q names a rule that leaves slots", d.Why())
	}
}

// TestDecideProperties: never more slots than pledged, no slot is lost without a
// reason, the same input gives the same decision, and a machine that is worse off
// never gives more.
func TestDecideProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		r, f := randomRules(rng), randomFacts(rng)
		now := monday.Add(time.Duration(rng.IntN(14*24*60)) * time.Minute)
		d := Decide(r, f, now)
		if !reflect.DeepEqual(d, Decide(r, f, now)) {
			t.Fatalf("two decisions for %+v %+v", r, f)
		}
		if d.Slots < 0 || d.Slots > max(0, r.Slots) {
			t.Fatalf("%d slots of %d", d.Slots, r.Slots)
		}
		if d.Slots < r.Slots && d.Why() == "" || d.Slots == r.Slots && d.Slots > 0 && d.Why() != "" {
			t.Fatalf("%d slots of %d because of %q", d.Slots, r.Slots, d.Why())
		}
		if d.Kill && d.Slots > 0 {
			t.Fatalf("guests are killed and %d slots given", d.Slots)
		}
		worse := f
		worse.Load.Cores += rng.Float64() * 4
		worse.Input.Idle = time.Duration(float64(f.Input.Idle) * rng.Float64())
		worse.Disk.Free = rng.Int64N(f.Disk.Free + 1)
		worse.Power.Battery = f.Power.Battery || rng.IntN(2) == 0
		if got := Decide(r, worse, now).Slots; got > d.Slots {
			t.Fatalf("%d slots for %+v, %d for a machine that is worse off: %+v", d.Slots, f, got, worse)
		}
	}
}

func randomRules(rng *rand.Rand) Rules {
	r := Rules{
		Slots: rng.IntN(9), Cores: 1 + rng.IntN(8), CPU: Share(rng.IntN(101)), Load: Share(rng.IntN(101)),
		Idle: time.Duration(rng.IntN(10)) * time.Minute, Battery: rng.IntN(2) == 0,
		MemoryInUse: Share(rng.IntN(101)), MemoryIdle: Share(rng.IntN(101)), DiskFree: rng.Int64N(10e9),
	}
	if rng.IntN(2) == 0 {
		r.Hours = []string{"mon-fri 18:00-08:00", "sat"}
	}
	return r
}

func randomFacts(rng *rand.Rand) Facts {
	return Facts{
		Input:  Input{NoUser: rng.IntN(8) == 0, Known: rng.IntN(8) > 0, Idle: time.Duration(rng.IntN(1200)) * time.Second},
		Load:   Load{Known: rng.IntN(8) > 0, Cores: rng.Float64() * 8},
		Power:  Power{Known: rng.IntN(8) > 0, Battery: rng.IntN(4) == 0},
		Memory: Memory{Known: rng.IntN(8) > 0, Total: 16e9, Available: rng.Int64N(16e9), Guests: rng.Int64N(4) * 3e9},
		Disk:   Disk{Known: true, Free: rng.Int64N(100e9)},
	}
}

func TestShare(t *testing.T) {
	for text, want := range map[string]Share{"75%": 75, " 0 % ": 0, "100": 100, "2.5%": 2.5} {
		var got Share
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		again, _ := want.MarshalText()
		if err := got.UnmarshalText(again); err != nil || got != want {
			t.Errorf("%q does not read as %v: %v, %v", again, want, got, err)
		}
	}
	for _, text := range []string{"", "%", "101%", "-1%", "NaN", "all", "1e999"} {
		if err := new(Share).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is a share", text)
		}
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 1234 * time.Millisecond: "1.2s", 3 * time.Minute: "3m", 200 * time.Second: "3m20s", 2 * time.Hour: "2h", 150 * time.Minute: "2h30m",
	} {
		if got := short(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}
