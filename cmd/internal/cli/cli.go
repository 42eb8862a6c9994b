// Package cli is the command line of gotong: one file for each command with its
// flags, its run function and its output.
//
// Rules of output: results go to standard output, everything else to standard
// error. With --json a query prints one document and long work prints one
// document a line. Progress is shown on a terminal only, and nothing is ever
// asked without one. What another peer said is escaped before it is printed.
// Every error says what failed, what it means for the user's data, and what to
// try next; its class is the exit code.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"gotong/cmd/internal/config"
)

// app is what every command shares.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	json       bool
	home       string
	phraseFile string // of commands that need the phrase now and then
}

// Main runs one command line and returns its exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if code, ok := runHidden(args, stdin, stdout); ok {
		return code
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	f := failureOf(err)
	if ctx.Err() != nil && (f.code == exitFailed || f.code == exitTemporary) {
		f = interruption(err)
	}
	a.report(f)
	return f.code
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "gotong",
		Short: "Keep backups on friends' computers and run batches on them, with no server",
		Long: `gotong joins friends' computers into a grid without a server or a coordinator.
Peers keep encrypted, Reed-Solomon coded shards of each other's backups and run
sandboxed tasks for each other.

Start with "gotong demo". To make a grid of your own: "gotong init", "gotong up",
"gotong invite"; a friend runs "gotong join CODE" and "gotong up".

Exit codes: 0 ok, 1 failed, 2 usage, 3 finished with items skipped, 4 too few
peers or too little redundancy, 10 not set up or peer not running, 11 busy,
12 wrong phrase, 13 refused by policy or quota, 65 data corrupt,
75 temporary: retry, 130 interrupted.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(c, fmt.Errorf("unknown command %q", args[0]))
			}
			return nil
		},
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return a.resolveHome(c) },
	}
	root.PersistentFlags().StringVar(&a.home, "home", "", "directory of this peer (default $GOTONG_HOME, else by XDG)")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.PersistentFlags().StringVar(&a.phraseFile, "phrase-file", "", "file with the recovery phrase, - for standard input: to read snapshots on a write-only device, for drill and recovery-sheet")
	root.SetFlagErrorFunc(flagError)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(helpCommand())
	root.AddCommand(
		a.demoCommand(),
		a.initCommand(), a.inviteCommand(), a.joinCommand(), a.recoverCommand(), a.recoverySheetCommand(), a.drillCommand(), a.upCommand(), a.serviceCommand(), a.leaveCommand(),
		a.peersCommand(), a.removeCommand(), a.statusCommand(), a.pauseCommand(), a.resumeCommand(),
		a.backupCommand(), a.snapshotsCommand(), a.lsCommand(), a.findCommand(), a.diffCommand(), a.catCommand(), a.mountCommand(), a.restoreCommand(),
		a.forgetCommand(), a.pruneCommand(), a.checkCommand(), a.statsCommand(),
		a.dropCommand(),
		a.trashCommand(),
		a.runCommand(), a.submitCommand(), a.jobsCommand(), a.jobCommand(),
		a.sandboxCommand(), a.doctorCommand(), a.configCommand(), a.versionCommand(), a.completionCommand(),
	)
	return root
}

// resolveHome makes the home directory absolute, so that it means the same to
// every process.
func (a *app) resolveHome(c *cobra.Command) error {
	if a.home == "" && c.Flags().Changed("home") { // a script's empty variable must not mean the usual home
		return usageError(c, errors.New("--home is empty"))
	}
	var err error
	if a.home == "" {
		a.home, err = config.DefaultHome()
	} else {
		a.home, err = absolute(a.home)
	}
	return err
}

func usageError(c *cobra.Command, err error) error {
	return &failure{code: exitUsage, what: err.Error(), next: c.CommandPath() + " --help", cause: err}
}

var errNoTerminal = errors.New("no terminal to ask on")
