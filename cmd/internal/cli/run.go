package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gotong/grid/node"
	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
	"gotong/tasks/batch"
	"gotong/tasks/jobfile"
)

const (
	defaultTimeout = "10m"
	// wallTimeout bounds tasks whose time limit is a share of the median: what
	// donors allow unless they say otherwise.
	wallTimeout   = time.Hour
	defaultMemory = "256MiB"
)

// runFlags are the options of one run.
type runFlags struct {
	peers   uint32
	jobs    uint32
	timeout string
	memory  string
	inputs  []string
	output  string

	perTask   int
	colsep    string
	null      bool
	pipe      bool
	block     string
	recStart  string
	recEnd    string
	stage     string
	dryRun    bool
	keepOrder bool
	asTheyAre bool
	tag       bool

	joblog       string
	resume       bool
	resumeFailed bool
	retries      uint32
	halt         string
	verify       string
	noCache      bool
	detach       bool
	native       bool
}

func (a *app) runCommand() *cobra.Command {
	var flags runFlags
	c := &cobra.Command{
		Use:   "run [flags] MODULE.wasm|--native -- COMMAND [ARGS…] [::: ITEMS…]",
		Short: "Run a WASI program on the grid, once or once for each item",
		Long: `Run sends a WASI preview 1 module to friends' spare slots and one's own and runs it
once, or once for each item, as GNU parallel does. Items are what follows ":::",
the lines of the files after "::::", or the lines of standard input when that is
a pipe or a file. Several sources are combined each with each; ":::+" and "::::+"
link a source with the one before it.

In ARGS {} is replaced by the item, {.} by the item without its extension, {/} by
its file name, {//} by its directory, {/.} by its file name without extension, {#}
by the number of the task, {2} by the value of the second source, and so on: {2/.}.
Without any of these the item is appended.

A task sees the --input files, and with --stage the file that its item names,
read-only under /in, may write files under /out, and sees nothing else: no
network, no environment, no files of the machine. Standard output of the tasks
comes out in the order of the items. The exit code is 0 if that of every task is,
or --halt success=N found so many.

With --native the first of ARGS is a command of the donors' Linux machines instead,
which runs in bubblewrap where a donor allows that (donate.native).

Ctrl-C stops the run and says what was running; a second one ends the command at
once.`,
		Example: `  gotong run prog.wasm --verbose
  gotong run --timeout 30s --memory 64MiB thumb.wasm -s 200 {} ::: 1 2 3
  find src -name '*.c' | gotong run --stage --tag wc.wasm -l {}
  gotong run sweep.wasm {1} {2} ::: $(seq 100) ::: fast slow
  gotong run --pipe --block 10M grep.wasm error < big.log
  gotong job results $(gotong run --detach sweep.wasm ::: $(seq 100)) --to sweep
  gotong run --joblog log --resume --output results count.wasm ::: $(seq 100)`,
		Args: minimumArgs(1),
	}
	flags.define(c.Flags())
	c.SetFlagErrorFunc(runFlagError)
	c.RunE = func(c *cobra.Command, args []string) error {
		if c.Flags().Changed("keep-order") && flags.keepOrder && flags.asTheyAre {
			return usageError(c, errors.New("--keep-order and --as-they-come exclude each other"))
		}
		r, err := a.planRun(flags, c.Flags().Changed, args)
		if err != nil {
			return usageError(c, err)
		}
		if flags.detach {
			if err := r.detachable(c.Flags().Changed); err != nil {
				return usageError(c, err)
			}
			return a.withPeer(c.Context(), r.detach)
		}
		return a.withPeer(c.Context(), r.run)
	}
	return c
}

