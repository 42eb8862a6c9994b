package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"gotong/grid/disk"
	"gotong/grid/node"
	controlv1 "gotong/proto/control/v1"
)

func (a *app) serviceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "service",
		Short:   "Let this machine run the peer by itself",
		Example: "  gotong service install",
		Args:    exactArgs(0),
	}
	c.AddCommand(a.serviceInstallCommand(), a.serviceUninstallCommand())
	return c
}

// serviceFlags are those of install and uninstall.
type serviceFlags struct{ user, dryRun bool }

func (f *serviceFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.user, "user", runtime.GOOS != "linux" || os.Geteuid() != 0, "a service of this user, not of the machine; only root has the choice")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be done, and change nothing")
}

func (a *app) serviceInstallCommand() *cobra.Command {
	var flags serviceFlags
	c := &cobra.Command{
		Use:   "install",
		Short: "Start the peer now and whenever the machine runs or you log in",
		Long: `Install writes a unit of systemd that runs "gotong up" of this program for the home
directory, and starts it: a unit of your own, or of the machine when root says it,
which runs as the owner of the home. On macOS it writes a launch agent; on Windows
it says how to do the same by hand.

Said again it writes the file again and restarts the peer. A file of that name that it
did not write stays as it is. Settings in the environment are not taken along: put
them into config.yaml.`,
		Example: "  gotong service install --dry-run\n  gotong service install",
		Args:    exactArgs(0),
	}
	flags.add(c)
	c.RunE = func(c *cobra.Command, _ []string) error { return a.serviceInstall(c.Context(), flags) }
	return c
}

func (a *app) serviceUninstallCommand() *cobra.Command {
	var flags serviceFlags
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "End the service that install made; the home stays",
		Long: `Uninstall ends the peer that runs as a service and removes the file that install
wrote, and no other. The home and all that is in it stay: "gotong up" runs the peer.`,
		Example: "  gotong service uninstall --dry-run\n  gotong service uninstall",
		Args:    exactArgs(0),
	}
	flags.add(c)
	c.RunE = func(c *cobra.Command, _ []string) error { return a.serviceUninstall(c.Context(), flags) }
	return c
}

func (a *app) serviceInstall(ctx context.Context, flags serviceFlags) error {
	unit, err := serviceUnitOf(runtime.GOOS, flags.user)
	if err != nil {
		return err
	}
	var inUse *node.Failure
	if err := node.CheckIdle(a.home); err != nil && (!errors.As(err, &inUse) || inUse.Kind != controlv1.Kind_KIND_BUSY) {
		return err
	}
	program, err := serviceProgram()
	if err != nil {
		return err
	}
	if err := checkServicePath(a.home); err != nil {
		return err
	}
	text, home, err := unit.text(program, a.home)
	if err != nil {
		return err
	}
	old, err := unit.readOld()
	if err != nil {
		return err
	}
	if old != "" && !strings.Contains(old, home) {
		return &failure{code: exitFailed, what: unit.path + " runs the peer of another home", meaning: "nothing was changed", next: "gotong service uninstall, then the same command again"}
	}
	commands := unit.start
	if old != "" && runCommand(ctx, unit.active) == nil {
		commands = unit.again
	} else if inUse != nil {
		return &failure{code: int(inUse.Kind), what: inUse.What, meaning: "nothing was changed; a service would not find the home free", next: "end that one, then the same command again", cause: inUse}
	}
	if flags.dryRun {
		return a.printService(unit.path, text, commands, true)
	}
	if err := os.MkdirAll(filepath.Dir(unit.path), 0o755); err != nil {
		return err
	}
	if err := disk.WriteFile(unit.path, []byte(text), 0o644); err != nil {
		return err
	}
	if err := runCommands(ctx, commands, unit.path+" is written, but the peer may not run as a service yet"); err != nil {
		return err
	}
	if a.json {
		return a.printService(unit.path, text, commands, false)
	}
	fmt.Fprintf(a.stdout, "The peer runs as a service now, by %s\n", printable(unit.path))
	if unit.remark != "" {
		fmt.Fprintln(a.stdout, unit.remark)
	}
	return nil
}

func (a *app) serviceUninstall(ctx context.Context, flags serviceFlags) error {
	unit, err := serviceUnitOf(runtime.GOOS, flags.user)
	if err != nil {
		return err
	}
	old, err := unit.readOld()
	if err != nil {
		return err
	}
	if old == "" {
		if a.json {
			return a.printService(unit.path, "", nil, flags.dryRun)
		}
		fmt.Fprintf(a.stdout, "No service is installed: there is no %s\n", printable(unit.path))
		return nil
	}
	if flags.dryRun {
		return a.printService(unit.path, "", unit.stop, true)
	}
	if err := runCommands(ctx, unit.stop, "the peer may still be a service; the home is as it was"); err != nil {
		return err
	}
	if a.json {
		return a.printService(unit.path, "", unit.stop, false)
	}
	fmt.Fprintln(a.stdout, "The peer has ended and is no service any more. Its home stays: gotong up runs it")
	return nil
}

// printService prints what a dry run would do, or as JSON also what was done: the
// file that is written, if any, and the commands that are run.
func (a *app) printService(file, text string, commands [][]string, dryRun bool) error {
	if a.json {
		return a.printJSON(struct {
			File     string     `json:"file"`
			Text     string     `json:"text,omitempty"`
			Commands [][]string `json:"commands"`
			DryRun   bool       `json:"dry_run,omitempty"`
		}{file, text, append([][]string{}, commands...), dryRun})
	}
	if text != "" {
		fmt.Fprintf(a.stdout, "Would write %s:\n\n%s\n", printable(file), printableLines(text))
	}
	fmt.Fprintln(a.stdout, "Would run:")
	for _, command := range commands {
		fmt.Fprintf(a.stdout, "  %s\n", shellWords(command))
	}
	return nil
}

const maxUnitBytes = 1 << 20

// readOld returns what is at the place of the unit: nothing, or a file that install
// wrote. One that it did not write is an error.
func (u serviceUnit) readOld() (string, error) {
	old, err := disk.ReadFile(u.path, maxUnitBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if first, _, _ := strings.Cut(string(old), "\n"); !strings.Contains(first, serviceMark) {
		return "", &failure{code: exitFailed, what: u.path + " is there, and gotong service install did not write it", meaning: "nothing was changed",
			next: "look at it, and move it away if it is not needed"}
	}
	return string(old), nil
}

// runCommands runs each in turn; the failure of one says what that means and which
// are left.
func runCommands(ctx context.Context, commands [][]string, meaning string) error {
	for i, command := range commands {
		if err := runCommand(ctx, command); err != nil {
			var left []string
			for _, c := range commands[i:] {
				left = append(left, shellWords(c))
			}
			return &failure{code: exitFailed, what: err.Error(), meaning: meaning, next: strings.Join(left, " && "), cause: err}
		}
	}
	return nil
}

func runCommand(ctx context.Context, command []string) error {
	said, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	if err == nil {
		return nil
	}
	if text := strings.TrimSpace(string(said)); text != "" {
		return fmt.Errorf("%s: %w: %s", shellWords(command), err, text)
	}
	return fmt.Errorf("%s: %w", shellWords(command), err)
}
