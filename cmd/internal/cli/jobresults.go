package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) jobLogsCommand() *cobra.Command {
	var follow bool
	var step string
	c := &cobra.Command{
		Use:   "logs JOB",
		Short: "Print what the tasks of a job printed",
		Long: `Logs prints standard output and standard error of the tasks that ended, in the
order of the tasks. With -f it waits for the others and prints them as they come,
until the job is over.`,
		Example: "  gotong job logs 3fa9\n  gotong job logs -f 3fa9 --json",
		Args:    exactArgs(1),
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "wait for those that still run")
	c.Flags().StringVar(&step, "step", "", "of this step only")
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			p := jobPrinter{app: a}
			return a.results(ctx, peer, &controlv1.JobResultsRequest{Job: args[0], Follow: follow, Step: step}, func(e *controlv1.JobEvent) error {
				switch {
				case e.GetTask() != nil:
					return p.task(e.GetTask())
				case e.GetStdout() != nil:
					return p.stdout(e.GetStdout())
				}
				return nil
			})
		})
	}
	return c
}

// results hands every message of a job's results to f.
func (a *app) results(ctx context.Context, peer controlv1.ControlClient, r *controlv1.JobResultsRequest, f func(*controlv1.JobEvent) error) error {
	stream, err := peer.JobResults(ctx, r)
	if err != nil {
		return err
	}
	return each(stream, f)
}

// jobTaskJSON is one result as scripts read it.
type jobTaskJSON struct {
	taskJSON
	Step     string   `json:"step"`
	Items    []string `json:"items"`
	Name     string   `json:"peer_name,omitempty"`
	Engine   string   `json:"engine,omitempty"`
	Attempts uint32   `json:"attempts"`
	Checked  bool     `json:"checked"`
	Invalid  string   `json:"invalid,omitempty"`
}

func newJobTaskJSON(t *controlv1.JobTask) jobTaskJSON {
	out := jobTaskJSON{
		taskJSON: taskJSON{
			Type: "task", Index: t.Index, Item: jobItem(t), Peer: t.Peer, State: t.State, ExitCode: int32(t.ExitCode), Seconds: t.Seconds, Why: t.Why,
			Remembered: t.Remembered,
		},
		Step: t.Step, Items: []string{}, Name: t.PeerName, Engine: t.Engine, Attempts: t.Attempts, Checked: t.Checked, Invalid: t.Invalid,
	}
	for _, word := range t.Item {
		out.Items = append(out.Items, string(word))
	}
	out.text(t.Stdout, t.StdoutBytes, t.Stderr)
	return out
}

func jobItem(t *controlv1.JobTask) string {
	words := make([]string, len(t.Item))
	for i, word := range t.Item {
		words[i] = string(word)
	}
	return strings.Join(words, " ")
}

// jobPrinter prints results of a job.
type jobPrinter struct {
	app  *app
	now  *controlv1.JobTask // whose large standard output comes; nil: none
	text guestWriter        // where it goes
}

func (p *jobPrinter) task(t *controlv1.JobTask) error {
	if p.app.json {
		if err := p.app.printJSON(newJobTaskJSON(t)); err != nil {
			return err
		}
	}
	p.now, p.text = t, guestWriter{w: p.app.stdout, write: writeTo}
	if t.StdoutBytes > 0 {
		return nil
	}
	return p.stdout(&controlv1.RunOutput{Data: t.Stdout, Index: t.Index, Last: true})
}

// stdout prints a piece of the standard output; after the last what else there is of
// the task.
func (p *jobPrinter) stdout(piece *controlv1.RunOutput) error {
	t := p.now
	switch {
	case t == nil || piece.Index != t.Index:
		return errors.New("the peer sent output of no task")
	case p.app.json && t.StdoutBytes > 0:
		return p.app.printJSON(newStdoutJSON(piece))
	case p.app.json:
		return nil
	}
	if err := p.text.add(piece.Data, piece.Last); err != nil || !piece.Last {
		return err
	}
	p.now = nil
	stderr := guestWriter{w: p.app.stderr, write: writeTo}
	if err := stderr.add(t.Stderr, true); err != nil {
		return err
	}
	p.app.printJobFault(t)
	return nil
}

