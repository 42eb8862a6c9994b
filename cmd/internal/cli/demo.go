package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"gotong/grid/localgrid"
)

const (
	demoFriends = 6 // besides "you"
	demoKilled  = 2
	demoGive    = "20GB"
)

func (a *app) demoCommand() *cobra.Command {
	var keep bool
	c := &cobra.Command{
		Use:   "demo [DIR]",
		Short: "Show all of it: seven peers on this machine back up DIR, lose two, restore, run a batch",
		Long: `Demo starts seven real peers on the loopback interface in a temporary place, you
and six friends. It backs up DIR (default: the current directory), kills two
friends, restores into a new place and compares every file, runs a batch over
the remaining friends and checks its result, then cleans up. Nothing needs to be
installed or set up, and DIR is only read.`,
		Example: "  gotong demo ~/documents\n  gotong demo --keep",
		Args:    maximumArgs(1),
	}
	c.Flags().BoolVar(&keep, "keep", false, "leave the grid running and say how to talk to it")
	c.RunE = func(c *cobra.Command, args []string) error {
		dir := "."
		if len(args) == 1 {
			dir = args[0]
		}
		source, err := absolute(dir)
		if err != nil {
			return usageError(c, err)
		}
		if info, err := os.Stat(source); err != nil || !info.IsDir() {
			return usageError(c, fmt.Errorf("%s is not a directory", dir))
		}
		return a.demo(c.Context(), source, keep)
	}
	return c
}

// demo is the state of one demonstration.
type demo struct {
	*app
	source string // what is backed up
	place  string // temporary directory
	grid   *localgrid.Grid
	you    *localgrid.Peer
	report demoReport
}

// demoReport is what --json prints at the end.
type demoReport struct {
	Type    string     `json:"type"`
	Peers   int        `json:"peers"`
	Killed  int        `json:"killed"`
	Backup  demoBackup `json:"backup"`
	Again   demoBackup `json:"backup_again"`
	Restore demoCopy   `json:"restore"`
	Batch   demoBatch  `json:"batch"`
	Seconds float64    `json:"seconds"`
	Kept    string     `json:"kept,omitempty"`
}

// demoBackup is the summary line of a backup.
type demoBackup struct {
	Snapshot      string  `json:"snapshot"`
	Files         uint64  `json:"files"`
	Bytes         uint64  `json:"bytes"`
	NewBytes      uint64  `json:"new_bytes"`
	StoredBytes   uint64  `json:"stored_bytes"`
	Seconds       float64 `json:"seconds"`
	SurvivesSites int     `json:"survives_sites"`
	Skipped       uint64  `json:"skipped"`
	Redundancy    string  `json:"redundancy"`
}

// demoCopy is the summary line of a restore and what the comparison found.
type demoCopy struct {
	Files    uint64  `json:"files"`
	Bytes    uint64  `json:"bytes"`
	Seconds  float64 `json:"seconds"`
	Compared int     `json:"compared"`
	Differ   int     `json:"differ"`
}

func (a *app) demo(ctx context.Context, source string, keep bool) (err error) {
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	place, err := os.MkdirTemp("", "gotong-demo-")
	if err != nil {
		return err
	}
	if keep { // "go run" deletes its program when it ends; the peers need theirs longer
		if executable, err = copyProgram(executable, place); err != nil {
			return errors.Join(err, os.RemoveAll(place))
		}
	}
	d := &demo{app: a, source: source, place: place, grid: localgrid.New(localgrid.Config{
		Executable: executable,
		Dir:        place,
		Env:        []string{"GOTONG_GOSSIP_PRESET=local", "GOTONG_DISCOVERY_MDNS=false"},
		Args:       []string{"--give", demoGive, "--slots", "1"},
		Detach:     keep,
	})}
	d.report = demoReport{Type: "summary", Peers: demoFriends + 1, Killed: demoKilled}
	begin := time.Now()
	err = d.steps(ctx)
	if keep && err == nil {
		d.report.Kept = place
		d.sayKept()
	} else {
		err = errors.Join(err, d.grid.Close(), removeTree(place))
	}
	if err != nil {
		return err
	}
	d.report.Seconds = time.Since(begin).Seconds()
	if a.json {
		return a.printJSON(d.report)
	}
	d.say("Done in %.1f s.", d.report.Seconds)
	return nil
}

