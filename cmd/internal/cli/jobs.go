package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

// jobJSON is one job as scripts read it.
type jobJSON struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	State     string    `json:"state"`
	Tasks     uint64    `json:"tasks"`
	Done      uint64    `json:"done"`
	Failed    uint64    `json:"failed"`
	Submitted time.Time `json:"submitted"`
	Owner     string    `json:"owner"`
	Why       string    `json:"why,omitempty"`
	Ended     time.Time `json:"ended,omitzero"`
	KeptUntil time.Time `json:"kept_until,omitzero"`
}

func newJobJSON(j *controlv1.JobInfo) jobJSON {
	return jobJSON{
		ID: j.Id, Name: j.Name, State: j.State, Tasks: j.Tasks, Done: j.Done, Failed: j.Failed, Submitted: unixTime(j.SubmittedUnix),
		Owner: j.Owner, Why: j.Why, Ended: unixTime(j.EndedUnix), KeptUntil: unixTime(j.KeptUntilUnix),
	}
}

// unixTime returns the zero time for 0.
func unixTime(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

func (a *app) jobsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "jobs",
		Short: "List the detached jobs of this owner",
		Long: `Jobs lists what was submitted, or run with --detach, by any device of this owner,
the newest first, until its results are no longer kept.`,
		Example: "  gotong jobs\n  gotong jobs --json",
		Args:    exactArgs(0),
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			list, err := peer.Jobs(ctx, &controlv1.JobsRequest{})
			if err != nil {
				return err
			}
			return a.printJobs(list)
		})
	}
	return c
}

func (a *app) printJobs(list *controlv1.JobsResponse) error {
	if a.json {
		out := make([]jobJSON, 0, len(list.Jobs))
		for _, j := range list.Jobs {
			out = append(out, newJobJSON(j))
		}
		return a.printJSON(struct {
			Jobs        []jobJSON `json:"jobs"`
			Unreachable []string  `json:"unreachable,omitempty"`
		}{out, list.Unreachable})
	}
	if len(list.Unreachable) > 0 {
		defer fmt.Fprintln(a.stderr, moreJobs(list.Unreachable))
	}
	if len(list.Jobs) == 0 {
		fmt.Fprintln(a.stderr, "There are no jobs.")
		return nil
	}
	return a.table("JOB\tNAME\tSTATE\tTASKS\tDONE\tFAILED\tSUBMITTED", func(w io.Writer) {
		for _, j := range list.Jobs {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\n", j.Id[:12], printable(j.Name), j.State, j.Tasks, j.Done, j.Failed,
				time.Unix(j.SubmittedUnix, 0).Format(time.DateTime))
		}
	})
}

// moreJobs says who may keep jobs besides those that are listed.
func moreJobs(away []string) string {
	const named = 5
	names := strings.Join(away[:min(len(away), named)], ", ")
	if len(away) > named {
		names += ", …"
	}
	return fmt.Sprintf("There may be more: %s did not answer (%s).", countText(uint64(len(away)), "member", "members"), printable(names))
}

func (a *app) jobCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "job",
		Short: "Look after one detached job",
		Long: `Job has a command for each thing that can be done with a detached job. JOB is its
id as gotong jobs shows it; the first digits are enough where they are unique.`,
		Example: "  gotong job show 3fa9\n  gotong job wait 3fa9 && gotong job results 3fa9 --to results",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(c, fmt.Errorf("there is no command %q of gotong job", args[0]))
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.jobShowCommand(), a.jobLogsCommand(), a.jobWaitCommand(), a.jobResultsCommand(), a.jobCancelCommand(), a.jobRetryCommand(), a.jobWhyCommand())
	return c
}

// oneJob is a command that asks one thing of a job and shows the job.
func (a *app) oneJob(c *cobra.Command, ask func(context.Context, controlv1.ControlClient, *controlv1.JobRequest) (*controlv1.JobInfo, error)) *cobra.Command {
	c.Args = exactArgs(1)
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			job, err := ask(ctx, peer, &controlv1.JobRequest{Job: args[0]})
			if err != nil {
				return err
			}
			return a.printJob(job)
		})
	}
	return c
}

func (a *app) jobShowCommand() *cobra.Command {
	return a.oneJob(&cobra.Command{
		Use:     "show JOB",
		Short:   "Show the steps of a job, who keeps it and who works on it",
		Example: "  gotong job show 3fa9\n  gotong job show 3fa9 --json",
	}, func(ctx context.Context, peer controlv1.ControlClient, r *controlv1.JobRequest) (*controlv1.JobInfo, error) {
		return peer.Job(ctx, r)
	})
}

func (a *app) jobCancelCommand() *cobra.Command {
	return a.oneJob(&cobra.Command{
		Use:     "cancel JOB",
		Short:   "End a job; what is done stays",
		Example: "  gotong job cancel 3fa9",
	}, func(ctx context.Context, peer controlv1.ControlClient, r *controlv1.JobRequest) (*controlv1.JobInfo, error) {
		return peer.CancelJob(ctx, r)
	})
}