// printJobFault says what is wrong with a result, if anything is.
func (a *app) printJobFault(t *controlv1.JobTask) {
	name := fmt.Sprintf("%s %d", printable(t.Step), t.Index)
	if item := jobItem(t); item != "" {
		name += " (" + printable(item) + ")"
	}
	switch {
	case t.Invalid != "":
		fmt.Fprintf(a.stderr, "%s: not to be trusted: %s\n", name, printable(t.Invalid))
	case t.State == "done":
	case t.Why != "":
		fmt.Fprintf(a.stderr, "%s: %s: %s\n", name, t.State, printable(t.Why))
	default:
		fmt.Fprintf(a.stderr, "%s: %s, exit code %d\n", name, t.State, t.ExitCode)
	}
}

func (a *app) jobWaitCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "wait JOB",
		Short: "Wait until a job is over",
		Long: `Wait returns when the job is over, with exit code 0 if it is done, 1 if it failed
and 130 if it was cancelled.`,
		Example: "  gotong job wait 3fa9 && gotong job results 3fa9 --to results",
		Args:    exactArgs(1),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			stream, err := peer.WatchJob(ctx, &controlv1.JobRequest{Job: args[0]})
			if err != nil {
				return err
			}
			var last *controlv1.JobInfo
			shown := isTerminal(a.stderr) && !a.json
			err = each(stream, func(j *controlv1.JobInfo) error {
				last = j
				if shown {
					fmt.Fprintf(a.stderr, "\r\x1b[K%s", jobSentence(j))
				}
				return nil
			})
			if shown {
				fmt.Fprint(a.stderr, "\r\x1b[K")
			}
			if err != nil {
				return err
			}
			return a.jobOutcome(last)
		})
	}
	return c
}

// jobOutcome prints how a job ended and makes an exit code of it.
func (a *app) jobOutcome(j *controlv1.JobInfo) error {
	if j == nil {
		return errors.New("the peer said nothing of the job")
	}
	if a.json {
		if err := a.printJSON(newJobJSON(j)); err != nil {
			return err
		}
	} else if j.State == "done" {
		fmt.Fprintln(a.stdout, jobSentence(j))
	}
	f := &failure{code: exitFailed, what: jobSentence(j), meaning: "the results that there are can be fetched all the same", next: "gotong job logs " + j.Id[:12] + ", then gotong job retry " + j.Id[:12]}
	switch j.State {
	case "done":
		return nil
	case "cancelled":
		f.code, f.next = exitInterrupted, "gotong job retry "+j.Id[:12]+" to go on"
	}
	return f
}

func (a *app) jobResultsCommand() *cobra.Command {
	var to, step string
	c := &cobra.Command{
		Use:   "results JOB --to DIR",
		Short: "Fetch the results of a job",
		Long: `Results writes what the tasks left into a directory: for each item one, called as
the item, with the files stdout and stderr and the directory out. A job of several
steps has a directory for each step above them. Every result is verified: the
worker that the job names signed it. The exit code is 3 when results are still
missing or could not be verified.`,
		Example: "  gotong job results 3fa9 --to results\n  gotong job results 3fa9 --to results --step render",
		Args:    exactArgs(1),
	}
	c.Flags().StringVar(&to, "to", "", "directory for the results; it is made")
	c.Flags().StringVar(&step, "step", "", "of this step only")
	c.RunE = func(c *cobra.Command, args []string) error {
		if to == "" {
			return usageError(c, errors.New("--to is missing: the directory for the results"))
		}
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			job, err := peer.Job(ctx, &controlv1.JobRequest{Job: args[0]})
			if err != nil {
				return err
			}
			return a.fetchResults(ctx, peer, job, to, step)
		})
	}
	return c
}

// resultsJSON sums up what was fetched.
type resultsJSON struct {
	Type    string `json:"type"`
	Job     string `json:"job"`
	State   string `json:"state"`
	Tasks   uint64 `json:"tasks"`
	Written uint64 `json:"written"`
	Files   uint64 `json:"files"`
	Failed  uint64 `json:"failed"`
	Missing uint64 `json:"missing"`
	Invalid uint64 `json:"invalid"`
}