func (d *demo) steps(ctx context.Context) error {
	for _, step := range []func(context.Context) error{d.start, d.backUp, d.killTwo, d.restore, d.runBatch} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// say tells a person what happens; scripts read the report.
func (d *demo) say(format string, args ...any) {
	if !d.json {
		fmt.Fprintf(d.stdout, format+"\n", args...)
	}
}

func (d *demo) start(ctx context.Context) error {
	begin := time.Now()
	var err error
	if d.you, err = d.grid.Found(ctx, "you"); err != nil {
		return err
	}
	joins, joining := errgroup.WithContext(ctx)
	for i := range demoFriends {
		joins.Go(func() error {
			_, err := d.grid.Join(joining, d.you, fmt.Sprintf("friend-%d", i+1))
			return err
		})
	}
	if err := joins.Wait(); err != nil {
		return err
	}
	if err := d.grid.WaitAlive(ctx, d.you, demoFriends+1); err != nil {
		return err
	}
	d.say("1. Seven peers on this machine found each other in %.1f s: you and %d friends, each a process with its own key and disk.",
		time.Since(begin).Seconds(), demoFriends)
	return nil
}

func (d *demo) backUp(ctx context.Context) error {
	for _, into := range []*demoBackup{&d.report.Backup, &d.report.Again} {
		err := d.you.JSON(ctx, into, "backup", d.source)
		var failed *localgrid.CommandError
		if errors.As(err, &failed) && failed.Code == exitSkipped {
			d.say("   (%d items could not be read and were left out)", into.Skipped)
		} else if err != nil {
			return err
		}
	}
	b, again := d.report.Backup, d.report.Again
	d.say("2. Backed up %s: %s, %s in %.1f s (%s). Encrypted, coded %s, %s stored on friends' disks; any %d friends may vanish.",
		printable(d.source), countText(b.Files, "file", "files"), bytesText(b.Bytes), b.Seconds, rateText(b.Bytes, seconds(b.Seconds)),
		b.Redundancy, bytesText(b.StoredBytes), b.SurvivesSites)
	d.say("   Backed up again, unchanged: %.1f s, %s sent.", again.Seconds, bytesText(again.StoredBytes))
	return nil
}

// killTwo kills the first two friends the way a power cut would.
func (d *demo) killTwo(context.Context) error {
	for _, p := range d.grid.Peers()[1 : 1+demoKilled] {
		if err := p.Kill(); err != nil {
			return err
		}
	}
	d.say("3. Killed %d friends (kill -9).", demoKilled)
	return nil
}

func (d *demo) restore(ctx context.Context) error {
	target := filepath.Join(d.place, "restored")
	r := &d.report.Restore
	if err := d.you.JSON(ctx, r, "restore", d.report.Backup.Snapshot, "--target", target); err != nil {
		return err
	}
	compared, different, err := compareTrees(ctx, d.source, filepath.Join(target, restoredPath(d.source)))
	if err != nil {
		return err
	}
	r.Compared, r.Differ = compared, len(different)
	if len(different) > int(d.report.Backup.Skipped) {
		return &failure{code: exitFailed, what: fmt.Sprintf("%d of %d restored files differ, %s first", len(different), compared, printable(different[0])),
			meaning: "either they changed while the demo ran, or this is a fault of gotong"}
	}
	d.say("4. Restored with them gone: %s in %.1f s (%s). Compared %d files by SHA-256: all equal.",
		bytesText(r.Bytes), r.Seconds, rateText(r.Bytes, seconds(r.Seconds)), compared)
	return nil
}

// restoredPath is where an absolute path appears below the target of a restore.
func restoredPath(path string) string {
	return path[len(filepath.VolumeName(path)):]
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (d *demo) sayKept() {
	d.say("\nThe grid runs on in %s. Talk to a peer with its home, for example:\n", d.place)
	program := filepath.Join(d.place, programName())
	for i, p := range d.grid.Peers() {
		if p.PID() == 0 {
			d.say("  %s up --home %s     # %s was killed; this starts it again", program, p.Home, p.Name)
			continue
		}
		command := []string{"peers", "status", "snapshots"}[i%3]
		d.say("  %s %s --home %s     # %s, process %d", program, command, p.Home, p.Name, p.PID())
	}
	d.say("\nStop a peer with kill PROCESS; when all are stopped, delete %s.\n", d.place)
}

func programName() string {
	if runtime.GOOS == "windows" {
		return "gotong.exe"
	}
	return "gotong"
}

// copyProgram copies the running program into dir.
func copyProgram(executable, dir string) (string, error) {
	data, err := os.ReadFile(executable)
	if err != nil {
		return "", err
	}
	copied := filepath.Join(dir, programName())
	return copied, os.WriteFile(copied, data, 0o755)
}

// removeTree deletes the demo's files, directories without write permission
// that came back from the backup included.
func removeTree(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if entry != nil && entry.IsDir() {
			_ = os.Chmod(path, 0o700) // RemoveAll below says what it could not delete
		}
		return nil
	})
	return os.RemoveAll(dir)
}
