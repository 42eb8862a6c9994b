package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) jobWhyCommand() *cobra.Command {
	var step string
	c := &cobra.Command{
		Use:   "why JOB",
		Short: "Say who may run a step of a job, and what keeps each of the others from it",
		Long: `Why asks every peer whether it would run tasks of the step now. FITS is yes for
peers that may; they can still be busy. The reasons are the job's own condition
(where:) and what the peer, or its donor's rules, answered.`,
		Example: "  gotong job why 3fa9\n  gotong job why 3fa9 --step render --json",
		Args:    exactArgs(1),
	}
	c.Flags().StringVar(&step, "step", "", "of this step (default the first that is not over)")
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			r, err := peer.WhyJob(ctx, &controlv1.WhyJobRequest{Job: args[0], Step: step})
			if err != nil {
				return err
			}
			return a.printWhy(r)
		})
	}
	return c
}

type candidateJSON struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Fits    bool     `json:"fits"`
	Reasons []string `json:"reasons"`
}

func (a *app) printWhy(r *controlv1.WhyJobResponse) error {
	if a.json {
		out := make([]candidateJSON, 0, len(r.Peers))
		for _, p := range r.Peers {
			out = append(out, candidateJSON{p.Id, p.Name, p.Fits, append([]string{}, p.Reasons...)})
		}
		return a.printJSON(struct {
			Step     string          `json:"step"`
			State    string          `json:"state"`
			Words    string          `json:"words"`
			Matching uint32          `json:"matching"`
			Peers    []candidateJSON `json:"peers"`
		}{r.Step, r.State, r.Words, r.Matching, out})
	}
	fmt.Fprintf(a.stdout, "%s.\n\n", printable(r.Words))
	return a.table("PEER\tFITS\tWHY", func(w io.Writer) {
		for _, p := range r.Peers {
			fits := "no"
			if p.Fits {
				fits = "yes"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", printable(p.Name), fits, printable(strings.Join(p.Reasons, "; ")))
		}
	})
}