func (a *app) fetchResults(ctx context.Context, peer controlv1.ControlClient, job *controlv1.JobInfo, to, step string) error {
	dir, err := openResultsDir(to, len(job.Steps) > 1)
	if err != nil {
		return err
	}
	defer dir.close()
	sum := resultsJSON{Type: "summary", Job: job.Id}
	for _, s := range job.Steps {
		if step == "" || s.Name == step {
			sum.Tasks += s.Tasks
		}
	}
	err = a.results(ctx, peer, &controlv1.JobResultsRequest{Job: job.Id, Outputs: true, Step: step}, func(e *controlv1.JobEvent) error {
		switch {
		case e.GetTask() != nil:
			t := e.GetTask()
			if t.State != "done" {
				sum.Failed++
			}
			if t.Invalid != "" {
				sum.Invalid++
				a.printJobFault(t)
				return nil
			}
			sum.Written++
			return dir.task(t)
		case e.GetStdout() != nil:
			return dir.stdout(e.GetStdout())
		case e.GetOutput() != nil:
			if e.GetOutput().First {
				sum.Files++
			}
			return dir.output(e.GetOutput())
		case e.GetEnd() != nil:
			sum.State = e.GetEnd().State
		}
		return nil
	})
	if err != nil {
		return err
	}
	sum.Missing = sum.Tasks - min(sum.Tasks, sum.Written+sum.Invalid)
	return a.printFetched(sum, to)
}

func (a *app) printFetched(sum resultsJSON, to string) error {
	if a.json {
		if err := a.printJSON(sum); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(a.stdout, "%s and %s written to %s", countText(sum.Written, "result", "results"), countText(sum.Files, "file", "files"), to)
		if sum.Failed > 0 {
			fmt.Fprintf(a.stdout, "; %d of the tasks failed", sum.Failed)
		}
		fmt.Fprintln(a.stdout, ".")
	}
	switch {
	case sum.Invalid > 0:
		return &failure{code: exitSkipped, what: countText(sum.Invalid, "result was", "results were") + " not signed by the worker that the job names",
			meaning: "they were left out; the others are good", next: "gotong job retry " + sum.Job[:12]}
	case sum.Missing > 0:
		f := &failure{code: exitSkipped, what: fmt.Sprintf("%d of %s have no result; the job is %s", sum.Missing, countText(sum.Tasks, "task", "tasks"), sum.State),
			meaning: "what there is was written", next: "gotong job wait " + sum.Job[:12]}
		if sum.State == "cancelled" || sum.State == "failed" {
			f.next = "gotong job retry " + sum.Job[:12] + " to go on"
		}
		return f
	}
	return nil
}

// resultsDir receives results. Names come from items and guests, so everything
// goes through os.Root.
type resultsDir struct {
	root  *os.Root
	steps bool // a directory for each step
	taken map[string]bool
	now   string   // directory of the task whose outputs come
	file  *os.File // being received
}

func openResultsDir(dir string, steps bool) (*resultsDir, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &resultsDir{root: root, steps: steps, taken: map[string]bool{}}, nil
}

func (d *resultsDir) close() {
	if d.file != nil {
		d.file.Close()
	}
	d.root.Close()
}

// name returns the directory of a task: the item, or its number; what was taken
// already gets ~INDEX.
func (d *resultsDir) name(t *controlv1.JobTask) string {
	name := itemName([]byte(jobItem(t)))
	if name == "" {
		name = fmt.Sprint(t.Index)
	}
	if d.steps {
		name = filepath.Join(itemName([]byte(t.Step)), name)
	}
	if d.taken[name] {
		name = fmt.Sprintf("%s~%d", name, t.Index)
	}
	d.taken[name] = true
	return name
}

func (d *resultsDir) task(t *controlv1.JobTask) error {
	d.now = d.name(t)
	if err := d.root.MkdirAll(d.now, 0o755); err != nil {
		return err
	}
	return errors.Join(
		d.root.WriteFile(filepath.Join(d.now, stdoutFile), t.Stdout, 0o644),
		d.root.WriteFile(filepath.Join(d.now, "stderr"), t.Stderr, 0o644),
	)
}

const stdoutFile = "stdout"

// stdout handles one piece of a standard output that did not come with its task.
func (d *resultsDir) stdout(piece *controlv1.RunOutput) error {
	return d.receive(filepath.Join(d.now, stdoutFile), piece)
}

// output handles one piece of a file; the pieces of a file follow each other.
func (d *resultsDir) output(piece *controlv1.RunOutput) error {
	return d.receive(filepath.Join(d.now, "out", filepath.FromSlash(piece.Path)), piece)
}

func (d *resultsDir) receive(path string, piece *controlv1.RunOutput) error {
	if piece.First {
		if err := d.root.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		var err error
		if d.file, err = d.root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644); err != nil {
			return err
		}
	}
	if d.file == nil {
		return fmt.Errorf("output %s: a piece without a beginning", printable(piece.Path))
	}
	if _, err := d.file.Write(piece.Data); err != nil {
		return err
	}
	if !piece.Last {
		return nil
	}
	err := d.file.Close()
	d.file = nil
	return err
}
