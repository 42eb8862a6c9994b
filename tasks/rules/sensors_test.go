//go:build linux

package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// tree writes files below dir.
func tree(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPower(t *testing.T) {
	for _, test := range []struct {
		name    string
		files   map[string]string
		battery bool
		detail  string
	}{
		{"no supplies", nil, false, "no power supply"},
		{"a laptop on its battery", map[string]string{
			"AC/type": "Mains\n", "AC/online": "0\n", "BAT0/type": "Battery\n", "BAT0/status": "Discharging\n", "BAT0/capacity": "71\n",
		}, true, "BAT0 discharges, 71% left"},
		{"a laptop on the mains", map[string]string{
			"AC/type": "Mains\n", "AC/online": "1\n", "BAT0/type": "Battery\n", "BAT0/status": "Charging\n",
		}, false, "AC is online"},
		{"a full battery, mains unseen", map[string]string{"BAT1/type": "Battery\n", "BAT1/status": "Full\n"}, false, "BAT1 does not discharge"},
		{"a battery that is not there", map[string]string{"BAT1/type": "Battery\n", "BAT1/present": "0", "BAT1/status": "Discharging\n"}, false, "no battery"},
		{"two batteries", map[string]string{
			"BAT0/type": "Battery", "BAT0/status": "Not charging", "BAT1/type": "Battery", "BAT1/status": "Discharging",
		}, true, "BAT1 discharges"},
		{"a mouse", map[string]string{"hid/type": "Battery\n", "hid/scope": "Device\n", "hid/status": "Discharging\n"}, false, "no battery"},
		{"USB-C", map[string]string{
			"ucsi/type": "USB", "ucsi/online": "1", "BAT0/type": "Battery", "BAT0/status": "Discharging",
		}, false, "ucsi is online"},
	} {
		dir := t.TempDir()
		for name, text := range test.files {
			tree(t, dir, map[string]string{"class/power_supply/" + name: text})
		}
		got := readPower(dir)
		if !got.Known || got.Battery != test.battery || !strings.Contains(got.Detail, test.detail) {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}

func TestMemoryFacts(t *testing.T) {
	m, err := parseMemory([]byte("MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    4096 kB\n"))
	if err != nil || m.Total != 16<<20 || m.Available != 4<<20 || !m.Known {
		t.Errorf("%+v, %v", m, err)
	}
	for _, text := range []string{"", "MemTotal: x kB\n", "MemTotal: 5 kB\n", "MemAvailable: -1 kB\nMemTotal: 1 kB"} {
		if m, err := parseMemory([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, m)
		}
	}
}

// line is a line of /proc/PID/stat.
func line(p process) string {
	fields := make([]string, 50)
	for i := range fields {
		fields[i] = "0"
	}
	fields[0] = "S"
	fields[statParent], fields[statUser], fields[statKids] = strconv.Itoa(p.parent), fmt.Sprint(p.own), fmt.Sprint(p.children)
	fields[statNice], fields[statPolicy] = strconv.Itoa(p.nice), strconv.Itoa(p.policy)
	fields[statStart], fields[statPages] = fmt.Sprint(p.started), fmt.Sprint(p.pages)
	return fmt.Sprintf("%d (%s) %s\n", p.pid, p.name, strings.Join(fields, " "))
}

func TestParseStat(t *testing.T) {
	want := process{pid: 42, parent: 7, name: "a) R (b 1", own: 12, children: 5, nice: -5, policy: 5, started: 99, pages: 3}
	got, err := parseStat([]byte(line(want)))
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Skip(err)
	}
	if got, err := parseStat(own); err != nil || got.pid != os.Getpid() || got.parent != os.Getppid() || got.pages <= 0 {
		t.Errorf("%+v, %v of %s", got, err, own)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(line(process{pid: 1, name: "init"})))
	f.Add([]byte("1 (x) S"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := parseStat(text)
		if err == nil && len(p.name) > len(text) {
			t.Error("a name from nowhere")
		}
		_, _ = parseBusy(text)
		_, _ = parseMemory(text)
	})
}

func of(list ...process) census {
	c := census{}
	for _, p := range list {
		c[p.pid] = p
	}
	return c
}

func TestOthersUsed(t *testing.T) {
	mine := func(p process) bool { return p.name == "gotong" }
	shell := func(own, kids uint64) process {
		return process{pid: 2, parent: 1, name: "sh", own: own, children: kids}
	}
	for _, test := range []struct {
		name          string
		before, after census
		want          uint64
	}{
		{"one works", of(shell(5, 0)), of(shell(25, 0)), 20},
		{"a new one", of(), of(shell(25, 0)), 25},
		{"polite ones do not count", of(), of(process{pid: 3, nice: 10, own: 9}, process{pid: 4, policy: policyIdle, own: 9}), 0},
		{"a little nice counts", of(), of(process{pid: 3, nice: 9, own: 9}), 9},
		{"mine do not count", of(), of(process{pid: 3, name: "gotong", own: 9}), 0},
		{"short-lived ones show in their parent", of(shell(5, 10)), of(shell(5, 60)), 50},
		{"one that ended is not counted twice", of(shell(5, 10), process{pid: 9, parent: 2, own: 30}), of(shell(5, 50)), 10},
		{"one that ended and nobody waited for", of(shell(5, 10), process{pid: 9, parent: 2, own: 30}), of(shell(5, 10)), 0},
		{"a number that was given again", of(process{pid: 9, parent: 2, own: 30, started: 1}), of(process{pid: 9, parent: 1, own: 3, started: 2}), 3},
		{"counters that go back", of(shell(50, 50)), of(shell(5, 5)), 0},
	} {
		if got := othersUsed(test.before, test.after, mine); got != test.want {
			t.Errorf("%s: %d ticks, want %d", test.name, got, test.want)
		}
	}
}

// fakeProc is a /proc of which a test moves the counters.
type fakeProc struct {
	t    *testing.T
	dir  string
	busy uint64
}

func (f *fakeProc) write(list ...process) {
	f.t.Helper()
	old, _ := filepath.Glob(filepath.Join(f.dir, "[0-9]*"))
	for _, dir := range old {
		os.RemoveAll(dir)
	}
	files := map[string]string{
		"stat":    fmt.Sprintf("cpu  %d %d 0 1000 0 0 0 0 0 0\ncpu0 1 2 3\n", f.busy/2, f.busy-f.busy/2),
		"meminfo": "MemTotal: 1000 kB\nMemAvailable: 500 kB\n",
	}
	for _, p := range list {
		files[fmt.Sprintf("%d/stat", p.pid)] = line(p)
	}
	tree(f.t, f.dir, files)
}

func TestLoadOfOthers(t *testing.T) {
	f := &fakeProc{t: t, dir: t.TempDir()}
	p := newProcesses(f.dir, 100)
	now := monday
	step := func(busy, others, guest uint64) look {
		t.Helper()
		f.busy += busy
		f.write(process{pid: 50, own: others, name: "stress"}, process{pid: 100, name: "gotong", own: 7},
			process{pid: 101, parent: 100, own: guest, name: "guest", pages: 10}, process{pid: 102, parent: 101, pages: 5})
		l, err := p.look(now, 1, false, []string{"stress"})
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(500 * time.Millisecond)
		return l
	}
	first := step(1000, 0, 0)
	if first.load.Known {
		t.Errorf("%+v is known at the first look", first)
	}
	var l look
	for i := range uint64(8) { // the guest has one core, others have two
		l = step(150, (i+1)*100, (i+1)*50)
	}
	if l.load.Cores < 1.9 || l.load.Cores > 2.1 || l.guests != 15*int64(os.Getpagesize()) || !slices.Equal(l.exclusive, []string{"stress"}) {
		t.Errorf("%+v, want 2 cores", l)
	}
	if l = step(50, 800, 450); l.load.Cores > 1 {
		t.Errorf("%+v after they ended", l)
	}
}

// TestQuietMachineIsNotSearched: while all is quiet nobody lists the processes.
func TestQuietMachineIsNotSearched(t *testing.T) {
	f := &fakeProc{t: t, dir: t.TempDir()}
	p := newProcesses(f.dir, 100)
	f.write()
	if _, err := p.look(monday, 1, false, nil); err != nil {
		t.Fatal(err)
	}
	f.busy += 30 // a part of it nice: the kernel counts nice 1 there, too
	f.write()
	l, err := p.look(monday.Add(time.Second), 1, false, nil)
	if err != nil || !l.load.Known || l.load.Cores < 0.29 || l.load.Cores > 0.31 || p.last != nil {
		t.Errorf("%+v, %v, census %v", l, err, p.last)
	}
}

func TestInputSurvivesClocks(t *testing.T) {
	now := time.Now() // with running time
	var at time.Time
	in := inputs{ask: func() (stamp, error) { return stamp{at: at, source: "test"}, nil }}
	want := func(what string, idle time.Duration) {
		t.Helper()
		got := in.look(now)
		if diff := got.Idle - idle; !got.Known || diff < -time.Millisecond || diff > time.Millisecond {
			t.Errorf("%s: idle for %s, want %s", what, got.Idle, idle)
		}
	}
	want("no input yet", never)
	at = now.Add(-time.Hour).Round(0)
	want("an old input", time.Hour)
	now = now.Add(time.Second)
	want("a second later", time.Hour+time.Second)
	at = now.Round(0)
	want("an input", 0)
	now = now.Add(time.Minute)
	want("a minute later", time.Minute)
	at = now.Add(time.Hour).Round(0)
	want("an input in the future", 0)
	now = now.Add(time.Minute)
	want("a minute after that", time.Minute)
	at = now.Add(-2 * time.Hour).Round(0)
	want("the stamp was set back", 2*time.Hour)
}

// TestInputAfterSleep: the running time stands still while a machine sleeps.
func TestInputAfterSleep(t *testing.T) {
	before := time.Now()
	in := inputs{has: true, stamp: monday, idle: time.Hour, looked: before.Add(-time.Second)}
	in.ask = func() (stamp, error) { return stamp{at: monday}, nil }
	if got := in.look(before); got.Idle != time.Hour+time.Second {
		t.Errorf("idle for %s", got.Idle)
	}
	if slept(time.Second, time.Second) || slept(time.Second, 5*time.Second) || !slept(time.Second, time.Hour) {
		t.Error("sleep is not told from a slow second")
	}
}

func TestFileSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "input")
	ask := fileSource(path)
	if s, err := ask(); err != nil || !s.at.IsZero() {
		t.Errorf("%+v, %v without the file", s, err)
	}
	tree(t, "/", map[string]string{path: ""})
	if err := os.Chtimes(path, time.Time{}, monday); err != nil {
		t.Fatal(err)
	}
	if s, err := ask(); err != nil || !s.at.Equal(monday) {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := fileSource(filepath.Join(path, "below"))(); err == nil {
		t.Error("a path through a file is a source")
	}
}

func TestTTYSource(t *testing.T) {
	dir := t.TempDir()
	if _, err := ttySource(dir)(); err == nil {
		t.Error("a machine without terminals has one")
	}
	tree(t, dir, map[string]string{"tty1": "", "pts/0": "", "pts/ptmx": "", "null": "", "tty": "", "ttyprintk": ""})
	for name, age := range map[string]time.Duration{
		"tty1": time.Hour, "pts/0": time.Minute, "pts/ptmx": 0, "null": 0, "tty": 0, "ttyprintk": 0,
	} {
		if err := os.Chtimes(filepath.Join(dir, name), monday.Add(-age), monday); err != nil {
			t.Fatal(err)
		}
	}
	s, err := ttySource(dir)()
	if err != nil || !s.at.Equal(monday.Add(-time.Minute)) || !strings.HasSuffix(s.source, "pts/0") {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestInputDevices(t *testing.T) {
	for _, test := range []struct {
		files map[string]string
		want  bool
	}{
		{nil, false},
		{map[string]string{"class/input/event0/device/capabilities/ev": "3\n"}, false}, // a power button
		{map[string]string{"class/input/event0/device/capabilities/ev": "120013\n"}, true},
		{map[string]string{"class/input/event3/device/capabilities/ev": "17\n"}, true},
		{map[string]string{"class/input/mouse0/device/capabilities/ev": "17\n"}, false},
	} {
		dir := t.TempDir()
		tree(t, dir, test.files)
		if got, err := hasInputDevice(dir); got != test.want || err != nil {
			t.Errorf("%v: %v, %v", test.files, got, err)
		}
	}
}

func TestLogindStamp(t *testing.T) {
	now := monday
	for _, test := range []struct {
		idle  bool
		since uint64
		want  time.Time
	}{
		{false, 0, now},
		{false, uint64(now.Add(-time.Hour).UnixMicro()), now}, // of the last change
		{true, uint64(now.Add(-time.Hour).UnixMicro()), now.Add(-time.Hour)},
		{true, 0, time.Time{}},
	} {
		if got := logindStamp(test.idle, test.since, now); !got.at.Equal(test.want) {
			t.Errorf("%v %d: %s, want %s", test.idle, test.since, got.at, test.want)
		}
	}
}

// TestSensorsOfFakeMachine reads everything from fake trees.
func TestSensorsOfFakeMachine(t *testing.T) {
	sys, dir := t.TempDir(), t.TempDir()
	proc := &fakeProc{t: t, dir: t.TempDir()}
	proc.write(process{pid: 100, name: "gotong"}, process{pid: 7, name: "a-game-with-a-long-name"[:maxProcName]})
	r := someRules()
	r.Exclusive = []string{"a-game-with-a-long-name", "other"}
	s := OpenSensors(SensorsConfig{
		Sys: sys, Proc: proc.dir, Dev: dir, Dir: dir, ProcessID: 100, Rules: r,
		DiskFree: func(string) (int64, error) { return 5e9, nil },
	})
	defer s.Close()
	f := s.Read(time.Now(), false)
	if !f.Input.NoUser || f.Power.Battery || f.Memory.Total != 1000<<10 || f.Disk.Free != 5e9 || len(f.Exclusive) != 1 || f.Blind != "" {
		t.Errorf("%+v", f)
	}
	if d := Decide(r, f, monday); d.Slots != 0 || d.Reasons[0].Rule != "exclusive" {
		t.Errorf("%+v", d)
	}
}

// TestSensorsOfThisMachine only looks.
func TestSensorsOfThisMachine(t *testing.T) {
	s := OpenSensors(SensorsConfig{Rules: someRules(), Dir: t.TempDir(), DiskFree: func(string) (int64, error) { return 0, nil }})
	defer s.Close()
	now := time.Now()
	s.Read(now, true)
	f := s.Read(now.Add(time.Second), true)
	if !f.Memory.Known || !f.Load.Known || !f.Power.Known || f.Load.Cores < 0 {
		t.Errorf("%+v", f)
	}
	t.Logf("%+v", f)
}