func (flags *runFlags) define(f *pflag.FlagSet) {
	f.SetInterspersed(false)
	f.Uint32Var(&flags.peers, "peers", 0, "use at most this many peers (default any number)")
	f.Uint32VarP(&flags.jobs, "jobs", "j", 0, "run at most this many tasks at once (default as many as there are slots)")
	f.StringVar(&flags.timeout, "timeout", defaultTimeout, "stop a task that runs longer: 30, 30s, 5m, or 200% of the median")
	f.StringVar(&flags.memory, "memory", defaultMemory, "most memory of a task")
	f.StringArrayVar(&flags.inputs, "input", nil, "file that every task sees as /in/NAME; may be repeated")
	f.StringVar(&flags.output, "output", "", "directory for the files that tasks write to /out, one directory for each item")

	f.IntVarP(&flags.perTask, "max-replace-args", "N", 0, "give each task this many items, {1} to {N}; with --pipe, as many records; 0: the item only counts")
	f.StringVar(&flags.colsep, "colsep", "", "split each item where this regular expression matches, into {1}, {2} and so on")
	f.BoolVarP(&flags.null, "null", "0", false, "items in files and on standard input end with a NUL byte")
	f.BoolVar(&flags.pipe, "pipe", false, "split standard input into blocks, and give one to each task on its standard input")
	f.StringVar(&flags.block, "block", "1M", "size of the blocks of --pipe")
	f.StringVar(&flags.recStart, "recstart", "", "what a record of --pipe begins with")
	f.StringVar(&flags.recEnd, "recend", `\n`, "what a record of --pipe ends with")
	f.StringVar(&flags.stage, "stage", "", "send the file that the item names, and give its path below /in in its place; =2 for that of the second source")
	f.Lookup("stage").NoOptDefVal = stageAll

	f.BoolVarP(&flags.keepOrder, "keep-order", "k", true, "print in the order of the items")
	f.BoolVar(&flags.asTheyAre, "as-they-come", false, "print in the order in which tasks end")
	f.BoolVar(&flags.tag, "tag", false, "print the item and a tab before each line of its task")
	f.BoolVar(&flags.dryRun, "dry-run", false, "show what would be run, and which peers would take it")

	f.StringVar(&flags.joblog, "joblog", "", "write a line for each task to this file, as GNU parallel does")
	f.BoolVar(&flags.resume, "resume", false, "leave out the tasks that --joblog has")
	f.BoolVar(&flags.resumeFailed, "resume-failed", false, "leave out the tasks that --joblog has as done")
	f.Uint32Var(&flags.retries, "retries", 0, "run a task that fails up to this many times")
	f.StringVar(&flags.halt, "halt", "never", "when to stop: now or soon, a comma, fail=N, success=N or done=N, where N may be a percentage")
	f.StringVar(&flags.verify, "verify", "none", "how to check results: none, quorum=2/3 (2 of 3 sites agree) or adaptive")
	f.BoolVar(&flags.detach, "detach", false, "submit as a job that outlives this command, print its id and return; see gotong job")
	f.BoolVar(&flags.native, "native", false, "run a command that the donors' machines have, where they allow it")
	f.BoolVar(&flags.noCache, "no-cache", false, "run tasks again whose results are remembered")
}

// clientRun is one run as the command sees it.
type clientRun struct {
	app      *app
	flags    runFlags
	start    *controlv1.RunStart
	module   []string // its path; of a native command none
	files    []string // to send, the module first
	template *batch.Template
	plan     *batch.Plan     // of items; nil: none
	splitter *batch.Splitter // of --pipe; nil: none
	stage    stagePlan
	skip     map[uint64]bool // by number of the task: done before
	skipped  int
	log      *joblog
	outputs  *outputDir
	show     *runScreen
	printing *controlv1.RunTask // whose large standard output comes; nil: none
	text     *guestWriter       // where it goes
	unlogged *controlv1.RunTask // whose files may still come; nil: none
}

// planRun checks the command line; changed tells whether a flag was given.
func (a *app) planRun(flags runFlags, changed func(string) bool, args []string) (*clientRun, error) {
	r := &clientRun{app: a, flags: flags, start: &controlv1.RunStart{
		Peers: flags.peers, AtOnce: flags.jobs, Outputs: flags.output != "", AsTheyCome: flags.asTheyAre || !flags.keepOrder,
		Retries: flags.retries, Halt: flags.halt, Verify: flags.verify, NoCache: flags.noCache, DryRun: flags.dryRun, Native: flags.native,
	}}
	if err := r.limits(); err != nil {
		return nil, err
	}
	if _, err := batch.ParseHalt(flags.halt); err != nil {
		return nil, err
	}
	if _, err := tasks.ParseVerify(flags.verify); err != nil {
		return nil, err
	}
	for name, path := range map[string]string{"output": flags.output, "joblog": flags.joblog} {
		if changed(name) && path == "" { // a shell variable that is not set
			return nil, fmt.Errorf("--%s is empty", name)
		}
	}
	if (flags.resume || flags.resumeFailed) && flags.joblog == "" {
		return nil, errors.New("--resume needs the --joblog of the run to resume")
	}
	if !flags.native {
		if batch.IsMark(args[0]) {
			return nil, fmt.Errorf("no program stands before %s", args[0])
		}
		r.module, args = args[:1], args[1:]
	}
	command, sources, err := batch.SplitArgs(args)
	if err != nil {
		return nil, err
	}
	if flags.native && len(command) == 0 {
		return nil, errors.New("--native needs a command")
	}
	if err := r.sources(sources, changed); err != nil {
		return nil, err
	}
	repeat := changed("max-replace-args") && !flags.pipe
	if r.start.HasItems {
		if r.template, err = batch.ParseTemplate(command, repeat); err != nil {
			return nil, err
		}
	}
	r.start.Repeat = repeat
	for _, word := range command {
		r.start.Args = append(r.start.Args, []byte(word))
	}
	return r, r.shared()
}

