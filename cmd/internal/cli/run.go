package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"gotong/grid/node"
	controlv1 "gotong/proto/control/v1"
)

const (
	itemSeparator    = ":::"
	defaultTimeout   = 10 * time.Minute
	defaultMemory    = "256MiB"
	uploadPieceBytes = 256 << 10
)

// runFlags are the options of one run.
type runFlags struct {
	peers   uint32
	timeout time.Duration
	memory  string
	inputs  []string
	output  string
}

func (a *app) runCommand() *cobra.Command {
	var flags runFlags
	c := &cobra.Command{
		Use:   "run [flags] MODULE.wasm [ARGS…] [::: ITEMS…]",
		Short: "Run a WASI program on the grid, once or once for each item",
		Long: `Run sends a WASI preview 1 module to friends' spare slots and one's own and runs it
once, or once for each item after ":::". {} in ARGS is replaced by the item;
without {} the item is appended. Standard output of the tasks comes out in the
order of the items. A task sees the --input files read-only under /in, may write
files under /out, and nothing else: no network, no environment, no files of the
machine. The exit code is 0 if that of every task is.`,
		Example: `  gotong run prog.wasm --verbose
  gotong run --timeout 30s --memory 64MiB thumb.wasm -s 200 {} ::: 1 2 3
  gotong run --input corpus.txt --output results count.wasm /in/corpus.txt ::: $(seq 100)`,
		Args: minimumArgs(1),
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.Uint32Var(&flags.peers, "peers", 0, "use at most this many peers (default any number)")
	f.DurationVar(&flags.timeout, "timeout", defaultTimeout, "kill a task that runs longer")
	f.StringVar(&flags.memory, "memory", defaultMemory, "most memory of a task")
	f.StringArrayVar(&flags.inputs, "input", nil, "file that every task sees as /in/NAME; may be repeated")
	f.StringVar(&flags.output, "output", "", "directory for the files that tasks write to /out")
	c.RunE = func(c *cobra.Command, args []string) error {
		start, files, err := planRun(flags, args)
		if err != nil {
			return usageError(c, err)
		}
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			return a.run(ctx, peer, start, files, flags.output)
		})
	}
	return c
}

// planRun checks the command line and returns the request with the files to
// send, the module first.
func planRun(flags runFlags, args []string) (*controlv1.RunStart, []string, error) {
	start := &controlv1.RunStart{Peers: flags.peers, TimeoutMillis: flags.timeout.Milliseconds(), Outputs: flags.output != ""}
	if flags.timeout <= 0 {
		return nil, nil, fmt.Errorf("--timeout %s is not positive", flags.timeout)
	}
	var memory node.Size
	if err := memory.UnmarshalText([]byte(flags.memory)); err != nil {
		return nil, nil, fmt.Errorf("--memory: %w", err)
	}
	start.MemoryBytes = uint64(memory)
	words := args[1:]
	if i := slices.Index(words, itemSeparator); i >= 0 {
		start.HasItems = true
		start.Items = byteSlices(words[i+1:])
		words = words[:i]
	}
	start.Args = byteSlices(words)
	files := append([]string{args[0]}, flags.inputs...)
	names := map[string]string{}
	for i, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			return nil, nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, nil, fmt.Errorf("%s is not a regular file", file)
		}
		name := filepath.Base(file)
		if other, ok := names[name]; ok && i > 0 {
			return nil, nil, fmt.Errorf("--input %s and %s would both be /in/%s", other, file, name)
		}
		if i > 0 {
			names[name] = file
		}
		start.Files = append(start.Files, &controlv1.RunFile{Name: name})
	}
	return start, files, nil
}

func byteSlices(words []string) [][]byte {
	out := make([][]byte, len(words))
	for i, word := range words {
		out[i] = []byte(word)
	}
	return out
}

type runStream = grpc.BidiStreamingClient[controlv1.RunRequest, controlv1.RunEvent]

