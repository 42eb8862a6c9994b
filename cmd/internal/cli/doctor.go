package cli

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gotong/cmd/internal/config"
	"gotong/grid/disk"
	"gotong/grid/node"
	"gotong/tasks/native"
	"gotong/tasks/rules"
	"gotong/tasks/sandbox"
)

// slowSync is from when on a sync to disk is worth a remark.
const slowSync = 250 * time.Millisecond

// finding is what doctor says of one thing.
type finding struct {
	name     string
	ok       bool
	required bool
	why      string // what was found, in words
	do       string // when it is not ok
}

func (a *app) doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check what this machine needs to be a good peer, and say what is missing",
		Long: `Doctor looks at this machine and, when the peer runs, asks it about the grid: home
directory, disk, the walls around guests and which is missing and why, bubblewrap for
native commands, cgroups, the sensors of the donor's rules, clock and port, which other
members are asked about, versions of the peers, sites that may fail together, recovery. One line for each check, with what
to do. The exit code is 1 if one that is required is not ok; others are warnings.`,
		Example: "  gotong doctor\n  gotong doctor --json",
		Args:    exactArgs(0),
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		d := &doctor{app: a}
		d.local(c.Context())
		d.grid(c.Context())
		return d.print()
	}
	return c
}

// doctor collects findings.
type doctor struct {
	app      *app
	cfg      node.Config
	findings []finding
}

func (d *doctor) add(f finding) {
	if f.ok {
		f.do = ""
	}
	d.findings = append(d.findings, f)
}

// must adds a check that is required, should one that is not. An error is the
// reason why it is not ok.
func (d *doctor) must(name string, err error, found, do string) {
	d.check(finding{name: name, required: true, why: found, do: do}, err)
}

func (d *doctor) should(name string, err error, found, do string) {
	d.check(finding{name: name, why: found, do: do}, err)
}

func (d *doctor) check(f finding, err error) {
	if f.ok = err == nil; !f.ok {
		f.why = err.Error()
	}
	d.add(f)
}

// local checks what needs no running peer.
func (d *doctor) local(ctx context.Context) {
	result, err := config.Load(d.app.home, nil)
	if d.cfg = result.Config; err != nil {
		d.cfg = node.DefaultConfig()
	}
	d.must("configuration", err, "read from "+filepath.Join(d.app.home, config.FileName), "gotong config")
	d.home()
	d.disk()
	d.guests(ctx)
	d.sensors()
	synced, err := clockSynced()
	switch {
	case err != nil:
		d.should("clock", fmt.Errorf("not known: %w", err), "", "see that this machine keeps its time by the network")
	case !synced:
		d.should("clock", fmt.Errorf("the system does not know its clock to be right"), "", "let it be set by the network, for example: timedatectl set-ntp true")
	default:
		d.should("clock", nil, "the system keeps it by another clock", "")
	}
}

func (d *doctor) home() {
	info, err := os.Stat(d.app.home)
	if err != nil {
		d.must("home", fmt.Errorf("there is no peer in %s", d.app.home), "", "gotong init, or gotong join")
		return
	}
	mode, do := info.Mode().Perm(), "chmod 700 "+d.app.home
	switch {
	case runtime.GOOS == "windows":
		d.must("home", nil, d.app.home, "")
	case mode&0o022 != 0:
		d.must("home", fmt.Errorf("others may change %s (mode %04o)", d.app.home, mode), "", do)
	case mode&0o055 != 0: // its files have modes of their own
		d.should("home", fmt.Errorf("others may look into %s (mode %04o)", d.app.home, mode), "", do)
	default:
		d.must("home", nil, "only you may enter "+d.app.home, "")
	}
}

// disk checks the room and how long a sync takes.
func (d *doctor) disk() {
	dir := d.app.home
	if _, err := os.Stat(dir); err != nil {
		dir = os.TempDir()
	}
	free, err := disk.Free(dir)
	if least := uint64(d.cfg.Donate.DiskFree); err == nil && free < least {
		err = fmt.Errorf("%s free, and %s should stay", node.Size(free), node.Size(least))
	}
	d.must("disk room", err, node.Size(free).String()+" free", "make room on the file system of "+dir)
	took, err := syncTime(dir)
	if err == nil && took > slowSync {
		d.should("disk sync", fmt.Errorf("a sync takes %s", took.Round(time.Millisecond)), "", "put the home on a faster disk: each piece that is stored waits for it")
		return
	}
	d.must("disk sync", err, fmt.Sprintf("a sync takes %s", took.Round(100*time.Microsecond)), "see that "+dir+" can be written")
}

func syncTime(dir string) (took time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".doctor-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		return 0, err
	}
	begin := time.Now()
	err = f.Sync()
	return time.Since(begin), err
}