func (a *app) jobRetryCommand() *cobra.Command {
	return a.oneJob(&cobra.Command{
		Use:   "retry JOB",
		Short: "Run again what failed in a job that is over, or go on with a cancelled one",
		Long: `Retry begins a job anew that is over: the tasks that failed run again, then the
steps that were waiting for them. Results that are there stay.`,
		Example: "  gotong job retry 3fa9",
	}, func(ctx context.Context, peer controlv1.ControlClient, r *controlv1.JobRequest) (*controlv1.JobInfo, error) {
		return peer.RetryJob(ctx, r)
	})
}

type jobStepJSON struct {
	Name    string   `json:"name"`
	State   string   `json:"state"`
	Tasks   uint64   `json:"tasks"`
	Done    uint64   `json:"done"`
	Failed  uint64   `json:"failed"`
	Needs   []string `json:"needs"`
	Outputs bool     `json:"outputs"`
	Where   string   `json:"where,omitempty"`
	Verify  string   `json:"verify,omitempty"`
}

type jobPeerJSON struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Done   uint64 `json:"done"`
	Failed uint64 `json:"failed"`
}

type jobKeeperJSON struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

func (a *app) printJob(j *controlv1.JobInfo) error {
	if a.json {
		return a.printJSON(newJobDetailJSON(j))
	}
	fmt.Fprintln(a.stdout, jobSentence(j))
	keepers := make([]string, len(j.Keepers))
	for i, k := range j.Keepers {
		keepers[i] = printable(k.Name)
	}
	fmt.Fprintf(a.stdout, "Job %s, submitted %s, kept by %s", j.Id, time.Unix(j.SubmittedUnix, 0).Format(time.DateTime), strings.Join(keepers, ", "))
	if j.Driver != nil {
		fmt.Fprintf(a.stdout, "; %s drives it (epoch %d)", printable(j.Driver.Name), j.Epoch)
	}
	fmt.Fprintln(a.stdout, ".")
	if j.Evidence > 0 {
		fmt.Fprintf(a.stdout, "%s found; the signed evidence is in the job.\n", countText(j.Evidence, "wrong result was", "wrong results were"))
	}
	fmt.Fprintln(a.stdout)
	if err := a.table("STEP\tSTATE\tTASKS\tDONE\tFAILED\tNEEDS", func(w io.Writer) {
		for _, s := range j.Steps {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\n", printable(s.Name), s.State, s.Tasks, s.Done, s.Failed, printable(strings.Join(s.Needs, ", ")))
		}
	}); err != nil || len(j.Peers) == 0 {
		return err
	}
	fmt.Fprintln(a.stdout)
	return a.table("PEER\tDONE\tFAILED", func(w io.Writer) {
		for _, p := range j.Peers {
			fmt.Fprintf(w, "%s\t%d\t%d\n", printable(p.Name), p.Done, p.Failed)
		}
	})
}

// newJobDetailJSON is everything of a job.
func newJobDetailJSON(j *controlv1.JobInfo) any {
	out := struct {
		jobJSON
		Steps      []jobStepJSON   `json:"steps"`
		Keepers    []jobKeeperJSON `json:"keepers"`
		Epoch      uint64          `json:"epoch"`
		Driver     string          `json:"driver,omitempty"`
		Peers      []jobPeerJSON   `json:"peers"`
		Evidence   uint64          `json:"evidence"`
		Generation uint32          `json:"generation"`
		Remembered uint64          `json:"remembered"`
	}{
		jobJSON: newJobJSON(j), Steps: []jobStepJSON{}, Keepers: []jobKeeperJSON{}, Epoch: j.Epoch, Peers: []jobPeerJSON{},
		Evidence: j.Evidence, Generation: j.Generation, Remembered: j.Remembered,
	}
	if j.Driver != nil {
		out.Driver = j.Driver.Id
	}
	for _, s := range j.Steps {
		out.Steps = append(out.Steps, jobStepJSON{s.Name, s.State, s.Tasks, s.Done, s.Failed, append([]string{}, s.Needs...), s.Outputs, s.Where, s.Verify})
	}
	for _, k := range j.Keepers {
		out.Keepers = append(out.Keepers, jobKeeperJSON{k.Id, k.Name})
	}
	for _, p := range j.Peers {
		out.Peers = append(out.Peers, jobPeerJSON{p.Id, p.Name, p.Done, p.Failed})
	}
	return out
}

// jobSentence says how far a job is.
func jobSentence(j *controlv1.JobInfo) string {
	name := printable(j.Name)
	if name == "" {
		name = "Job " + j.Id[:12]
	}
	text := fmt.Sprintf("%s is %s: %d of %s done", name, j.State, j.Done, countText(j.Tasks, "task", "tasks"))
	if j.Failed > 0 {
		text += fmt.Sprintf(", %d failed", j.Failed)
	}
	if j.Remembered > 0 {
		text += fmt.Sprintf(", %d remembered", j.Remembered)
	}
	text += "."
	if j.Why != "" {
		why := printable(j.Why)
		text += " " + strings.ToUpper(why[:1]) + why[1:] + "."
	}
	if j.KeptUntilUnix > 0 {
		text += " Results are kept until " + time.Unix(j.KeptUntilUnix, 0).Format(time.DateTime) + "."
	}
	return text
}
