package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"gotong/grid/disk"
	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
	"gotong/tasks/jobfile"
	"gotong/tasks/jobs"
)

func (a *app) submitCommand() *cobra.Command {
	var dryRun, noCache bool
	c := &cobra.Command{
		Use:   "submit FILE",
		Short: "Submit a job file: steps that run on the grid without this command",
		Long: `Submit reads a job file (YAML; docs/jobs.md has the whole language), sends the
programs and files of which it speaks, and returns once the job is kept on disk.
It prints the job's id. The job goes on when this command, and the peer, are gone,
as far as other peers keep it; it says so if none does.`,
		Example: "  gotong submit thumbs.yaml\n  gotong submit --dry-run thumbs.yaml\n  gotong job wait $(gotong submit thumbs.yaml)",
		Args:    exactArgs(1),
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check the file and say what would be submitted")
	c.Flags().BoolVar(&noCache, "no-cache", false, "run tasks again whose results are remembered")
	c.RunE = func(c *cobra.Command, args []string) error {
		temp, err := os.MkdirTemp("", "gotong-submit-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp)
		draft, err := readJobFile(args[0], temp)
		if err != nil {
			if errors.Is(err, jobfile.ErrSyntax) {
				return &failure{exitUsage, err.Error(), "nothing was submitted", "correct " + args[0] + "; docs/jobs.md describes the language", err}
			}
			return err
		}
		draft.Plan.NoCache = noCache
		if dryRun {
			return a.printDraft(draft)
		}
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			return a.submit(ctx, peer, draft)
		})
	}
	return c
}

func readJobFile(path, temp string) (*jobfile.Draft, error) {
	data, err := disk.ReadFile(path, jobfile.MaxBytes)
	if err != nil {
		return nil, &failure{code: exitUsage, what: err.Error(), meaning: "nothing was submitted", next: "gotong submit FILE", cause: err}
	}
	full, err := absolute(path)
	if err != nil {
		return nil, err
	}
	file, err := jobfile.Parse(data)
	if err != nil {
		return nil, err
	}
	draft, err := file.Build(filepath.Dir(full), temp)
	if err != nil {
		return nil, err
	}
	if draft.Plan.Name == "" {
		name := strings.TrimSuffix(filepath.Base(full), filepath.Ext(full))
		if tasks.ValidName(name) && len(name) <= jobs.MaxNameBytes {
			draft.Plan.Name = name
		}
	}
	return draft, nil
}

// draftJSON is what a dry run says.
type draftJSON struct {
	Type  string          `json:"type"`
	Name  string          `json:"name"`
	Tasks int             `json:"tasks"`
	Files int             `json:"files"`
	Bytes int64           `json:"bytes"`
	Steps []draftStepJSON `json:"steps"`
}

type draftStepJSON struct {
	Name  string `json:"name"`
	Tasks int    `json:"tasks"`
}

func (a *app) printDraft(d *jobfile.Draft) error {
	out := draftJSON{Type: "plan", Name: d.Plan.Name, Files: len(d.Files), Steps: []draftStepJSON{}}
	for _, size := range d.Sizes {
		out.Bytes += size
	}
	for _, s := range d.Plan.Steps {
		out.Tasks += s.Items.Count
		out.Steps = append(out.Steps, draftStepJSON{s.Name, s.Items.Count})
	}
	if a.json {
		return a.printJSON(out)
	}
	fmt.Fprintf(a.stdout, "%s: %s in %s; %s, %s to send\n", printable(out.Name), countText(uint64(out.Tasks), "task", "tasks"),
		countText(uint64(len(out.Steps)), "step", "steps"), countText(uint64(out.Files), "file", "files"), bytesText(uint64(out.Bytes)))
	return a.table("STEP\tTASKS", func(w io.Writer) {
		for _, s := range out.Steps {
			fmt.Fprintf(w, "%s\t%d\n", printable(s.Name), s.Tasks)
		}
	})
}

type submitStream = grpc.ClientStreamingClient[controlv1.SubmitRequest, controlv1.SubmitResponse]

func (a *app) submit(ctx context.Context, peer controlv1.ControlClient, draft *jobfile.Draft) error {
	response, err := sendJob(ctx, peer, draft)
	if err != nil {
		return err
	}
	return a.printSubmitted(response)
}

// sendJob submits a plan with its files.
func sendJob(ctx context.Context, peer controlv1.ControlClient, draft *jobfile.Draft) (*controlv1.SubmitResponse, error) {
	plan, err := jobs.EncodeDraft(draft.Plan)
	if err != nil {
		return nil, err
	}
	stream, err := peer.Submit(ctx)
	if err != nil {
		return nil, err
	}
	// A failed send is explained by what CloseAndRecv returns, so it is not looked
	// at unless the fault is on this side.
	if err := sendContents(stream, plan, draft); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return stream.CloseAndRecv()
}

func sendContents(stream submitStream, plan []byte, draft *jobfile.Draft) error {
	start := &controlv1.SubmitPlan{Plan: plan, ExpiresSeconds: int64(draft.Expires / time.Second)}
	if err := stream.Send(&controlv1.SubmitRequest{Request: &controlv1.SubmitRequest_Plan{Plan: start}}); err != nil {
		return err
	}
	buffer := make([]byte, uploadPieceBytes)
	for id, path := range draft.Files {
		content := &controlv1.SubmitContent{Id: id[:], Size: draft.Sizes[id]}
		if err := stream.Send(&controlv1.SubmitRequest{Request: &controlv1.SubmitRequest_Content{Content: content}}); err != nil {
			return err
		}
		if err := sendPieces(stream, path, buffer); err != nil {
			return err
		}
	}
	return stream.Send(&controlv1.SubmitRequest{Request: &controlv1.SubmitRequest_End{End: &controlv1.SubmitEnd{}}})
}

func sendPieces(stream submitStream, path string, buffer []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		n, err := f.Read(buffer)
		if n > 0 {
			if err := stream.Send(&controlv1.SubmitRequest{Request: &controlv1.SubmitRequest_Data{Data: buffer[:n]}}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
}

// printSubmitted prints the id of a job, and where it is kept.
func (a *app) printSubmitted(r *controlv1.SubmitResponse) error {
	if a.json {
		return a.printJSON(struct {
			Job string `json:"job"`
		}{r.Job})
	}
	fmt.Fprintln(a.stdout, r.Job)
	if r.Alone {
		fmt.Fprintln(a.stderr, "Only this peer keeps the job: it goes on whenever this peer runs.")
	} else {
		fmt.Fprintf(a.stderr, "Kept by %s. This peer is not needed any more.\n", printable(strings.Join(r.Keepers, ", ")))
	}
	return nil
}