// guests checks the walls around tasks.
func (d *doctor) guests(ctx context.Context) {
	options := sandbox.Options{}
	var noCgroup error
	if options.Cgroup, noCgroup = sandbox.FindCgroup(); noCgroup != nil {
		options.NoCgroup = noCgroup.Error()
	}
	d.should("cgroup", noCgroup, "delegated: "+options.Cgroup, "run the peer as a service that may divide its cgroup: gotong service install")
	options.Cgroup = "" // the peer's to divide
	gives := d.cfg.Slots > 0
	launcher, err := sandbox.OpenLauncher(options)
	if err != nil {
		d.check(finding{name: "sandbox", required: gives, do: "gotong sandbox test"}, err)
		return
	}
	defer launcher.Close()
	dir, err := os.MkdirTemp("", "gotong-doctor-")
	if err != nil {
		d.check(finding{name: "sandbox", required: gives, do: "see that " + os.TempDir() + " can be written"}, err)
		return
	}
	defer os.RemoveAll(dir)
	layers, err := launcher.Layers(ctx, dir)
	if err != nil {
		d.check(finding{name: "sandbox", required: gives, do: "gotong sandbox test"}, err)
	}
	for _, l := range layers {
		if l.Name != sandbox.LayerCgroup {
			do := "a newer kernel, or fewer restrictions on this process; gotong sandbox test shows what it matters"
			if strings.Contains(l.Why, sandbox.StaticBuild) {
				do = sandbox.StaticBuild
			}
			d.add(finding{name: "sandbox: " + l.Name, ok: l.Active, required: l.Required && gives, why: layerWords(l), do: do})
		}
	}
	_, err = native.Probe(ctx, launcher)
	wanted := len(d.cfg.Donate.Native) > 0 && d.cfg.Donate.Native[0] != "none"
	found := "bubblewrap works; donate.native: " + strings.Join(d.cfg.Donate.Native, ", ")
	d.check(finding{name: "native commands", required: wanted && gives, why: found, do: "install bubblewrap (apt install bubblewrap), or leave donate.native at none"}, err)
}

func layerWords(l sandbox.Layer) string {
	if l.Active {
		return "active"
	}
	return l.Why
}

// sensors checks what the donor's rules go by.
func (d *doctor) sensors() {
	s := rules.OpenSensors(rules.SensorsConfig{
		Source: d.cfg.Donate.IdleSource, Sys: d.cfg.Donate.SysfsRoot, Dir: os.TempDir(), DiskFree: func(dir string) (int64, error) {
			free, err := disk.Free(dir)
			return int64(free), err
		},
	})
	defer s.Close()
	f := s.Read(time.Now(), false)
	input := finding{name: "user input", ok: f.Input.Known || f.Input.NoUser || d.cfg.Donate.Idle == 0, why: f.Input.Why, do: "donate.idle_source, or donate.idle: 0s if the user's presence does not matter"}
	switch {
	case f.Input.NoUser:
		input.why = "this machine has no seat and no input device"
	case f.Input.Known:
		input.why = "known by " + f.Input.Source
	case input.ok:
		input.why = "not needed (donate.idle: 0s)"
	}
	d.add(input)
	power := finding{name: "power supply", ok: f.Power.Known, why: f.Power.Detail, do: "see that " + d.cfg.Donate.SysfsRoot + "/class/power_supply can be read, or set donate.battery"}
	if power.why == "" {
		power.why = "not on battery"
		if !power.ok {
			power.why = "not known"
		}
	}
	d.add(power)
	d.add(finding{name: "load and memory", ok: f.Memory.Known, why: map[bool]string{true: "known", false: "not known"}[f.Memory.Known], do: "see that /proc can be read"})
}

// print shows the findings and fails if a required one is not ok.
func (d *doctor) print() error {
	a := d.app
	var bad []string
	list := make([]checkJSON, 0, len(d.findings))
	for _, f := range d.findings {
		if f.required && !f.ok {
			bad = append(bad, f.name)
		}
		list = append(list, checkJSON{f.name, f.ok, f.why, f.do})
		if a.json {
			continue
		}
		verdict := "ok  "
		switch {
		case !f.ok && f.required:
			verdict = "BAD "
		case !f.ok:
			verdict = "note"
		}
		fmt.Fprintf(a.stdout, "%s  %s: %s\n", verdict, f.name, printable(f.why))
		if f.do != "" {
			fmt.Fprintf(a.stdout, "        try: %s\n", printable(f.do))
		}
	}
	if a.json {
		if err := a.printJSON(struct {
			Checks []checkJSON `json:"checks"`
		}{list}); err != nil {
			return err
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return &failure{code: exitFailed, what: "not as it should be: " + strings.Join(bad, ", ")}
}

type checkJSON struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Why  string `json:"why"`
	Do   string `json:"do"`
}

// dials reports why nobody answers at an address of this machine.
func dials(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: 3 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
