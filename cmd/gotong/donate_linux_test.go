package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotong/grid/localgrid"
	"gotong/tasks/guests"
)

// donating is a part of what gotong status says.
type donating struct {
	Allowed, Slots, Running, Held int
	HeldSince                     *time.Time `json:"held_since"`
	Withdrawn                     int        `json:"withdrawn_total"`
	Reasons                       []struct{ Rule, Text string }
	Pause                         *struct {
		By           string
		Since, Until *time.Time
	}
}

func (d donating) why(rule string) string {
	for _, r := range d.Reasons {
		if r.Rule == rule {
			return r.Text
		}
	}
	return ""
}

func donatingOf(ctx context.Context, p *localgrid.Peer) (donating, error) {
	var s struct{ Donating donating }
	err := p.JSON(ctx, &s, "status")
	return s.Donating, err
}

// waitDonating returns when status says what is wanted.
func waitDonating(ctx context.Context, t *testing.T, p *localgrid.Peer, what string, ok func(donating) bool) (last donating) {
	t.Helper()
	eventually(ctx, t, time.Minute, p.Name+": "+what, func() (bool, error) {
		var err error
		last, err = donatingOf(ctx, p)
		return err == nil && ok(last), err
	})
	return last
}

// watchFile makes a file the source of the user's input of a peer, which it
// starts anew.
func watchFile(ctx context.Context, t *testing.T, p *localgrid.Peer, path string) {
	t.Helper()
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(p.Home, "config.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	with := strings.Replace(string(text), "donate:\n", "donate:\n    idle_source: "+path+"\n", 1)
	if with == string(text) {
		t.Fatalf("no rules of donors in %s", text)
	}
	if err := os.WriteFile(config, []byte(with), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

// touchOld makes a file that nobody changed for an hour.
func touchOld(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
}

// guestsOf returns the states of the sandbox processes of a peer.
func guestsOf(p *localgrid.Peer) (states []string) {
	lines, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(p.PID()) {
			states = append(states, fields[0])
		}
	}
	return states
}

// TestUserReturns: the user of a donor's machine touches a key while a guest
// runs; the guest is stopped, within 2 s where processors are free, and its task is
// run elsewhere.
func TestUserReturns(t *testing.T) {
	g := newGridWith(t, []string{"GOTONG_DONATE_IDLE=10m", "GOTONG_DONATE_HOLD=5s"})
	ctx := testContext(t)
	you, friends := grow(ctx, t, g, 2)
	input := map[*localgrid.Peer]string{}
	for _, p := range append(friends, you) {
		input[p] = filepath.Join(p.Home, "input")
		touchOld(t, input[p])
		watchFile(ctx, t, p, input[p])
	}
	if err := g.WaitAlive(ctx, you, 3); err != nil {
		t.Fatal(err)
	}
	cmd := you.Command(ctx, "run", "--verify", "none", "--timeout", "1h", guest(t, guests.Spin)) // has no end
	must(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill() // the peer then gives the task up
		_ = cmd.Wait()
	}()
	donor := whoRuns(ctx, t, g.Peers())
	touched := time.Now()
	if err := os.Chtimes(input[donor], touched, touched); err != nil {
		t.Fatal(err)
	}
	d := waitDonating(ctx, t, donor, "its guest is stopped", func(d donating) bool { return d.Held == 1 || d.Withdrawn > 0 })
	if d.Held == 1 {
		t.Logf("the guest was stopped after %s", d.HeldSince.Sub(touched))
		// One that waits for a processor shows that it is stopped once it gets it.
		for !slices.Contains(guestsOf(donor), "T") {
			if d, err := donatingOf(ctx, donor); err != nil || d.Held == 0 {
				t.Logf("it was held too briefly to be seen stopped: %v", err)
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	if why := d.why("idle"); d.Allowed != 0 || !strings.Contains(why, "its user was there") {
		t.Errorf("%+v", d)
	}
	waitDonating(ctx, t, donor, "its task is given back", func(d donating) bool { return d.Withdrawn >= 1 && d.Held == 0 })
	whoRuns(ctx, t, slices.DeleteFunc(g.Peers(), func(p *localgrid.Peer) bool { return p == donor }))
}

// whoRuns returns which of some peers runs a guest, once one does.
func whoRuns(ctx context.Context, t *testing.T, peers []*localgrid.Peer) (who *localgrid.Peer) {
	t.Helper()
	eventually(ctx, t, 2*time.Minute, "a guest runs", func() (bool, error) {
		for _, p := range peers {
			d, err := donatingOf(ctx, p)
			if err != nil {
				return false, err
			}
			if d.Running > 0 {
				who = p
				return true, nil
			}
		}
		return false, nil
	})
	return who
}

// TestBatteryAndPause: on battery nothing runs, nor while paused, which outlasts a
// restart; status has the reasons, and so has the run that finds no peer.
func TestBatteryAndPause(t *testing.T) {
	sys := t.TempDir()
	battery := filepath.Join(sys, "class", "power_supply", "BAT0")
	if err := os.MkdirAll(battery, 0o755); err != nil {
		t.Fatal(err)
	}
	supply := func(status string) {
		for name, text := range map[string]string{"type": "Battery\n", "status": status + "\n", "capacity": "42\n"} {
			if err := os.WriteFile(filepath.Join(battery, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	supply("Discharging")
	g := newGridWith(t, []string{"GOTONG_DONATE_BATTERY=false", "GOTONG_DONATE_SYSFS_ROOT=" + sys})
	ctx := testContext(t)
	you, _ := grow(ctx, t, g, 0)
	d := waitDonating(ctx, t, you, "it is on battery", func(d donating) bool { return d.Allowed == 0 })
	if why := d.why("battery"); !strings.Contains(why, "BAT0 discharges, 42% left") {
		t.Errorf("%+v", d)
	}
	out, err := you.Command(ctx, "status").Output()
	if err != nil || !strings.Contains(string(out), "it runs on its battery (BAT0 discharges, 42% left)") {
		t.Errorf("%v: %s", err, out)
	}
	supply("Charging")
	waitDonating(ctx, t, you, "the mains are back", func(d donating) bool { return d.Allowed == 1 })

	if out, err := you.Command(ctx, "pause", "--for", "1h").CombinedOutput(); err != nil || !strings.Contains(string(out), "No tasks run on this machine until 2") {
		t.Errorf("%v: %s", err, out)
	}
	d, err = donatingOf(ctx, you)
	if err != nil || d.Allowed != 0 || d.Pause == nil || d.Pause.Until == nil || d.Pause.By == "" || d.why("pause") == "" {
		t.Errorf("%v: %+v", err, d)
	}
	if err := you.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := you.Start(ctx); err != nil {
		t.Fatal(err)
	}
	again, err := donatingOf(ctx, you)
	if err != nil || again.Pause == nil || !again.Pause.Until.Equal(*d.Pause.Until) || again.Allowed != 0 {
		t.Errorf("after a restart: %v: %+v", err, again)
	}
	if out, err := you.Command(ctx, "resume").CombinedOutput(); err != nil || !strings.Contains(string(out), "1 of 1 slot may run tasks now") {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := run(ctx, t, you, guest(t, guests.Exit), "0"); err != nil {
		t.Error(err)
	}
	var work struct {
		Work []struct {
			Self  bool
			Tasks int `json:"tasks_for"`
		}
	}
	if err := you.JSON(ctx, &work, "status"); err != nil || len(work.Work) != 1 || !work.Work[0].Self || work.Work[0].Tasks != 1 {
		t.Errorf("%v: %+v", err, work)
	}
}

// TestOtherProgramsAreBusy: programs of others on all cores withdraw the slots.
func TestOtherProgramsAreBusy(t *testing.T) {
	if nice, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0); err != nil || 20-nice >= 10 {
		t.Skipf("what this test starts would be nice %d, which counts as no load", 20-nice)
	}
	g := newGridWith(t, []string{"GOTONG_DONATE_LOAD=50%"})
	ctx := testContext(t)
	you, _ := grow(ctx, t, g, 0)
	burn := exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf("for i in $(seq %d); do (while :; do :; done) & done; wait", runtime.NumCPU()))
	if stress, err := exec.LookPath("stress-ng"); err == nil {
		burn = exec.CommandContext(ctx, stress, "--quiet", "--cpu", strconv.Itoa(runtime.NumCPU()), "--timeout", "120s")
	} else {
		t.Log("no stress-ng here: shells burn instead")
	}
	burn.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := burn.Start(); err != nil {
		t.Skip(err)
	}
	defer func() {
		syscall.Kill(-burn.Process.Pid, syscall.SIGKILL)
		burn.Wait()
	}()
	d := waitDonating(ctx, t, you, "others are busy", func(d donating) bool { return d.why("load") != "" && d.Allowed == 0 })
	if !strings.Contains(d.why("load"), "other programs keep") {
		t.Errorf("%+v", d)
	}
}