func (a *app) run(ctx context.Context, peer controlv1.ControlClient, start *controlv1.RunStart, files []string, output string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var outputs *outputDir
	if output != "" {
		var err error
		if outputs, err = openOutputDir(output, start.Items, start.HasItems); err != nil {
			return err
		}
		defer outputs.close()
	}
	stream, err := peer.Run(ctx)
	if err != nil {
		return err
	}
	// A failed send is explained by what Recv returns, so it is not looked at
	// unless the fault is on this side.
	if err := sendRun(stream, start, files); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return a.followRun(stream.Recv, outputs)
}

// sendRun sends the request and its files in bounded pieces.
func sendRun(stream runStream, start *controlv1.RunStart, files []string) error {
	if err := stream.Send(&controlv1.RunRequest{Request: &controlv1.RunRequest_Start{Start: start}}); err != nil {
		return err
	}
	buffer := make([]byte, uploadPieceBytes)
	for _, name := range files {
		if err := sendFile(stream, name, buffer); err != nil {
			return err
		}
	}
	if err := stream.Send(&controlv1.RunRequest{Request: &controlv1.RunRequest_End{End: &controlv1.RunEnd{}}}); err != nil {
		return err
	}
	return stream.CloseSend()
}

func sendFile(stream runStream, name string, buffer []byte) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		n, err := f.Read(buffer)
		if n > 0 {
			if err := stream.Send(&controlv1.RunRequest{Request: &controlv1.RunRequest_Data{Data: buffer[:n]}}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return stream.Send(&controlv1.RunRequest{Request: &controlv1.RunRequest_FileEnd{FileEnd: &controlv1.RunFileEnd{}}})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// followRun prints tasks as they come, which is in the order of the items.
func (a *app) followRun(next func() (*controlv1.RunEvent, error), outputs *outputDir) error {
	for {
		event, err := next()
		if err != nil {
			return err
		}
		switch e := event.Event.(type) {
		case *controlv1.RunEvent_Task:
			err = a.printTask(e.Task)
		case *controlv1.RunEvent_Output:
			if outputs != nil {
				err = outputs.write(e.Output)
			}
		case *controlv1.RunEvent_Summary:
			return a.printRunSummary(e.Summary)
		}
		if err != nil {
			return err
		}
	}
}

func (a *app) printTask(t *controlv1.RunTask) error {
	if a.json {
		return a.printJSON(newTaskJSON(t))
	}
	if err := a.writeGuestText(a.stdout, t.Stdout); err != nil {
		return err
	}
	if err := a.writeGuestText(a.stderr, t.Stderr); err != nil {
		return err
	}
	if t.State != "done" || t.ExitCode != 0 {
		item := ""
		if len(t.Item) > 0 {
			item = " (" + printable(string(t.Item)) + ")"
		}
		fmt.Fprintf(a.stderr, "task %d%s on %s: %s\n", t.Index, item, printable(t.PeerName), taskOutcome(t))
	}
	return nil
}

// writeGuestText passes bytes of a guest on untouched to files and pipes; on a
// terminal control characters are escaped, for a guest is not trusted.
func (a *app) writeGuestText(w io.Writer, text []byte) error {
	if isTerminal(w) {
		text = []byte(printableLines(string(text)))
	}
	_, err := w.Write(text)
	return err
}

func taskOutcome(t *controlv1.RunTask) string {
	if t.State == "done" {
		return fmt.Sprintf("exit code %d", t.ExitCode)
	}
	if t.Why != "" {
		return t.State + ": " + printable(t.Why)
	}
	return t.State
}

func (a *app) printRunSummary(s *controlv1.RunSummary) error {
	if a.json {
		if err := a.printJSON(struct {
			Type    string  `json:"type"`
			Tasks   uint64  `json:"tasks"`
			Done    uint64  `json:"done"`
			Failed  uint64  `json:"failed"`
			Retried uint64  `json:"retried"`
			Seconds float64 `json:"seconds"`
		}{"summary", s.Tasks, s.Done, s.Failed, s.Retried, s.Seconds}); err != nil {
			return err
		}
	}
	if s.Failed > 0 {
		return &failure{code: exitFailed, what: fmt.Sprintf("%d of %s failed", s.Failed, countText(s.Tasks, "task", "tasks"))}
	}
	return nil
}