func (r *clientRun) limits() error {
	var memory node.Size
	if err := memory.UnmarshalText([]byte(r.flags.memory)); err != nil {
		return fmt.Errorf("--memory: %w", err)
	}
	r.start.MemoryBytes = uint64(memory)
	if share, ok := strings.CutSuffix(r.flags.timeout, "%"); ok {
		percent, err := strconv.ParseFloat(share, 64)
		if err != nil || !(percent >= 1 && percent <= 1e6) {
			return fmt.Errorf("--timeout %s is no percentage of the median run time", r.flags.timeout)
		}
		r.start.TimeoutPercent = uint32(percent)
		r.start.TimeoutMillis = wallTimeout.Milliseconds()
		return nil
	}
	limit, err := time.ParseDuration(r.flags.timeout)
	if seconds, notSeconds := strconv.ParseFloat(r.flags.timeout, 64); notSeconds == nil {
		limit, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil {
		return fmt.Errorf("--timeout %q is no time like 30s, and no percentage", r.flags.timeout)
	}
	if limit <= 0 {
		return fmt.Errorf("--timeout %s is not positive", r.flags.timeout)
	}
	r.start.TimeoutMillis = max(1, limit.Milliseconds())
	return nil
}

// sources decides where items come from.
func (r *clientRun) sources(sources []batch.Source, changed func(string) bool) error {
	flags := r.flags
	var err error
	if r.stage, err = parseStage(flags.stage); err != nil {
		return err
	}
	if flags.perTask < 0 {
		return fmt.Errorf("-N %d is negative", flags.perTask)
	}
	if flags.pipe {
		if len(sources) > 0 || r.stage.any() || flags.colsep != "" {
			return errors.New("--pipe takes standard input alone: no items, no --stage, no --colsep")
		}
		return r.pipeBlocks(changed)
	}
	switch {
	case len(sources) > 0:
	case hasInput(r.app.stdin):
		sources = []batch.Source{{Path: batch.StandardInput}}
	case r.stage.any():
		return errors.New("--stage sends the files that items name, and there are no items")
	default:
		return nil
	}
	r.start.HasItems = true
	r.plan = &batch.Plan{Sources: sources, PerTask: flags.perTask, NoValues: changed("max-replace-args") && flags.perTask == 0, Null: flags.null}
	if flags.colsep != "" {
		if r.plan.Columns, err = regexp.Compile(flags.colsep); err != nil {
			return fmt.Errorf("--colsep: %w", err)
		}
	}
	return nil
}

func (r *clientRun) pipeBlocks(changed func(string) bool) error {
	if !hasInput(r.app.stdin) {
		return errors.New("--pipe splits standard input, which is neither a pipe nor a file")
	}
	block, err := batch.ParseSize(r.flags.block)
	if err != nil {
		return fmt.Errorf("--block: %w", err)
	}
	s := &batch.Splitter{Block: block, Records: r.flags.perTask, RecordStart: batch.Unescape(r.flags.recStart), RecordEnd: batch.Unescape(r.flags.recEnd)}
	if changed("recstart") && !changed("recend") {
		s.RecordEnd = ""
	}
	r.splitter, r.start.HasItems = s, true
	return s.Validate()
}

// hasInput reports whether standard input is something to read: not a terminal,
// and not /dev/null.
func hasInput(stdin any) bool {
	f, ok := stdin.(*os.File)
	if !ok {
		return stdin != nil
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice == 0
}

// shared checks the files that all tasks get.
func (r *clientRun) shared() error {
	r.files = slices.Concat(r.module, r.flags.inputs)
	names := map[string]string{}
	for i, file := range r.files {
		info, err := os.Stat(file)
		if errors.Is(err, os.ErrNotExist) && i < len(r.module) {
			return fmt.Errorf("there is no file %s: run takes a WASM module, or an ordinary command after --native, where donors allow it", file)
		}
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", file)
		}
		name := filepath.Base(file)
		if other, ok := names[name]; ok && i >= len(r.module) {
			return fmt.Errorf("--input %s and %s would both be /in/%s", other, file, name)
		}
		if i >= len(r.module) {
			names[name] = file
		}
		r.start.Files = append(r.start.Files, &controlv1.RunFile{Name: name})
	}
	r.stage.common = names
	for _, file := range r.module {
		module, err := jobfile.IsModule(file)
		if err != nil {
			return err
		}
		if !module {
			return fmt.Errorf("%s is no WASM module; an ordinary program needs --native, and donors who allow it", file)
		}
	}
	return nil
}

// run sends the run to the peer and shows what comes back.
func (r *clientRun) run(ctx context.Context, peer controlv1.ControlClient) (err error) {
	if err := r.openFiles(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.closeFiles()) }()
	call := r.begin(ctx, peer)
	defer call.end()
	if err := call.open(); err != nil {
		return err
	}
	// A failed send is explained by what Recv returns, so it is not looked at
	// unless the fault is on this side.
	if err := r.send(call); err != nil && !errors.Is(err, errSend) {
		return call.because(err)
	}
	if r.flags.dryRun {
		return r.showPlan(call)
	}
	return r.follow(call)
}

func (r *clientRun) openFiles() error {
	if r.flags.dryRun {
		return nil
	}
	var err error
	if r.flags.joblog != "" {
		if r.log, r.skip, err = openJoblog(r.flags.joblog, r.flags.resume, r.flags.resumeFailed); err != nil {
			return err
		}
	}
	if r.flags.output != "" {
		r.outputs, err = openOutputDir(r.flags.output, r.start.HasItems)
	}
	return err
}

func (r *clientRun) closeFiles() error {
	if r.outputs != nil {
		r.outputs.close()
	}
	if r.log != nil {
		return r.log.close()
	}
	return nil
}
